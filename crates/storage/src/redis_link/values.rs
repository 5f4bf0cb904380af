//! Strings that are changed by whoever read them: written where nothing stands, or in place of
//! exactly what was read. What a change means is decided by its owner, in one place and one
//! language; the server only compares. Refuses to write over what its caller has not seen.

use std::sync::LazyLock;

use redis::Value;

use super::Redis;
use crate::{Arg, Script, StorageError};

static SWAP: LazyLock<Script> =
    LazyLock::new(|| Script::new("storage.swap", include_str!("swap.lua")));

impl Redis {
    /// Writes `value` under `key`, to be forgotten after `ttl_ms`, if nothing stands there. If
    /// something does it is told, and stays as it is.
    pub async fn insert(
        &self,
        key: &str,
        value: &[u8],
        ttl_ms: u64,
    ) -> Result<Option<Vec<u8>>, StorageError> {
        let mut command = redis::cmd("SET");
        command.arg(key).arg(value).arg("NX").arg("GET");
        command.arg("PX").arg(ttl(ttl_ms));
        match self.command(&command).await? {
            Value::Nil => Ok(None),
            Value::BulkString(stored) => Ok(Some(stored)),
            _ => Err(StorageError::Rejected("a value that is no string")),
        }
    }

    /// Writes `value` under `key` if exactly `was` stands there, to be forgotten after `ttl_ms`, or
    /// when it was to be before. Whether it did.
    pub async fn swap(
        &self,
        key: String,
        was: &[u8],
        value: &[u8],
        ttl_ms: Option<u64>,
    ) -> Result<bool, StorageError> {
        let args = [
            was.into(),
            value.into(),
            Arg::Unsigned(ttl_ms.map_or(0, ttl)),
        ];
        let args = &args[..2 + usize::from(ttl_ms.is_some())];
        let swapped = self.script(&SWAP, &[key], args).await?;
        Ok(swapped == Value::Int(1))
    }
}

/// Redis refuses a time to live of nothing, and one beyond its clock.
fn ttl(ms: u64) -> u64 {
    ms.clamp(1, 1 << 48)
}
