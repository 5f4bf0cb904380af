//! Parameters and results of the store. None of them holds a code or recipient in clear.

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use watchword_core::{
    Channel, CheckId, CheckVerdict, DeliveryOutcome, Policy, Purpose, ServiceName, ShortTag,
    SubjectTag, Timestamp, VerificationId, VerificationStatus,
};

/// The hash tag of a subject's keys.
pub type TagKey = SubjectTag;

/// The keyed hash of (service, subject, recipient, purpose), for which at most one verification is
/// live. 32 hexadecimal characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SlotKey(pub String);

/// HMAC-SHA-256 of (service, verification, code) under the key `key_id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// The id of the digest key.
    pub key_id: String,
    /// 64 hexadecimal characters.
    pub hex: String,
}

/// A code as the store keeps it: comparable by digest, and readable only with a key that the store
/// does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedCode {
    /// The digest that typed codes are compared with.
    pub digest: Digest,
    /// The code under AEAD, base64.
    pub sealed: String,
    /// The id of the sealing key.
    pub sealing_key_id: String,
}

/// The initial state of a verification. If the slot has a live verification, its state decides, and
/// this id and code are dropped.
#[derive(Debug, Clone)]
pub struct OpenCommand {
    /// The id to use if a verification is opened; its tag is the subject's.
    pub id: VerificationId,
    /// The service that requests the code.
    pub service: ServiceName,
    /// Identifies the live verification that the request would continue.
    pub slot: SlotKey,
    /// The channel of the first message.
    pub channel: Channel,
    /// The purpose that a check must match.
    pub purpose: Purpose,
    /// The recipient in masked form.
    pub masked_to: String,
    /// Distinguishes this recipient from others of the service.
    pub recipient: ShortTag,
    /// Distinguishes the content of the message from other content; `None` without variables.
    pub variables: Option<ShortTag>,
    /// Distinguishes locale and fallback from others; `None` without either.
    pub details: Option<ShortTag>,
    /// Number of fallback steps in the request.
    pub steps: u8,
    /// The live verification that this request replaces or changes. Without its id the store
    /// returns [`Opened::OtherContent`] or [`Opened::OtherDetails`] and changes nothing.
    pub over: Option<VerificationId>,
    /// Recipient, locale, variables and fallback under AEAD, base64; bound to `id`, or to `over` if
    /// only the details differ.
    pub sealed_order: String,
    /// The id of the key that sealed the order.
    pub sealing_key_id: String,
    /// The code; digest and seal are bound to `id`.
    pub code: SealedCode,
    /// The service's policy, stored with the verification.
    pub policy: Policy,
    /// The subject's limits of wrong guesses.
    pub budget: watchword_core::GuessBudget,
    /// The caller's clock.
    pub now: Timestamp,
}

/// The effect of a request for a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// A message is to be published: the first one, a further one, or one that was never confirmed.
    Send(Sent),
    /// A further message is due and the policy rotates codes. Nothing was changed, and `sends` is
    /// the number of the previous message. Call again with a code made for this verification.
    NeedsCode(Sent),
    /// The live verification's message showed other variables. Nothing was changed. A second call
    /// with its id as `over` withdraws it and opens another in one step.
    OtherContent(StoredVerification),
    /// The live verification has the same content but another locale or fallback. Nothing was
    /// changed. The second call has its id as `over` and the order sealed for it.
    OtherDetails(StoredVerification),
    /// The cooldown after the live verification's message has not passed; nothing is to be sent.
    Cooling(StoredVerification),
    /// The live verification has reached its maximum of messages.
    Exhausted(StoredVerification),
    /// The subject is locked for wrong guesses until this time, so it gets no code either.
    /// `i64::MAX` means until it is unlocked.
    Locked(Timestamp),
}

/// A message to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The verification in its current state; `sends` is the number of this message.
    pub verification: StoredVerification,
    /// Whether this call opened the verification.
    pub is_new: bool,
    /// Whether this call withdrew a live verification.
    pub withdrew: bool,
    /// Whether the slot's previous verification was approved. Its user then controls the address,
    /// so the recipient's cooldown need not delay this message.
    pub follows_approval: bool,
    /// The current code under AEAD, base64.
    pub sealed_code: String,
    /// The id of the key that sealed the code.
    pub code_key_id: String,
    /// Recipient, locale, variables and fallback under AEAD, base64.
    pub sealed_order: String,
    /// The id of the key that sealed the order.
    pub order_key_id: String,
}

/// The state of a verification without its secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredVerification {
    /// The verification's id.
    pub id: VerificationId,
    /// The service that opened it.
    pub service: ServiceName,
    /// The status at the time of the call.
    pub status: VerificationStatus,
    /// The channel of the request.
    pub channel: Channel,
    /// The purpose of the code.
    pub purpose: Purpose,
    /// The masked recipient.
    pub masked_to: String,
    /// The time of opening.
    pub opened_at: Timestamp,
    /// When the code expires.
    pub expires_at: Timestamp,
    /// The earliest time for another message.
    pub resend_after: Timestamp,
    /// Number of messages so far.
    pub sends: u8,
    /// Number of codes that may still be compared.
    pub checks_left: u8,
    /// Whether a fallback step may still send a message. A request for a further message ends that.
    pub awaits_step: bool,
}

impl StoredVerification {
    /// Returns the status to show, with the outcomes of its messages; a message that no worker has
    /// taken is queued. A pending verification reads as failed once every message failed and no
    /// fallback step may send another. Nothing is stored: a further message makes it pending again,
    /// and a code that arrived after all is still right.
    pub fn status_with(
        &self,
        outcomes: impl IntoIterator<Item = DeliveryOutcome>,
    ) -> VerificationStatus {
        let is_lost = self.status == VerificationStatus::Pending
            && !self.awaits_step
            && (outcomes.into_iter()).all(|outcome| outcome == DeliveryOutcome::Failed);
        if is_lost {
            VerificationStatus::Failed
        } else {
            self.status
        }
    }
}

/// The messages of a verification, for the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sends {
    /// The verification's id.
    pub id: VerificationId,
    /// Number of messages so far.
    pub sends: u8,
    /// Whether the broker confirmed the last message.
    pub confirmed: bool,
    /// When the code expires.
    pub expires_at: Timestamp,
}

/// A verification as shown to an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// The state without secrets.
    pub verification: StoredVerification,
    /// Whether the broker confirmed the last message.
    pub confirmed: bool,
    /// The send limit that refused the last message, if it was not sent later.
    pub refused_by: Option<String>,
    /// Distinguishes the recipient of the request from others of the service. `None` once the
    /// verification was approved, canceled or exhausted.
    pub recipient: Option<ShortTag>,
}

/// The fallback step that asks for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepOf {
    /// The number of the message that the step follows.
    pub after: u8,
    /// The details of the verification when the step was planned: other details have steps of their
    /// own. `None` in steps of an earlier build.
    pub details: Option<ShortTag>,
}

/// The caller's expectations about the code. Each field that differs from the verification's makes
/// the code wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// The purpose of the code.
    pub purpose: Option<Purpose>,
    /// The channel of the request.
    pub channel: Option<Channel>,
    /// The recipient of the request.
    pub recipient: Option<ShortTag>,
    /// The variables of the request; the inner `None` expects that there were none.
    pub variables: Option<Option<ShortTag>>,
    /// The subject of the request.
    pub subject: Option<SubjectTag>,
}

impl Expected {
    /// Returns a string that distinguishes these expectations from others; empty if there are none.
    /// A repeat of a check under its id must bring the same expectations, so that it cannot be used
    /// to try expectations without being counted.
    pub(super) fn fingerprint(&self) -> String {
        if *self == Self::default() {
            return String::new();
        }
        let Self {
            purpose,
            channel,
            recipient,
            variables,
            subject,
        } = self;
        let parts = [
            purpose.as_ref().map(ToString::to_string),
            channel.map(|channel| channel.to_string()),
            recipient.map(|tag| tag.to_string()),
            variables.map(|tag| tag.map_or_else(String::new, |tag| tag.to_string())),
            subject.map(|tag| tag.to_string()),
        ];
        let mut hash = Sha256::new();
        for part in parts {
            // No part contains the byte in front of it, so the encoding is unambiguous.
            hash.update([u8::from(part.is_some())]);
            hash.update(part.unwrap_or_default());
        }
        HEXLOWER.encode(&hash.finalize()[..4])
    }
}

/// A check. The code is present only as digests, one for each configured digest key.
#[derive(Debug, Clone)]
pub struct CheckCommand {
    /// The verification to check.
    pub id: VerificationId,
    /// The service that asks.
    pub service: ServiceName,
    /// The caller's expectations about the code.
    pub expected: Expected,
    /// The digests of the typed code under every configured key.
    pub candidates: Vec<Digest>,
    /// The id of this check; a repeat gets the stored result and counts nothing. A repeat with
    /// another code or other expectations is refused.
    pub check_id: CheckId,
    /// The caller's clock.
    pub now: Timestamp,
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The verdict about the code.
    pub verdict: CheckVerdict,
    /// Whether this is the stored result of an earlier check with the same id.
    pub repeated: bool,
    /// The approved verification, if the verdict is an approval.
    pub approval: Option<Approval>,
}

/// The verification that a code approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// The channel that it was opened for.
    pub channel: Channel,
    /// The purpose of the code.
    pub purpose: Purpose,
    /// The masked recipient of the request.
    pub masked_to: String,
}
