//! What the scripts are given, in the order in which they take it. Refuses sealed content and
//! digests that are not base64 and hexadecimal.

use data_encoding::{BASE64, HEXLOWER};
use watchword_core::{Channel, GuessBudget, ResendCode, Timestamp};
use watchword_storage::StorageError;

use super::super::model::{CheckCommand, OpenCommand, SealedCode};
use super::super::{GUESSES_KEPT_MS, StoreError, fingerprints};

/// The layout of a verification; `state.lua`, `check_first.lua` and `confirm.lua` know the same number.
const FORMAT: u8 = 2;

pub(super) fn text(text: impl Into<String>) -> Vec<u8> {
    text.into().into_bytes()
}

pub(super) fn millis(moment: Timestamp) -> Vec<u8> {
    text(moment.as_millis().to_string())
}

pub(super) fn now_and_budget(now: Timestamp, budget: GuessBudget) -> Vec<Vec<u8>> {
    let limits = [budget.per_hour, budget.per_day, budget.in_a_row];
    std::iter::once(millis(now))
        .chain(limits.map(|limit| text(limit.to_string())))
        .collect()
}

/// Digest key, digest, sealing key, sealed code.
pub(super) fn code_arguments(code: &SealedCode) -> Result<[Vec<u8>; 4], StoreError> {
    Ok([
        text(&*code.digest.key_id),
        from_hex(&code.digest.hex)?,
        text(&*code.sealing_key_id),
        from_base64(&code.sealed)?,
    ])
}

/// A new verification as it is stored: a MessagePack array of the fields of `state.lua`.
pub(super) fn new_verification(
    command: &OpenCommand,
    expires_at: Timestamp,
) -> Result<Vec<u8>, StoreError> {
    let policy = command.policy;
    let [digest_key, digest, code_key, code] = code_arguments(&command.code)?;
    let sealed_order = from_base64(&command.sealed_order)?;
    let channel = match command.channel {
        Channel::Sms => "s",
        Channel::Email => "e",
    };
    let text = |text: &str| Field::Bytes(text.as_bytes().to_vec());
    let fields = [
        Field::Number(FORMAT.into()),
        text("p"),
        Field::Number(1),
        Field::Number(0),
        Field::Number(policy.max_checks.into()),
        text(command.service.as_str()),
        text(channel),
        text(command.purpose.as_str()),
        text(&command.masked_to),
        Field::Number(command.now.as_millis().unsigned_abs()),
        Field::Number(expires_at.millis_since(command.now)),
        Field::Number(policy.cooldown_ms),
        Field::Number(policy.max_sends.into()),
        Field::Number(policy.cooldown_ms),
        Field::Number(u64::from(policy.resend == ResendCode::Rotate)),
        Field::Bytes(code_key),
        Field::Bytes(code),
        text(&command.sealing_key_id),
        Field::Bytes(sealed_order),
        Field::Bytes(digest_key),
        Field::Bytes(digest),
        Field::NoAnswers,
    ];
    packed(&fields).map_err(|_| StorageError::Rejected("a verification that is too long").into())
}

enum Field {
    Number(u64),
    Bytes(Vec<u8>),
    NoAnswers,
}

fn packed(fields: &[Field]) -> Result<Vec<u8>, rmp::encode::ValueWriteError> {
    let mut out = Vec::with_capacity(384);
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    rmp::encode::write_array_len(&mut out, count(fields.len()))?;
    for field in fields {
        match field {
            Field::Number(number) => {
                rmp::encode::write_uint(&mut out, *number)?;
            }
            // The scripts know one kind of string, whatever is in it.
            Field::Bytes(bytes) => {
                rmp::encode::write_str_len(&mut out, count(bytes.len()))?;
                out.extend(bytes);
            }
            Field::NoAnswers => {
                rmp::encode::write_array_len(&mut out, 0)?;
            }
        }
    }
    Ok(out)
}

pub(super) fn check_arguments(command: &CheckCommand, budget: GuessBudget) -> Vec<Vec<u8>> {
    let purpose = command.purpose.as_ref();
    let mut args = now_and_budget(command.now, budget);
    args.extend([
        text(command.service.as_str()),
        text(purpose.map_or("", |purpose| purpose.as_str())),
        text(command.check_id.as_str()),
        millis(command.now.plus_millis(GUESSES_KEPT_MS)),
        text(fingerprints(&command.candidates).join(",")),
    ]);
    for digest in &command.candidates {
        // One that is no digest equals none: it counts as a wrong code, as any other would.
        let bytes = from_hex(&digest.hex).unwrap_or_default();
        args.extend([text(&*digest.key_id), bytes]);
    }
    args
}

fn from_hex(hex: &str) -> Result<Vec<u8>, StoreError> {
    HEXLOWER
        .decode(hex.as_bytes())
        .map_err(|_| StorageError::Rejected("a digest that is not hexadecimal").into())
}

fn from_base64(sealed: &str) -> Result<Vec<u8>, StoreError> {
    BASE64
        .decode(sealed.as_bytes())
        .map_err(|_| StorageError::Rejected("sealed content that is not base64").into())
}
