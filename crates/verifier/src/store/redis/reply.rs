//! What the scripts answer, read back into values. Anything unexpected is `Corrupt`, never a
//! panic: other programs can write to the same Redis.

use std::str::FromStr;

use watchword_core::{CheckVerdict, Timestamp, VerificationId, VerificationStatus};
use watchword_storage::redis::Value;

use super::super::StoreError;
use super::super::model::{Checked, Opened, Sent, StoredVerification};

/// The fields of a verification, in the order in which the scripts give them.
pub(super) const FIELDS: [&str; 20] = [
    "sv", "st", "ch", "pu", "mt", "oa", "ex", "ra", "sn", "cl", "cf", "ms", "cd", "ro", "ck", "cs",
    "ok", "os", "dk", "dg",
];

/// What a message needs besides the verification.
pub(super) struct Sealed {
    code_key: String,
    code: String,
    order_key: String,
    order: String,
}

pub(super) fn opened(
    reply: Value,
    id: &VerificationId,
    now: Timestamp,
) -> Result<Option<Opened>, StoreError> {
    let mut parts = array(reply)?.into_iter();
    let word = parts.next().ok_or(StoreError::Corrupt).and_then(text)?;
    match word.as_str() {
        "none" => Ok(None),
        "locked" => {
            let until = parts.next().ok_or(StoreError::Corrupt).and_then(number)?;
            Ok(Some(Opened::Locked(Timestamp::from_millis(until))))
        }
        "send" => {
            let is_new = parts.next().ok_or(StoreError::Corrupt).and_then(text)? == "1";
            let follows_approval = parts.next().ok_or(StoreError::Corrupt).and_then(text)? == "1";
            let (verification, sealed) = verification(parts.next(), id, now)?;
            Ok(Some(Opened::Send(Sent {
                verification,
                is_new,
                follows_approval,
                sealed_code: sealed.code,
                code_key_id: sealed.code_key,
                sealed_order: sealed.order,
                order_key_id: sealed.order_key,
            })))
        }
        "cooling" => {
            verification(parts.next(), id, now).map(|(live, _)| Some(Opened::Cooling(live)))
        }
        "exhausted" => {
            verification(parts.next(), id, now).map(|(live, _)| Some(Opened::Exhausted(live)))
        }
        "needs_code" => {
            verification(parts.next(), id, now).map(|(live, _)| Some(Opened::NeedsCode(live)))
        }
        _ => Err(StoreError::Corrupt),
    }
}

pub(super) fn found(
    reply: Value,
    id: &VerificationId,
    now: Timestamp,
) -> Result<Option<StoredVerification>, StoreError> {
    let mut parts = array(reply)?.into_iter();
    match parts
        .next()
        .ok_or(StoreError::Corrupt)
        .and_then(text)?
        .as_str()
    {
        "none" => Ok(None),
        "found" => verification(parts.next(), id, now).map(|(verification, _)| Some(verification)),
        _ => Err(StoreError::Corrupt),
    }
}

pub(super) fn checked(reply: &Value) -> Result<Checked, StoreError> {
    let parts: Vec<_> = array(reply.clone())?
        .into_iter()
        .map(text)
        .collect::<Result<_, _>>()?;
    let [word, repeated] = parts.as_slice() else {
        return Err(StoreError::Corrupt);
    };
    let verdict = match word.as_str() {
        "approved" => CheckVerdict::Approved,
        "wrong" => CheckVerdict::Wrong,
        "last_wrong" => CheckVerdict::LastWrong,
        "refused" => CheckVerdict::Refused,
        _ => return Err(StoreError::Corrupt),
    };
    Ok(Checked {
        verdict,
        repeated: repeated == "1",
    })
}

fn verification(
    values: Option<Value>,
    id: &VerificationId,
    now: Timestamp,
) -> Result<(StoredVerification, Sealed), StoreError> {
    fields(values.ok_or(StoreError::Corrupt)?, id, now)?.ok_or(StoreError::Corrupt)
}

/// The verification of these field values at `now`; `None` if there is none.
pub(super) fn fields(
    values: Value,
    id: &VerificationId,
    now: Timestamp,
) -> Result<Option<(StoredVerification, Sealed)>, StoreError> {
    let values = array(values)?;
    if matches!(values.first(), None | Some(Value::Nil)) {
        return Ok(None);
    }
    let texts = values
        .into_iter()
        .map(text)
        .collect::<Result<Vec<_>, _>>()?;
    let field = |name: &str| {
        let index = FIELDS
            .iter()
            .position(|field| *field == name)
            .ok_or(StoreError::Corrupt)?;
        texts
            .get(index)
            .map(String::as_str)
            .ok_or(StoreError::Corrupt)
    };
    let moment = |name| field(name).and_then(parse).map(Timestamp::from_millis);
    let expires_at = moment("ex")?;
    let status = VerificationStatus::from_word(field("st")?).ok_or(StoreError::Corrupt)?;
    let status = match status {
        VerificationStatus::Pending if now >= expires_at => VerificationStatus::Expired,
        status => status,
    };
    let stored = StoredVerification {
        id: own_id(id, texts.get(FIELDS.len()))?,
        service: parse(field("sv")?)?,
        status,
        channel: parse(field("ch")?)?,
        purpose: parse(field("pu")?)?,
        masked_to: field("mt")?.to_owned(),
        opened_at: moment("oa")?,
        expires_at,
        resend_after: moment("ra")?,
        sends: parse(field("sn")?)?,
        checks_left: parse(field("cl")?)?,
    };
    let owned = |name| field(name).map(str::to_owned);
    let sealed = Sealed {
        code_key: owned("ck")?,
        code: owned("cs")?,
        order_key: owned("ok")?,
        order: owned("os")?,
    };
    Ok(Some((stored, sealed)))
}

/// A script tells the own part of the verification it speaks of: the live one of a slot has
/// another id than the one that was asked for, of the same subject.
fn own_id(asked: &VerificationId, own: Option<&String>) -> Result<VerificationId, StoreError> {
    own.map_or_else(
        || Ok(asked.clone()),
        |own| parse(&format!("{}{own}", asked.tag())),
    )
}

fn array(value: Value) -> Result<Vec<Value>, StoreError> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(StoreError::Corrupt),
    }
}

/// A missing field of an existing verification is an empty text: what ends it removes them.
fn text(value: Value) -> Result<String, StoreError> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).map_err(|_| StoreError::Corrupt),
        Value::SimpleString(text) => Ok(text),
        Value::Nil => Ok(String::new()),
        _ => Err(StoreError::Corrupt),
    }
}

fn number(value: Value) -> Result<i64, StoreError> {
    text(value).and_then(|text| parse(&text))
}

fn parse<T: FromStr>(text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt)
}
