//! The store of code state: one trait, one atomic step a call, two implementations.

mod model;
mod redis;
mod sqlite;

pub use model::{
    CheckCommand, Checked, Digest, OpenCommand, Opened, SealedCode, Sends, Sent, SlotKey,
    StoredVerification, TagKey,
};

pub use redis::RedisVerifications;
pub use sqlite::{MIGRATIONS, SqliteVerifications};

use async_trait::async_trait;
use watchword_core::{GuessBudget, Timestamp, VerificationId};
use watchword_storage::StorageError;

/// How long an ended verification is remembered past its deadline, so that its status can be read.
const AFTERLIFE_MS: u64 = 3_600_000;

/// How long wrong guesses in a row are remembered after the last one: 90 days. A subject locked
/// for good comes back after that, and still has its hour and its day.
const GUESSES_KEPT_MS: u64 = 90 * 24 * 3_600_000;

/// What tells one typed code from another without being it: the starts of its digests, of which
/// one is made with a key that is in use also after a rotation.
fn fingerprints(candidates: &[Digest]) -> Vec<String> {
    candidates
        .iter()
        .map(|digest| digest.hex.chars().take(16).collect())
        .collect()
}

/// Why the store did not answer. Whoever asked fails closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store is away, slow or refuses.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What the store holds is not what was written, or was written with a key that is not in use
    /// here.
    #[error("the store holds a verification that cannot be read")]
    Corrupt,
}

/// Code state. Every call is one atomic decision; none is retried by the store.
///
/// Records of ended verifications are kept for an hour past their deadline, so that their status
/// can be read: those that were approved, canceled or used up without code and recipient, those
/// that ran out of time with the sealed copies they had.
#[async_trait]
pub trait VerificationStore: Send + Sync {
    /// Opens a verification, or decides what a request for a message means for the live one of
    /// the same slot. See [`Opened`].
    async fn open(&self, command: OpenCommand) -> Result<Opened, StoreError>;

    /// Asks for another message of a verification that is known by id. `next` is the code to use
    /// if the verification's policy rotates codes; without one that gives [`Opened::NeedsCode`].
    /// Unknown, another service's, ended and expired ones give `None`.
    async fn resend(
        &self,
        id: &VerificationId,
        service: &watchword_core::ServiceName,
        next: Option<SealedCode>,
        budget: GuessBudget,
        now: Timestamp,
    ) -> Result<Option<Opened>, StoreError>;

    /// A fallback step asks for the message after number `after`; the cooldown does not hold it
    /// back. `None` also if a later message was asked for meanwhile, or all are used up.
    async fn step(
        &self,
        id: &VerificationId,
        service: &watchword_core::ServiceName,
        after: u8,
        next: Option<SealedCode>,
        budget: GuessBudget,
        now: Timestamp,
    ) -> Result<Option<Opened>, StoreError>;

    /// The broker confirmed message number `send`.
    async fn confirm(&self, id: &VerificationId, send: u8) -> Result<(), StoreError>;

    /// One check, decided in this order: a repeat of a `check_id` gets the stored answer; then
    /// unknown id, other service, other purpose (counted like a wrong code), ended, expired,
    /// guess budget; then the digest is compared, at most `max_checks` times a verification.
    async fn check(
        &self,
        command: CheckCommand,
        budget: GuessBudget,
    ) -> Result<Checked, StoreError>;

    /// Withdraws a pending verification. `None`: unknown or another service's. Otherwise the
    /// verification as it is now (an ended one is left as it was).
    async fn cancel(
        &self,
        id: &VerificationId,
        service: &watchword_core::ServiceName,
        now: Timestamp,
    ) -> Result<Option<StoredVerification>, StoreError>;

    /// The verification as it is now; one past its deadline reads as expired. `None`: unknown or
    /// another service's.
    async fn get(
        &self,
        id: &VerificationId,
        service: &watchword_core::ServiceName,
        now: Timestamp,
    ) -> Result<Option<StoredVerification>, StoreError>;

    /// About `limit` of the verifications that are remembered, from `cursor` on, and where to go
    /// on. Those that come and go meanwhile may be missed or seen twice.
    async fn sends(
        &self,
        cursor: Option<String>,
        limit: usize,
    ) -> Result<(Vec<Sends>, Option<String>), StoreError>;

    /// Forgets the wrong guesses of a subject: it was bound anew, or an operator unlocks it.
    async fn forget_guesses(&self, tag: TagKey) -> Result<(), StoreError>;
}
