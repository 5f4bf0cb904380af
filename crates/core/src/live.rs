//! What the configuration says, as it is now: replaced while others use it. Whoever asked goes on
//! with what they got, so that one piece of work sees one configuration.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

/// A value that can be replaced; cheap to clone, and all clones see the same.
pub struct Live<T>(Arc<ArcSwap<T>>);

impl<T> Live<T> {
    /// Starts with `value`.
    pub fn new(value: T) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(value)))
    }

    /// The value as it is now.
    pub fn get(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// From now on it is `value`.
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
