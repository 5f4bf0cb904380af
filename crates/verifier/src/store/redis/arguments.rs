//! Arguments of the scripts, in the order in which the scripts read them. Sealed content and
//! digests that are not valid base64 or hexadecimal are rejected.

use data_encoding::{BASE64, HEXLOWER};
use watchword_core::{Channel, GuessBudget, ResendCode, ShortTag, SubjectTag, Timestamp};
use watchword_storage::{Arg, StorageError};

use super::super::model::{CheckCommand, Digest, Expected, OpenCommand, SealedCode};
use super::super::{StoreError, fingerprints};

/// The layout version of a verification; `state.lua`, `check_first.lua` and `confirm.lua` have the
/// same number.
const FORMAT: u8 = 3;
/// Bytes of a digest that are stored and compared. Half of an HMAC suffices (RFC 2104 section 5).
const DIGEST_BYTES: usize = 16;
/// Fields that the opening script adds, because they depend on the clock of Redis.
const ADDED: usize = 2;
/// Fields for which a check may expect a value, as numbered in `state.lua`.
const FIELD_FORMAT: u64 = 1;
const FIELD_CHANNEL: u64 = 7;
const FIELD_PURPOSE: u64 = 8;
const FIELD_RECIPIENT: u64 = 22;
const FIELD_VARIABLES: u64 = 23;

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

/// A code in the form that the scripts take.
pub(super) struct CodeArguments<'a> {
    code: &'a SealedCode,
    digest: Vec<u8>,
    sealed: Vec<u8>,
}

impl<'a> CodeArguments<'a> {
    pub(super) fn of(code: &'a SealedCode) -> Result<Self, StoreError> {
        Ok(Self {
            code,
            digest: digest_bytes(&code.digest)?,
            sealed: from_base64(&code.sealed)?,
        })
    }

    /// Returns digest key, digest, sealing key and sealed code.
    pub(super) fn list(&self) -> [Arg<'_>; 4] {
        [
            self.code.digest.key_id.as_str().into(),
            self.digest[..].into(),
            self.code.sealing_key_id.as_str().into(),
            self.sealed[..].into(),
        ]
    }
}

/// Returns a new verification as it is stored: a MessagePack array of the fields in `state.lua`,
/// without the last two.
pub(super) fn new_verification(command: &OpenCommand) -> Result<Vec<u8>, StoreError> {
    let policy = command.policy;
    let code = CodeArguments::of(&command.code)?;
    let sealed_order = from_base64(&command.sealed_order)?;
    let last_step = command.steps.saturating_add(1).min(policy.max_sends);
    let text = |text| Field::Bytes(str::as_bytes(text));
    let fields = [
        Field::Number(FORMAT.into()),
        text("p"),
        Field::Number(1),
        Field::Number(0),
        Field::Number(policy.max_checks.into()),
        text(command.service.as_str()),
        text(letter(command.channel)),
        text(command.purpose.as_str()),
        text(&command.masked_to),
        Field::Number(policy.lifetime_ms),
        Field::Number(policy.cooldown_ms),
        Field::Number(policy.max_sends.into()),
        Field::Number(policy.cooldown_ms),
        Field::Number(u64::from(policy.resend == ResendCode::Rotate)),
        Field::Number(last_step.into()),
        text(&command.code.sealing_key_id),
        Field::Bytes(&code.sealed),
        text(&command.sealing_key_id),
        Field::Bytes(&sealed_order),
        text(&command.code.digest.key_id),
        Field::Bytes(&code.digest),
        Field::Bytes(command.recipient.as_bytes()),
        Field::Bytes(tag_bytes(command.variables.as_ref())),
        Field::Bytes(tag_bytes(command.details.as_ref())),
        Field::NoAnswers,
    ];
    packed(&fields).map_err(|_| StorageError::Rejected("a verification that is too long").into())
}

const fn letter(channel: Channel) -> &'static str {
    match channel {
        Channel::Sms => "s",
        Channel::Email => "e",
    }
}

pub(super) fn tag_bytes(tag: Option<&ShortTag>) -> &[u8] {
    tag.map_or(&[], |tag| tag.as_bytes())
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    NoAnswers,
}

fn packed(fields: &[Field<'_>]) -> Result<Vec<u8>, rmp::encode::ValueWriteError> {
    let mut out = Vec::with_capacity(384);
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    rmp::encode::write_array_len(&mut out, count(fields.len() + ADDED))?;
    for field in fields {
        match field {
            Field::Number(number) => {
                rmp::encode::write_uint(&mut out, *number)?;
            }
            Field::Bytes(bytes) => write_bytes(&mut out, bytes)?,
            Field::NoAnswers => {
                rmp::encode::write_array_len(&mut out, 0)?;
            }
        }
    }
    Ok(out)
}

/// Writes a string. MessagePack in Lua has one string type, for text and bytes alike.
fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), rmp::encode::ValueWriteError> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    rmp::encode::write_str_len(out, length)?;
    out.extend_from_slice(bytes);
    Ok(())
}

/// Returns the expectations about a verification of the subject `tag` as a MessagePack map of
/// fields.
fn packed_expectations(
    expected: &Expected,
    tag: &str,
) -> Result<Vec<u8>, rmp::encode::ValueWriteError> {
    let variables = expected.variables.as_ref();
    let is_another = |subject: &SubjectTag| subject.to_string() != tag;
    let fields = [
        expected
            .purpose
            .as_ref()
            .map(|purpose| (FIELD_PURPOSE, purpose.as_str().as_bytes())),
        expected
            .channel
            .map(|channel| (FIELD_CHANNEL, letter(channel).as_bytes())),
        expected
            .recipient
            .as_ref()
            .map(|tag| (FIELD_RECIPIENT, &tag.as_bytes()[..])),
        variables.map(|tag| (FIELD_VARIABLES, tag_bytes(tag.as_ref()))),
        // The id contains the subject. For another subject, expect a string in the format field,
        // which is a number and therefore never matches.
        expected
            .subject
            .as_ref()
            .filter(|tag| is_another(tag))
            .map(|_| (FIELD_FORMAT, &b""[..])),
    ];
    let mut out = Vec::new();
    let count = fields.iter().flatten().count();
    rmp::encode::write_map_len(&mut out, u32::try_from(count).unwrap_or(u32::MAX))?;
    for (field, value) in fields.into_iter().flatten() {
        rmp::encode::write_uint(&mut out, field)?;
        write_bytes(&mut out, value)?;
    }
    Ok(out)
}

/// A check in the form that the script takes.
pub(super) struct CheckArguments<'a> {
    command: &'a CheckCommand,
    expected: Vec<u8>,
    fingerprints: String,
    digests: Vec<Vec<u8>>,
}

impl<'a> CheckArguments<'a> {
    pub(super) fn of(command: &'a CheckCommand) -> Result<Self, StoreError> {
        // A malformed digest equals no stored one, so it counts as a wrong code like any other.
        let bytes = |digest: &Digest| digest_bytes(digest).unwrap_or_default();
        let expected = packed_expectations(&command.expected, command.id.tag())
            .map_err(|_| StorageError::Rejected("expectations that are too long"))?;
        Ok(Self {
            command,
            expected,
            fingerprints: fingerprints(command).join(","),
            digests: command.candidates.iter().map(bytes).collect(),
        })
    }

    pub(super) fn list(&self, budget: GuessBudget) -> Vec<Arg<'_>> {
        let command = self.command;
        let mut args = Vec::with_capacity(8 + 2 * self.digests.len());
        args.extend(now_and_budget(command.now, budget));
        args.extend([
            Arg::from(command.service.as_str()),
            self.expected[..].into(),
            command.check_id.as_str().into(),
            self.fingerprints.as_str().into(),
        ]);
        for (candidate, digest) in command.candidates.iter().zip(&self.digests) {
            args.extend([Arg::from(candidate.key_id.as_str()), digest[..].into()]);
        }
        args
    }
}

fn digest_bytes(digest: &Digest) -> Result<Vec<u8>, StoreError> {
    let bytes = HEXLOWER.decode(digest.hex.as_bytes());
    let mut bytes =
        bytes.map_err(|_| StorageError::Rejected("a digest that is not hexadecimal"))?;
    bytes.truncate(DIGEST_BYTES);
    Ok(bytes)
}

fn from_base64(sealed: &str) -> Result<Vec<u8>, StoreError> {
    BASE64
        .decode(sealed.as_bytes())
        .map_err(|_| StorageError::Rejected("sealed content that is not base64").into())
}
