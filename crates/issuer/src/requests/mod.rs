//! Remembers the answers to requests by event, so that a request that is redelivered or published
//! twice is not executed twice. Answers are stored as they were published: recipient masked, no
//! code.

mod redis;
mod sqlite;

use async_trait::async_trait;
use watchword_core::{RequestId, ServiceName, SubjectTag, Timestamp};
use watchword_storage::StorageError;
use watchword_verifier::Index;

pub use redis::RedisRequests;
pub use sqlite::{MIGRATION, SqliteRequests};

/// How long an answer is remembered: 24 h, usual for idempotency keys.
pub const REMEMBERED_MS: u64 = 24 * 3_600_000;

/// The key of a request: a keyed hash of (service, request id).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestKey(pub SubjectTag);

impl RequestKey {
    /// Creates the key of request `id` of `service`.
    pub fn new(index: &Index, service: &ServiceName, id: &RequestId) -> Self {
        Self(index.request_tag(service, id))
    }
}

/// Stores answers by request.
#[async_trait]
pub trait RequestLog: Send + Sync {
    /// Returns the answer to this request, if it was answered within the last 24 h.
    async fn answer(&self, key: RequestKey, now: Timestamp)
    -> Result<Option<String>, StorageError>;

    /// Remembers `answer` unless one is stored, and returns the stored answer.
    async fn remember(
        &self,
        key: RequestKey,
        answer: String,
        now: Timestamp,
    ) -> Result<String, StorageError>;
}
