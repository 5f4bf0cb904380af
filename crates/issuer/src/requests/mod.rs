//! Which requests by event were answered, so that one that is redelivered or published twice
//! opens nothing twice. Holds answers as they were published: recipient masked, no code.

mod redis;
mod sqlite;

use async_trait::async_trait;
use watchword_core::{RequestId, ServiceName, SubjectTag, Timestamp};
use watchword_storage::StorageError;
use watchword_verifier::Index;

pub use redis::RedisRequests;
pub use sqlite::{MIGRATION, SqliteRequests};

/// How long an answered request is remembered: 24 h, as others keep idempotency keys.
pub const REMEMBERED_MS: u64 = 24 * 3_600_000;

/// The key of one request: the keyed hash of (service, request id).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestKey(pub SubjectTag);

impl RequestKey {
    /// The key of request `id` of `service`.
    pub fn new(index: &Index, service: &ServiceName, id: &RequestId) -> Self {
        Self(index.request_tag(service, id))
    }
}

/// Answers by request.
#[async_trait]
pub trait RequestLog: Send + Sync {
    /// The answer that was given to this request, if it was answered within the last 24 h.
    async fn answer(&self, key: RequestKey, now: Timestamp)
    -> Result<Option<String>, StorageError>;

    /// Remembers `answer`. The first one stays: what is remembered now is given back.
    async fn remember(
        &self,
        key: RequestKey,
        answer: String,
        now: Timestamp,
    ) -> Result<String, StorageError>;
}
