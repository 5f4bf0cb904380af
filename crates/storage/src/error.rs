//! The error of a store call, by what the caller can do next. Errors never quote keys, values or
//! URLs.

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// The error of a store call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The store is not connected, or rejects commands for now (loading, read-only, out of memory,
    /// no permission). Nothing was executed; try later.
    #[error("the store is not available: {0}")]
    Unavailable(&'static str),
    /// No answer in time. The operation may or may not have run.
    #[error("the store did not answer in time")]
    Timeout,
    /// The store rejected the operation as invalid: a bug, or foreign data in the store.
    #[error("the store refused the operation: {0}")]
    Rejected(&'static str),
    /// The store must not be used as it is configured. The process does not start.
    #[error("the store cannot be used: {0}")]
    Config(String),
}

impl StorageError {
    /// Converts an error of the Redis client. A broken connection becomes `Timeout`, because the
    /// command may have run.
    pub(crate) fn from_redis(error: &RedisError) -> Self {
        if error.is_connection_refusal() {
            return Self::Unavailable("connection refused");
        }
        if error.is_timeout() || error.is_connection_dropped() || error.is_io_error() {
            return Self::Timeout;
        }
        match error.kind() {
            ErrorKind::Server(kind) => from_server(kind, error.code()),
            ErrorKind::AuthenticationFailed => Self::Unavailable("authentication failed"),
            ErrorKind::ClusterConnectionNotFound => {
                Self::Unavailable("no connection to the cluster")
            }
            ErrorKind::MasterNameNotFoundBySentinel | ErrorKind::NoValidReplicasFoundBySentinel => {
                Self::Unavailable("the sentinels report no primary")
            }
            ErrorKind::Extension => from_code(error.code()),
            _ => Self::Rejected("client error"),
        }
    }
}

fn from_server(kind: ServerErrorKind, code: Option<&str>) -> StorageError {
    match kind {
        ServerErrorKind::BusyLoading => StorageError::Unavailable("loading"),
        ServerErrorKind::ReadOnly => StorageError::Unavailable("read-only"),
        ServerErrorKind::MasterDown => StorageError::Unavailable("the primary is down"),
        ServerErrorKind::ClusterDown | ServerErrorKind::TryAgain => {
            StorageError::Unavailable("the cluster is down")
        }
        ServerErrorKind::Moved | ServerErrorKind::Ask => {
            StorageError::Unavailable("the cluster is moving slots")
        }
        ServerErrorKind::NoPerm => StorageError::Unavailable("no permission"),
        ServerErrorKind::CrossSlot => StorageError::Rejected("keys in several slots"),
        _ => from_code(code),
    }
}

/// Classifies error codes for which the client has no kind. Redis returns `OOM` when memory is
/// short: the `#!lua` header lets it reject a script before it runs.
fn from_code(code: Option<&str>) -> StorageError {
    match code {
        Some("OOM") => StorageError::Unavailable("out of memory"),
        Some("MISCONF") => StorageError::Unavailable("cannot persist"),
        Some("NOREPLICAS") => StorageError::Unavailable("too few replicas"),
        Some("NOAUTH" | "WRONGPASS") => StorageError::Unavailable("authentication failed"),
        Some("BUSY") => StorageError::Unavailable("busy with a script"),
        Some("WRONGTYPE") => StorageError::Rejected("a key holds another type"),
        _ => StorageError::Rejected("an error reply"),
    }
}
