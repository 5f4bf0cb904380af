//! Insert and compare-and-swap of string values. The caller computes the new value in Rust; Redis
//! only compares. A value that the caller has not read is not overwritten.

use std::sync::LazyLock;

use redis::Value;

use super::Redis;
use crate::{Arg, Script, StorageError};

static SWAP: LazyLock<Script> =
    LazyLock::new(|| Script::new("storage.swap", include_str!("swap.lua")));

impl Redis {
    /// Writes `value` under `key` with a time-to-live of `ttl_ms`, unless the key exists. Returns
    /// the existing value in that case, and `None` after a write.
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
            _ => Err(StorageError::Rejected("a value that is not a string")),
        }
    }

    /// Replaces the value under `key` if it is `was`, with a time-to-live of `ttl_ms`, or the
    /// remaining one if that is `None`. Returns whether it replaced the value.
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

/// Bounds a time-to-live: Redis rejects 0, and values that overflow its clock.
fn ttl(ms: u64) -> u64 {
    ms.clamp(1, 1 << 48)
}
