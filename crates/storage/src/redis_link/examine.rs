//! Diagnosis of the store for an operator: login, version, persistence, memory use and clock.

use redis::Value;
use tokio::time::timeout;
use watchword_core::Timestamp;

use super::dial::{dial, field, infos, inspect};
use super::{RedisSettings, Target};
use crate::StorageError;

/// The result of [`examine`]. For a cluster it lists every primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// The servers that answered.
    pub servers: Vec<Server>,
    /// The time of one of the servers, if it answered in time.
    pub clock: Option<Timestamp>,
}

/// A Redis or Valkey server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Product and version: `Redis 7.0.15`.
    pub version: String,
    /// Memory in use, in bytes (`used_memory`).
    pub used_bytes: u64,
    /// Memory limit in bytes (`maxmemory`); 0 means unlimited.
    pub max_bytes: u64,
    /// Whether the server writes changes to an append-only file.
    pub appends: bool,
    /// Number of connected replicas.
    pub replicas: u32,
}

/// Examines the store of `settings`. Returns [`StorageError::Config`] for a store that must not be
/// used.
pub async fn examine(settings: RedisSettings) -> Result<Examined, StorageError> {
    let target = Target::new(settings)?;
    let deadline = target.command_deadline();
    let connection = dial(&target).await?;
    inspect(connection.clone(), deadline).await?;
    let servers = infos(connection.clone(), deadline)
        .await?
        .iter()
        .map(|info| server(info))
        .collect();
    let time = timeout(deadline, connection.query(&redis::cmd("TIME"))).await;
    Ok(Examined {
        servers,
        clock: time.ok().and_then(Result::ok).as_ref().and_then(clock),
    })
}

fn server(info: &str) -> Server {
    let number = |name| field(info, name).and_then(|text| text.parse().ok());
    let version = match field(info, "valkey_version") {
        Some(version) => format!("Valkey {version}"),
        None => format!("Redis {}", field(info, "redis_version").unwrap_or("?")),
    };
    Server {
        version,
        used_bytes: number("used_memory").unwrap_or(0),
        max_bytes: number("maxmemory").unwrap_or(0),
        appends: field(info, "aof_enabled") == Some("1"),
        replicas: number("connected_slaves")
            .and_then(|count| u32::try_from(count).ok())
            .unwrap_or(0),
    }
}

/// Converts the reply of `TIME`: seconds and microseconds.
fn clock(time: &Value) -> Option<Timestamp> {
    let Value::Array(parts) = time else {
        return None;
    };
    let number = |place: usize| match parts.get(place) {
        Some(Value::BulkString(text)) => std::str::from_utf8(text).ok()?.parse::<i64>().ok(),
        _ => None,
    };
    Some(Timestamp::from_millis(
        number(0)?.checked_mul(1_000)? + number(1)? / 1_000,
    ))
}
