//! A Lua script with the hash by which Redis knows it, and what it is given. Refuses scripts without the `#!lua` header
//! (Redis 7): with it a script is refused for want of memory before its first line, not half-way.

use std::sync::Arc;

use redis::{RedisWrite, ToRedisArgs};

/// What a script is given: bytes as they are, or a number in decimal digits. Has no debug form: some
/// of it is digests and sealed codes.
#[derive(Clone, Copy)]
pub enum Arg<'a> {
    /// Bytes.
    Bytes(&'a [u8]),
    /// A number that may be below zero.
    Signed(i64),
    /// A count.
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
    /// The room to make for it.
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
