//! The store of code state: one trait, whose calls are one atomic step each, and its two
//! implementations.

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

/// How long an ended verification is kept past its deadline, so that its status can be read.
const AFTERLIFE_MS: u64 = 3_600_000;

/// How long consecutive wrong guesses are kept after the last one: 90 days. A permanently locked
/// subject is unlocked after that, and then still has its hourly and daily limits.
const GUESSES_KEPT_MS: u64 = 90 * 24 * 3_600_000;

/// Returns strings that distinguish one check from another without revealing its code: the first
/// characters of the typed code's digests, prefixed with the expectations. There is one for each
/// key, so that at least one of them is still valid after a key rotation.
fn fingerprints(command: &CheckCommand) -> Vec<String> {
    let expected = command.expected.fingerprint();
    let start = |digest: &Digest| digest.hex.chars().take(16).collect::<String>();
    let digests = command.candidates.iter();
    digests
        .map(|digest| format!("{expected}{}", start(digest)))
        .collect()
}

/// An error of the store. Callers must fail closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store is unavailable, slow or returned an error.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The store holds a record that this program did not write, or one under a key that is not
    /// configured here.
    #[error("the store holds a verification that cannot be read")]
    Corrupt,
}

/// Storage of code state. Every call is one atomic decision, and the store retries none.
///
/// The later of the caller's `now` and the store's own clock decides. Redis has its own clock; the
/// embedded file has a [`SteadyClock`].
///
/// Records of ended verifications are kept for an hour past their deadline, so that their status
/// can be read. Approved, canceled and exhausted ones are kept without code and recipient; expired
/// ones with their sealed copies.
#[async_trait]
pub trait VerificationStore: Send + Sync {
    /// Opens a verification, or decides the effect of a request for a message on the live
    /// verification of the same slot. See [`Opened`].
    async fn open(&self, command: OpenCommand) -> Result<Opened, StoreError>;

    /// Requests another message of the verification `id`. `next` is the code to use if the
    /// verification's policy rotates codes; if it is missing, the result is [`Opened::NeedsCode`].
    /// A message that is sent ends the fallback, or starts one with `steps` steps. Returns `None`
    /// for an unknown, ended or expired verification and for one of another service.
    async fn resend(
        &self,
        id: &VerificationId,
        service: &watchword_core::ServiceName,
        next: Option<SealedCode>,
        steps: u8,
        budget: GuessBudget,
        now: Timestamp,
    ) -> Result<Option<Opened>, StoreError>;

    /// Requests the message of a fallback step that follows message number `step.after`, without
    /// regard to the cooldown. Returns `None` as [`Self::resend`] does, and also if a later message
    /// was sent or the fallback was replaced.
    async fn step(
        &self,
        id: &VerificationId,
        service: &watchword_core::ServiceName,
        step: StepOf,
        next: Option<SealedCode>,
        budget: GuessBudget,
        now: Timestamp,
    ) -> Result<Option<Opened>, StoreError>;

    /// Records that the broker confirmed message number `send`, also if its code was approved
    /// meanwhile. Returns whether this call recorded it: a repeat of the message is confirmed again.
    async fn confirm(&self, id: &VerificationId, send: u8) -> Result<bool, StoreError>;

    /// Records that the send limit `limit` refused message number `send`. The name has lower-case
    /// letters and `_` only. The same message may still be sent: then its cooldown, and for the first
    /// message the lifetime of the code, begin again.
    async fn refuse(&self, id: &VerificationId, send: u8, limit: &str) -> Result<(), StoreError>;

    /// Decides one check, in this order: a repeat of a `check_id` gets the stored result; then
    /// unknown id, other service, ended, expired, locked subject are refused; then digest and
    /// expectations are compared, at most `max_checks` times. Another purpose counts as a wrong
    /// code.
    async fn check(
        &self,
        command: CheckCommand,
        budget: GuessBudget,
    ) -> Result<Checked, StoreError>;

    /// Withdraws a pending verification and returns its new state; an ended one is returned
    /// unchanged. Returns `None` if it is unknown or belongs to another service.
    async fn cancel(
        &self,
        id: &VerificationId,
        service: &watchword_core::ServiceName,
        now: Timestamp,
    ) -> Result<Option<StoredVerification>, StoreError>;

    /// Returns the verification in its current state; past its deadline it reads as expired.
    /// Returns `None` if it is unknown or belongs to another service.
    async fn get(
        &self,
        id: &VerificationId,
        service: &watchword_core::ServiceName,
        now: Timestamp,
    ) -> Result<Option<StoredVerification>, StoreError>;

    /// Returns about `limit` verifications from `cursor` on, and the next cursor. Records that are
    /// added or removed meanwhile may be missed or returned twice.
    async fn sends(
        &self,
        cursor: Option<String>,
        limit: usize,
    ) -> Result<(Vec<Sends>, Option<String>), StoreError>;

    /// Returns the verification of any service as shown to an operator.
    async fn inspect(
        &self,
        id: &VerificationId,
        now: Timestamp,
    ) -> Result<Option<Inspected>, StoreError>;

    /// Returns verifications from `cursor` on and the next cursor, with `subject` only those of
    /// that subject. A call examines about `limit` records. Records that are added or removed
    /// meanwhile may be missed or returned twice; unreadable records are left out.
    async fn list(
        &self,
        subject: Option<TagKey>,
        cursor: Option<String>,
        limit: usize,
        now: Timestamp,
    ) -> Result<(Vec<Inspected>, Option<String>), StoreError>;

    /// Returns the time until which a subject is locked for wrong guesses. `i64::MAX` means until
    /// it is unlocked.
    async fn locked_until(
        &self,
        tag: TagKey,
        budget: GuessBudget,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError>;

    /// Clears the wrong guesses of a subject. Returns whether there were any.
    async fn forget_guesses(&self, tag: TagKey) -> Result<bool, StoreError>;
}
