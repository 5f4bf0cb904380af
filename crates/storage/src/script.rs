//! Lua scripts and their arguments. Each script starts with the `#!lua` header of Redis 7: with it,
//! Redis checks the memory limit before it runs the script instead of failing at a write in the
//! middle.

use std::sync::Arc;

use redis::{RedisWrite, ToRedisArgs};

/// An argument of a script: raw bytes, or a number sent as decimal digits. It has no `Debug` form,
/// because some arguments are digests and sealed codes.
#[derive(Clone, Copy)]
pub enum Arg<'a> {
    /// Raw bytes.
    Bytes(&'a [u8]),
    /// A number that may be negative.
    Signed(i64),
    /// A number that is not negative.
    Unsigned(u64),
}

impl<'a> From<&'a [u8]> for Arg<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a> From<&'a str> for Arg<'a> {
    fn from(text: &'a str) -> Self {
        Self::Bytes(text.as_bytes())
    }
}

impl From<i64> for Arg<'_> {
    fn from(number: i64) -> Self {
        Self::Signed(number)
    }
}

impl From<u64> for Arg<'_> {
    fn from(number: u64) -> Self {
        Self::Unsigned(number)
    }
}

impl From<u32> for Arg<'_> {
    fn from(number: u32) -> Self {
        Self::Unsigned(number.into())
    }
}

impl From<u8> for Arg<'_> {
    fn from(number: u8) -> Self {
        Self::Unsigned(number.into())
    }
}

impl Arg<'_> {
    /// Returns the bytes to reserve for the argument.
    pub(crate) const fn room(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Signed(_) | Self::Unsigned(_) => 20,
        }
    }
}

impl ToRedisArgs for Arg<'_> {
    fn write_redis_args<W: ?Sized + RedisWrite>(&self, out: &mut W) {
        match self {
            Self::Bytes(bytes) => out.write_arg(bytes),
            Self::Signed(number) => number.write_redis_args(out),
            Self::Unsigned(number) => number.write_redis_args(out),
        }
    }
}

/// A Lua script with its SHA-1 hash for `EVALSHA`; cheap to clone.
#[derive(Debug, Clone)]
pub struct Script {
    name: &'static str,
    source: &'static str,
    hash: Arc<str>,
}

impl Script {
    /// Creates the script `source`, called `name` in logs. `source` must start with `#!lua`; debug
    /// builds check that.
    pub fn new(name: &'static str, source: &'static str) -> Self {
        debug_assert!(source.starts_with("#!lua"), "{name} has no #!lua header");
        Self {
            name,
            source,
            hash: redis::Script::new(source).get_hash().into(),
        }
    }

    /// Returns the name for logs.
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
