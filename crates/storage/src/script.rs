//! A Lua script with the hash by which Redis knows it. Refuses scripts without the `#!lua` header
//! (Redis 7): with it a script is refused for want of memory before its first line, not half-way.

use std::sync::Arc;

/// A script; cheap to clone.
#[derive(Debug, Clone)]
pub struct Script {
    name: &'static str,
    source: &'static str,
    hash: Arc<str>,
}

impl Script {
    /// The script `source`, called `name` in logs. Sources are constants that start with `#!lua`;
    /// the suites of their owners run each of them.
    pub fn new(name: &'static str, source: &'static str) -> Self {
        debug_assert!(source.starts_with("#!lua"), "{name} has no #!lua header");
        Self {
            name,
            source,
            hash: redis::Script::new(source).get_hash().into(),
        }
    }

    /// Its name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) const fn source(&self) -> &'static str {
        self.source
    }

    pub(crate) fn hash(&self) -> &str {
        &self.hash
    }
}
