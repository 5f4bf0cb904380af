#![doc = include_str!("../README.md")]

mod error;
mod redis_link;
mod script;
mod sqlite;
mod telemetry;

pub use error::StorageError;
pub use redis;
pub use redis_link::examine::{Examined, Server, examine};
pub use redis_link::{Pinned, Redis, RedisSettings, RedisUrlError};
pub use rusqlite;
pub use script::{Arg, Script};
pub use sqlite::{BackupError, Migration, Sqlite, back_up, forget, restore};
pub use telemetry::{SERIES, StorageMetrics};
