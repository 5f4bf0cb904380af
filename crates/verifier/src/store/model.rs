//! What goes into and comes out of the store. No value here is a code or a recipient in clear.

use watchword_core::{
    Channel, CheckId, CheckVerdict, Policy, Purpose, ServiceName, SubjectTag, Timestamp,
    VerificationId, VerificationStatus,
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
    /// Recipient, locale and variables under AEAD, base64; bound to `id`.
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

/// One check. The code is present only as digests, one for each key that verifies.
#[derive(Debug, Clone)]
pub struct CheckCommand {
    /// The verification.
    pub id: VerificationId,
    /// Who asks.
    pub service: ServiceName,
    /// What the caller expects the code to be for, if it says so.
    pub purpose: Option<Purpose>,
    /// The digests of the typed code under every key in use.
    pub candidates: Vec<Digest>,
    /// The id of this check; a repeat gets the stored answer and counts nothing. A repeat with
    /// another code is refused.
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
    /// The channel the verification was opened for, where this check approved it.
    pub channel: Option<Channel>,
}
