//! A look at the store for an operator: can we log in, which server is it, does it keep what it is
//! told, how full is it, what time is it there.

use redis::Value;
use tokio::time::timeout;
use watchword_core::Timestamp;

use super::dial::{dial, field, infos, inspect};
use super::{RedisSettings, Target};
use crate::StorageError;

/// What was found; of a cluster, each primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// The servers.
    pub servers: Vec<Server>,
    /// The time at one of them.
    pub clock: Option<Timestamp>,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `Redis 7.0.15`.
    pub version: String,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes it may use; 0 where nothing bounds it.
    pub max_bytes: u64,
    /// Whether it writes each change to a file.
    pub appends: bool,
    /// Replicas connected to it.
    pub replicas: u32,
}

/// Looks at the store of `settings`. One that must not be used is [`StorageError::Config`].
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

/// Seconds and microseconds.
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
