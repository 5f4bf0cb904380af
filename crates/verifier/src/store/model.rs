//! What goes into and comes out of the store. No value here is a code or a recipient in clear.

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};
use watchword_core::{
    Channel, CheckId, CheckVerdict, DeliveryOutcome, Policy, Purpose, ServiceName, ShortTag,
    SubjectTag, Timestamp, VerificationId, VerificationStatus,
};

/// The hash tag of a subject's keys.
pub type TagKey = SubjectTag;

/// The keyed hash of (service, subject, recipient, purpose): of these there is at most one live
/// verification. Hexadecimal, 32 characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SlotKey(pub String);

/// HMAC-SHA-256 of (service, verification, code) under the key `key_id`; hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// Which key made it.
    pub key_id: String,
    /// 64 hexadecimal characters.
    pub hex: String,
}

/// A code as the store keeps it: comparable and, with a key the store never sees, readable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedCode {
    /// What typed codes are compared to.
    pub digest: Digest,
    /// The code under AEAD, base64.
    pub sealed: String,
    /// Which key sealed it.
    pub sealing_key_id: String,
}

/// Everything a new verification starts with. If the slot has a live one, that one decides and
/// the new id and code are dropped.
#[derive(Debug, Clone)]
pub struct OpenCommand {
    /// The id to use if a verification is opened; its tag is the subject's.
    pub id: VerificationId,
    /// The service.
    pub service: ServiceName,
    /// Which live verification this request would continue.
    pub slot: SlotKey,
    /// The channel.
    pub channel: Channel,
    /// What the code is for.
    pub purpose: Purpose,
    /// The recipient as it may be shown.
    pub masked_to: String,
    /// Distinguishes this recipient from others of the service.
    pub recipient: ShortTag,
    /// Distinguishes the content of the message from other content; `None` without variables.
    pub variables: Option<ShortTag>,
    /// Distinguishes locale and fallback from others; `None` without either.
    pub details: Option<ShortTag>,
    /// Fallback steps of the request.
    pub steps: u8,
    /// The live verification that this request replaces or changes. Without its id the store
    /// answers [`Opened::OtherContent`] or [`Opened::OtherDetails`] and changes nothing.
    pub over: Option<VerificationId>,
    /// Recipient, locale, variables and fallback under AEAD, base64; bound to `id`, or to `over` if
    /// only the details differ.
    pub sealed_order: String,
    /// Which key sealed the order.
    pub sealing_key_id: String,
    /// The code; digest and seal are bound to `id`.
    pub code: SealedCode,
    /// The service's policy, kept with the verification.
    pub policy: Policy,
    /// How many wrong guesses the subject has.
    pub budget: watchword_core::GuessBudget,
    /// Now.
    pub now: Timestamp,
}

/// What a request for a message means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// A message is to be published: the first, a further one, or one never confirmed.
    Send(Sent),
    /// A further message is due and its policy rotates codes: nothing was changed, and `sends` is
    /// that of the message before. To be asked again with a code made for this verification.
    NeedsCode(Sent),
    /// The live verification's message showed other variables: nothing was changed. A second call
    /// with its id as `over` withdraws it and opens another in one step.
    OtherContent(StoredVerification),
    /// The live verification has the same content and another locale or fallback: nothing was
    /// changed. The second call has its id as `over` and the order sealed for it.
    OtherDetails(StoredVerification),
    /// The live verification's message is young: nothing is to be sent.
    Cooling(StoredVerification),
    /// The live verification has used up its messages.
    Exhausted(StoredVerification),
    /// The subject may not guess until then, so it gets no code either. `i64::MAX`: until it is
    /// bound anew.
    Locked(Timestamp),
}

/// A message to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The verification as it is now; `sends` is the number of this message.
    pub verification: StoredVerification,
    /// Whether this call opened it.
    pub is_new: bool,
    /// Whether this call withdrew the live verification before it.
    pub withdrew: bool,
    /// Whether the slot's verification before this one was approved: its person holds the
    /// address, so the recipient's cooldown need not hold this message back.
    pub follows_approval: bool,
    /// The current code under AEAD, base64.
    pub sealed_code: String,
    /// Which key sealed the code.
    pub code_key_id: String,
    /// Recipient, locale and variables under AEAD, base64.
    pub sealed_order: String,
    /// Which key sealed the order.
    pub order_key_id: String,
}

/// A verification as its status shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredVerification {
    /// Its id.
    pub id: VerificationId,
    /// Whose it is.
    pub service: ServiceName,
    /// Its status at the time of the call.
    pub status: VerificationStatus,
    /// The channel.
    pub channel: Channel,
    /// What the code is for.
    pub purpose: Purpose,
    /// The recipient, masked.
    pub masked_to: String,
    /// When it was opened.
    pub opened_at: Timestamp,
    /// When its code expires.
    pub expires_at: Timestamp,
    /// From when on another message may be asked for.
    pub resend_after: Timestamp,
    /// Messages so far.
    pub sends: u8,
    /// Codes that may still be compared.
    pub checks_left: u8,
    /// Whether a fallback step may still send a message. Once a request asked for a further
    /// message, no step may.
    pub awaits_step: bool,
}

impl StoredVerification {
    /// The status to show, with the outcomes of its messages; a message that no worker has taken is
    /// queued. A pending verification reads as failed once every message failed and no fallback step
    /// may send another. Nothing is stored: a further message makes it pending again, and a code that
    /// arrived after all is still right.
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

/// How many messages a verification had, for whoever counts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sends {
    /// The verification.
    pub id: VerificationId,
    /// Messages so far.
    pub sends: u8,
    /// Whether the broker confirmed the last of them.
    pub confirmed: bool,
    /// When its code expires.
    pub expires_at: Timestamp,
}

/// A verification as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// The verification.
    pub verification: StoredVerification,
    /// Whether the broker confirmed the last message.
    pub confirmed: bool,
    /// The send limit that refused the last message, if it was not sent later.
    pub refused_by: Option<String>,
    /// Distinguishes the recipient of the request from others of the service. `None` once the
    /// verification was approved, canceled or used up.
    pub recipient: Option<ShortTag>,
}

/// The fallback step that asks for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepOf {
    /// The message that the step follows.
    pub after: u8,
    /// The details of the verification when the step was planned: other details have planned steps
    /// of their own. `None` in steps of an earlier build.
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
    /// The variables of the request; the inner `None` is that there were none.
    pub variables: Option<Option<ShortTag>>,
    /// The subject of the request.
    pub subject: Option<SubjectTag>,
}

impl Expected {
    /// Distinguishes these expectations from others; empty if there are none. A repeat of a check
    /// under its id must bring the same ones, so that it cannot be used to try expectations
    /// uncounted.
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
            // No part contains the byte in front of it.
            hash.update([u8::from(part.is_some())]);
            hash.update(part.unwrap_or_default());
        }
        HEXLOWER.encode(&hash.finalize()[..4])
    }
}

/// One check. The code is present only as digests, one for each key that verifies.
#[derive(Debug, Clone)]
pub struct CheckCommand {
    /// The verification.
    pub id: VerificationId,
    /// Who asks.
    pub service: ServiceName,
    /// The caller's expectations about the code.
    pub expected: Expected,
    /// The digests of the typed code under every key in use.
    pub candidates: Vec<Digest>,
    /// The id of this check; a repeat gets the stored answer and counts nothing. A repeat with
    /// another code or other expectations is refused.
    pub check_id: CheckId,
    /// Now.
    pub now: Timestamp,
}

/// The answer to a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// How it ended.
    pub verdict: CheckVerdict,
    /// Whether this is the stored answer to an earlier check of the same id.
    pub repeated: bool,
    /// The approved verification, where the verdict is an approval.
    pub approval: Option<Approval>,
}

/// The verification that a code approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// The channel it was opened for.
    pub channel: Channel,
    /// The purpose of the code.
    pub purpose: Purpose,
    /// The recipient of the request, masked.
    pub masked_to: String,
}
