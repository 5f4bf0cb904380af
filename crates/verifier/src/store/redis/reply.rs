//! Parsing of the scripts' replies. Anything unexpected becomes `Corrupt` instead of a panic,
//! because other programs can write to the same Redis.

use std::str::FromStr;

use data_encoding::BASE64;
use watchword_core::{
    Channel, CheckVerdict, ShortTag, Timestamp, VerificationId, VerificationStatus,
};
use watchword_storage::StorageError;
use watchword_storage::redis::Value;

use super::super::StoreError;
use super::super::model::{Approval, Checked, Inspected, Opened, Sends, Sent, StoredVerification};

/// The reply of `open.lua`.
pub(super) enum Opening {
    /// The new verification is stored.
    New(New),
    /// The live verification decided.
    Decided(Box<Opened>),
    /// Nothing was done: the caller did not name the slot's latest verification.
    Latest(VerificationId),
}

/// The parts of a new verification that only the script knows.
pub(super) struct New {
    /// Whether the slot's previous verification was approved.
    pub(super) follows_approval: bool,
    /// Whether the slot's previous verification was withdrawn for this one.
    pub(super) withdrew: bool,
    /// The time by the clock that decides.
    pub(super) opened_at: Timestamp,
}

/// The elements of an array, taken one by one.
struct Parts(std::vec::IntoIter<Value>);

impl Parts {
    fn new(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Array(values) => Ok(Self(values.into_iter())),
            _ => Err(StoreError::Corrupt),
        }
    }

    fn next(&mut self) -> Result<Value, StoreError> {
        self.0.next().ok_or(StoreError::Corrupt)
    }

    fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        match self.next()? {
            Value::BulkString(bytes) => Ok(bytes),
            _ => Err(StoreError::Corrupt),
        }
    }

    fn text(&mut self) -> Result<String, StoreError> {
        String::from_utf8(self.bytes()?).map_err(|_| StoreError::Corrupt)
    }

    fn parsed<T: FromStr>(&mut self) -> Result<T, StoreError> {
        self.text()?.parse().map_err(|_| StoreError::Corrupt)
    }

    fn flag(&mut self) -> Result<bool, StoreError> {
        match self.text()?.as_str() {
            "0" => Ok(false),
            "1" => Ok(true),
            _ => Err(StoreError::Corrupt),
        }
    }

    fn moment(&mut self) -> Result<Timestamp, StoreError> {
        self.parsed().map(Timestamp::from_millis)
    }

    /// Reads the script's `now`, which is an integer reply.
    fn now(&mut self) -> Result<Timestamp, StoreError> {
        match self.next()? {
            Value::Int(millis) => Ok(Timestamp::from_millis(millis)),
            _ => Err(StoreError::Corrupt),
        }
    }

    fn base64(&mut self) -> Result<String, StoreError> {
        Ok(BASE64.encode(&self.bytes()?))
    }
}

pub(super) fn opening(reply: Value, id: &VerificationId) -> Result<Opening, StoreError> {
    let mut parts = Parts::new(reply)?;
    match parts.text()?.as_str() {
        "latest" => {
            let latest = format!("{}{}", id.tag(), parts.text()?);
            let latest = latest.parse().map_err(|_| StoreError::Corrupt)?;
            Ok(Opening::Latest(latest))
        }
        "new" => Ok(Opening::New(New {
            follows_approval: parts.flag()?,
            withdrew: parts.flag()?,
            opened_at: parts.now()?,
        })),
        "taken" => Err(StorageError::Rejected("the id is in use").into()),
        word => {
            let opened = opened(word, parts, id)?;
            Ok(Opening::Decided(Box::new(opened)))
        }
    }
}

pub(super) fn resent(reply: Value, id: &VerificationId) -> Result<Option<Opened>, StoreError> {
    let mut parts = Parts::new(reply)?;
    match parts.text()?.as_str() {
        "none" => Ok(None),
        word => opened(word, parts, id).map(Some),
    }
}

fn opened(word: &str, mut parts: Parts, id: &VerificationId) -> Result<Opened, StoreError> {
    match word {
        "locked" => Ok(Opened::Locked(parts.moment()?)),
        "send" => {
            let flags = [parts.flag()?, parts.flag()?, parts.flag()?];
            sent(parts, flags, id).map(Opened::Send)
        }
        "other_content" => inner(parts, id).map(Opened::OtherContent),
        "other_details" => inner(parts, id).map(Opened::OtherDetails),
        "cooling" => inner(parts, id).map(Opened::Cooling),
        "exhausted" => inner(parts, id).map(Opened::Exhausted),
        "needs_code" => sent(parts, [false; 3], id).map(Opened::NeedsCode),
        _ => Err(StoreError::Corrupt),
    }
}

fn sent(
    mut parts: Parts,
    [is_new, follows_approval, withdrew]: [bool; 3],
    id: &VerificationId,
) -> Result<Sent, StoreError> {
    let mut fields = Parts::new(parts.next()?)?;
    Ok(Sent {
        is_new,
        withdrew,
        follows_approval,
        verification: verification(&mut fields, id)?,
        code_key_id: fields.text()?,
        sealed_code: fields.base64()?,
        order_key_id: fields.text()?,
        sealed_order: fields.base64()?,
    })
}

pub(super) fn found(
    reply: Value,
    id: &VerificationId,
) -> Result<Option<StoredVerification>, StoreError> {
    let mut parts = Parts::new(reply)?;
    match parts.text()?.as_str() {
        "none" => Ok(None),
        "found" => inner(parts, id).map(Some),
        _ => Err(StoreError::Corrupt),
    }
}

/// Parses the reply of `inspect.lua`.
pub(super) fn inspected(
    reply: Value,
    id: &VerificationId,
) -> Result<Option<Inspected>, StoreError> {
    let mut parts = Parts::new(reply)?;
    match parts.text()?.as_str() {
        "none" => Ok(None),
        "found" => Ok(Some(Inspected {
            recipient: ShortTag::from_bytes(&parts.bytes()?),
            confirmed: parts.flag()?,
            refused_by: Some(parts.text()?).filter(|limit| !limit.is_empty()),
            verification: inner(parts, id)?,
        })),
        _ => Err(StoreError::Corrupt),
    }
}

/// Parses the reply of `locked.lua`.
pub(super) fn locked(reply: Value) -> Result<Option<Timestamp>, StoreError> {
    let mut parts = Parts::new(reply)?;
    match parts.text()?.as_str() {
        "found" => match parts.text()?.as_str() {
            "" => Ok(None),
            moment => {
                let moment = moment.parse().map_err(|_| StoreError::Corrupt)?;
                Ok(Some(Timestamp::from_millis(moment)))
            }
        },
        _ => Err(StoreError::Corrupt),
    }
}

/// Returns whether the script marked the message.
pub(super) fn confirmed(reply: Value) -> Result<bool, StoreError> {
    match Parts::new(reply)?.text()?.as_str() {
        "marked" => Ok(true),
        "done" => Ok(false),
        _ => Err(StoreError::Corrupt),
    }
}

pub(super) fn checked(reply: Value) -> Result<Checked, StoreError> {
    let mut parts = Parts::new(reply)?;
    let verdict = match parts.text()?.as_str() {
        "approved" => CheckVerdict::Approved,
        "wrong" => CheckVerdict::Wrong,
        "last_wrong" => CheckVerdict::LastWrong,
        "refused" => CheckVerdict::Refused,
        _ => return Err(StoreError::Corrupt),
    };
    let repeated = parts.flag()?;
    // The verification is already approved: an unreadable detail must not turn that into an error.
    let approval = (verdict == CheckVerdict::Approved)
        .then(|| approval(&mut parts).ok())
        .flatten();
    Ok(Checked {
        verdict,
        repeated,
        approval,
    })
}

fn approval(parts: &mut Parts) -> Result<Approval, StoreError> {
    Ok(Approval {
        channel: channel(&parts.text()?)?,
        purpose: parts.parsed()?,
        masked_to: parts.text()?,
    })
}

fn inner(mut parts: Parts, id: &VerificationId) -> Result<StoredVerification, StoreError> {
    verification(&mut Parts::new(parts.next()?)?, id)
}

/// Parses the fields of a verification. Its id may differ from the requested one, because a slot's
/// live verification answers an `open`; the subject is the same.
fn verification(
    fields: &mut Parts,
    asked: &VerificationId,
) -> Result<StoredVerification, StoreError> {
    let id = format!("{}{}", asked.tag(), fields.text()?);
    Ok(StoredVerification {
        id: id.parse().map_err(|_| StoreError::Corrupt)?,
        service: fields.parsed()?,
        status: status(&fields.text()?)?,
        channel: channel(&fields.text()?)?,
        purpose: fields.parsed()?,
        masked_to: fields.text()?,
        opened_at: fields.moment()?,
        expires_at: fields.moment()?,
        resend_after: fields.moment()?,
        sends: fields.parsed()?,
        checks_left: fields.parsed()?,
        awaits_step: fields.flag()?,
    })
}

fn status(letter: &str) -> Result<VerificationStatus, StoreError> {
    match letter {
        "p" => Ok(VerificationStatus::Pending),
        "a" => Ok(VerificationStatus::Approved),
        "c" => Ok(VerificationStatus::Canceled),
        "m" => Ok(VerificationStatus::MaxAttemptsReached),
        "x" => Ok(VerificationStatus::Expired),
        _ => Err(StoreError::Corrupt),
    }
}

fn channel(letter: &str) -> Result<Channel, StoreError> {
    match letter {
        "s" => Ok(Channel::Sms),
        "e" => Ok(Channel::Email),
        _ => Err(StoreError::Corrupt),
    }
}

/// Parses the reply of `sends.lua`; `None` if the verification is gone.
pub(super) fn sends(value: Value, id: VerificationId) -> Result<Option<Sends>, StoreError> {
    let mut parts = Parts::new(value)?;
    match parts.text()?.as_str() {
        "none" => Ok(None),
        "found" => Ok(Some(Sends {
            id,
            sends: parts.parsed()?,
            confirmed: parts.flag()?,
            expires_at: parts.moment()?,
        })),
        _ => Err(StoreError::Corrupt),
    }
}
