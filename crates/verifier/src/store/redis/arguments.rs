//! What the scripts are given, in the order in which they take it. Refuses sealed content and
//! digests that are not base64 and hexadecimal.

use data_encoding::{BASE64, HEXLOWER};
use watchword_core::{Channel, GuessBudget, ResendCode, Timestamp};
use watchword_storage::{Arg, StorageError};

use super::super::model::{CheckCommand, Digest, OpenCommand, SealedCode};
use super::super::{GUESSES_KEPT_MS, StoreError, fingerprints};

/// The layout of a verification; `state.lua`, `check_first.lua` and `confirm.lua` know the same number.
const FORMAT: u8 = 2;

pub(super) fn millis(moment: Timestamp) -> Arg<'static> {
    moment.as_millis().into()
}

pub(super) fn now_and_budget(now: Timestamp, budget: GuessBudget) -> [Arg<'static>; 4] {
    [
        millis(now),
        budget.per_hour.into(),
        budget.per_day.into(),
        budget.in_a_row.into(),
    ]
}

/// A code as the scripts take it.
pub(super) struct CodeArguments<'a> {
    code: &'a SealedCode,
    digest: Vec<u8>,
    sealed: Vec<u8>,
}

impl<'a> CodeArguments<'a> {
    pub(super) fn of(code: &'a SealedCode) -> Result<Self, StoreError> {
        Ok(Self {
            code,
            digest: from_hex(&code.digest.hex)?,
            sealed: from_base64(&code.sealed)?,
        })
    }

    /// Digest key, digest, sealing key, sealed code.
    pub(super) fn list(&self) -> [Arg<'_>; 4] {
        [
            self.code.digest.key_id.as_str().into(),
            self.digest[..].into(),
            self.code.sealing_key_id.as_str().into(),
            self.sealed[..].into(),
        ]
    }
}

/// A new verification as it is stored: a MessagePack array of the fields of `state.lua`.
pub(super) fn new_verification(
    command: &OpenCommand,
    expires_at: Timestamp,
) -> Result<Vec<u8>, StoreError> {
    let policy = command.policy;
    let code = CodeArguments::of(&command.code)?;
    let sealed_order = from_base64(&command.sealed_order)?;
    let channel = match command.channel {
        Channel::Sms => "s",
        Channel::Email => "e",
    };
    let text = |text| Field::Bytes(str::as_bytes(text));
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
        text(&command.code.sealing_key_id),
        Field::Bytes(&code.sealed),
        text(&command.sealing_key_id),
        Field::Bytes(&sealed_order),
        text(&command.code.digest.key_id),
        Field::Bytes(&code.digest),
        Field::NoAnswers,
    ];
    packed(&fields).map_err(|_| StorageError::Rejected("a verification that is too long").into())
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    NoAnswers,
}

fn packed(fields: &[Field<'_>]) -> Result<Vec<u8>, rmp::encode::ValueWriteError> {
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
                out.extend_from_slice(bytes);
            }
            Field::NoAnswers => {
                rmp::encode::write_array_len(&mut out, 0)?;
            }
        }
    }
    Ok(out)
}

/// What a check is made of, where the command has it in another form.
pub(super) struct CheckArguments<'a> {
    command: &'a CheckCommand,
    fingerprints: String,
    digests: Vec<Vec<u8>>,
}

impl<'a> CheckArguments<'a> {
    pub(super) fn of(command: &'a CheckCommand) -> Self {
        // One that is no digest equals none: it counts as a wrong code, as any other would.
        let bytes = |digest: &Digest| from_hex(&digest.hex).unwrap_or_default();
        Self {
            command,
            fingerprints: fingerprints(&command.candidates).join(","),
            digests: command.candidates.iter().map(bytes).collect(),
        }
    }

    pub(super) fn list(&self, budget: GuessBudget) -> Vec<Arg<'_>> {
        let command = self.command;
        let purpose = command.purpose.as_ref();
        let mut args = Vec::with_capacity(9 + 2 * self.digests.len());
        args.extend(now_and_budget(command.now, budget));
        args.extend([
            command.service.as_str().into(),
            purpose.map_or("", |purpose| purpose.as_str()).into(),
            command.check_id.as_str().into(),
            millis(command.now.plus_millis(GUESSES_KEPT_MS)),
            self.fingerprints.as_str().into(),
        ]);
        for (candidate, digest) in command.candidates.iter().zip(&self.digests) {
            args.extend([Arg::from(candidate.key_id.as_str()), digest[..].into()]);
        }
        args
    }
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
