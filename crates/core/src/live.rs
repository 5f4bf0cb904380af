//! A configuration value that a reload can replace while tasks use it. A task that took the value
//! keeps it, so that one piece of work sees one configuration.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

/// A replaceable value. Clones are cheap and share the value.
pub struct Live<T>(Arc<ArcSwap<T>>);

impl<T> Live<T> {
    /// Creates a holder of `value`.
    pub fn new(value: T) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(value)))
    }

    /// Returns the current value. Later replacements do not change it.
    pub fn get(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// Replaces the value for all clones.
    pub fn replace(&self, value: T) {
        self.0.store(Arc::new(value));
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for Live<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Live")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_in_progress_keeps_what_it_got() {
        let live = Live::new(1);
        let (other, before) = (live.clone(), live.get());
        live.replace(2);
        assert_eq!((*before, *other.get()), (1, 2));
    }
}
