//! The store of code state: one trait, one atomic step a call, two implementations.

mod model;
mod redis;
mod sqlite;

pub use model::{
    Approval, CheckCommand, Checked, Digest, Expected, Inspected, OpenCommand, Opened, SealedCode,
    Sends, Sent, SlotKey, StepOf, StoredVerification, TagKey,
};

pub use redis::RedisVerifications;
pub use sqlite::{MIGRATIONS, MachineClocks, SqliteVerifications, SteadyClock, end_live_codes};

use async_trait::async_trait;
use watchword_core::{GuessBudget, Timestamp, VerificationId};
use watchword_storage::StorageError;

/// How long an ended verification is remembered past its deadline, so that its status can be read.
const AFTERLIFE_MS: u64 = 3_600_000;

/// How long wrong guesses in a row are remembered after the last one: 90 days. A subject locked
/// for good comes back after that, and still has its hour and its day.
const GUESSES_KEPT_MS: u64 = 90 * 24 * 3_600_000;

/// Strings that distinguish one check from another without showing its code: the starts of the
/// digests of the typed code, one of them made with a key that stays in use after a rotation, each
/// behind the expectations.
fn fingerprints(command: &CheckCommand) -> Vec<String> {
    let expected = command.expected.fingerprint();
    let start = |digest: &Digest| digest.hex.chars().take(16).collect::<String>();
    let digests = command.candidates.iter();
    digests
        .map(|digest| format!("{expected}{}", start(digest)))
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
/// The later of the caller's `now` and the store's own clock decides. Redis has its own clock; the
/// embedded file has a [`SteadyClock`].
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
    /// A message that is sent ends the fallback, or begins one of `steps`.
    /// Unknown, another service's, ended and expired ones give `None`.
    async fn resend(
        &self,
        id: &VerificationId,
        service: &watchword_core::ServiceName,
        next: Option<SealedCode>,
        steps: u8,
        budget: GuessBudget,
        now: Timestamp,
    ) -> Result<Option<Opened>, StoreError>;

    /// A fallback step asks for the message after number `step.after`; the cooldown does not delay
    /// it. `None` also if a later message was requested meanwhile or the fallback was replaced.
    async fn step(
        &self,
        id: &VerificationId,
        service: &watchword_core::ServiceName,
        step: StepOf,
        next: Option<SealedCode>,
        budget: GuessBudget,
        now: Timestamp,
    ) -> Result<Option<Opened>, StoreError>;

    /// The broker confirmed message number `send`. An ended verification stays as it is.
    async fn confirm(&self, id: &VerificationId, send: u8) -> Result<(), StoreError>;

    /// The send limit of this name refused message number `send`, which was not sent. The name has
    /// lower-case letters and `_` only. Nothing else changes: the same message may still be sent.
    async fn refuse(&self, id: &VerificationId, send: u8, limit: &str) -> Result<(), StoreError>;

    /// One check, decided in this order: a repeat of a `check_id` gets the stored answer; then
    /// unknown id, other service, ended, expired, guess budget; then digest and expectations are
    /// compared (another purpose counts like a wrong code), at most `max_checks` times.
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

    /// Returns the verification of any service as an operator sees it.
    async fn inspect(
        &self,
        id: &VerificationId,
        now: Timestamp,
    ) -> Result<Option<Inspected>, StoreError>;

    /// Returns verifications from `cursor` on and the next cursor, with `subject` only those of
    /// that subject. A call examines about `limit` records. Records that come and go meanwhile may
    /// be missed or returned twice; records that cannot be read are left out.
    async fn list(
        &self,
        subject: Option<TagKey>,
        cursor: Option<String>,
        limit: usize,
        now: Timestamp,
    ) -> Result<(Vec<Inspected>, Option<String>), StoreError>;

    /// Returns until when a subject is locked for wrong guesses; `i64::MAX`: until it is unlocked.
    async fn locked_until(
        &self,
        tag: TagKey,
        budget: GuessBudget,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError>;

    /// Forgets the wrong guesses of a subject: it was bound anew, or an operator unlocks it.
    /// Returns whether there were any.
    async fn forget_guesses(&self, tag: TagKey) -> Result<bool, StoreError>;
}
