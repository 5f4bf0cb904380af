//! The data of the cases: orders, codes and checks with made-up but valid values.

use data_encoding::{BASE64, HEXLOWER};
use sha2::{Digest as _, Sha256};
use watchword_core::{
    Channel, CheckVerdict, Entropy, EntropyError, GuessBudget, Policy, Purpose, ResendCode,
    ServiceName, ShortTag, SubjectTag, Timestamp, VerificationId,
};
use watchword_verifier::store::{
    CheckCommand, Checked, Digest, Expected, OpenCommand, Opened, SealedCode, Sent, SlotKey,
    StoredVerification, VerificationStore,
};

/// 2100-01-01: no deadline of a case has passed by the clock of Redis.
pub const NOW: Timestamp = Timestamp::from_millis(4_102_444_800_000);
pub const RIGHT: &str = "246810";
pub const WRONG: &str = "135791";
pub const HOUR_MS: u64 = 3_600_000;

/// An entropy source that returns the same number each time.
#[derive(Debug)]
struct Number(u64);

impl Entropy for Number {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        bytes.fill(0);
        let end = bytes.len();
        bytes[end - 8..].copy_from_slice(&self.0.to_be_bytes());
        Ok(())
    }
}

pub fn tag(subject: u64) -> SubjectTag {
    let mut bytes = [7; 10];
    bytes[2..].copy_from_slice(&subject.to_be_bytes());
    SubjectTag::new(bytes)
}

/// Returns the id of verification `number` of this subject.
pub fn id(subject: u64, number: u64) -> VerificationId {
    VerificationId::draw(tag(subject), &Number(number)).unwrap()
}

pub fn service(name: &str) -> ServiceName {
    name.parse().unwrap()
}

pub fn purpose(name: &str) -> Purpose {
    name.parse().unwrap()
}

pub fn slot(subject: u64, name: &str) -> SlotKey {
    SlotKey(hash(&[&subject.to_string(), name])[..32].to_owned())
}

pub fn digest(key: &str, id: &VerificationId, code: &str) -> Digest {
    Digest {
        key_id: key.to_owned(),
        hex: hash(&[key, id.as_str(), code]),
    }
}

fn hash(parts: &[&str]) -> String {
    HEXLOWER.encode(&Sha256::digest(parts.join("|").as_bytes()))
}

/// Returns the tag of `text`.
pub fn short(text: &str) -> ShortTag {
    ShortTag::of(&Sha256::digest(text).into())
}

/// A placeholder as long as the seal of a six-digit code.
pub fn sealed_code(id: &VerificationId, code: &str) -> SealedCode {
    let bytes = Sha256::digest(format!("seal of {code}"));
    SealedCode {
        digest: digest("d1", id, code),
        sealed: BASE64.encode(&[&bytes[..], &bytes[..14]].concat()),
        sealing_key_id: "s1".to_owned(),
    }
}

/// Returns the order for verification `number` of this subject, with the right code and the default
/// policy.
pub fn order(subject: u64, number: u64) -> OpenCommand {
    let id = id(subject, number);
    OpenCommand {
        service: service("web"),
        slot: slot(subject, "login"),
        channel: Channel::Sms,
        purpose: Purpose::login(),
        masked_to: "+49*******78".to_owned(),
        recipient: short("recipient"),
        variables: None,
        details: None,
        steps: 0,
        over: None,
        // As long as the seal of a number without locale and variables.
        sealed_order: BASE64.encode(&[subject.to_be_bytes(); 8].concat()),
        sealing_key_id: "s1".to_owned(),
        code: sealed_code(&id, RIGHT),
        policy: Policy::default(),
        budget: GuessBudget::default(),
        now: NOW,
        id,
    }
}

pub fn rotating(order: OpenCommand) -> OpenCommand {
    OpenCommand {
        policy: Policy {
            resend: ResendCode::Rotate,
            ..order.policy
        },
        ..order
    }
}

/// Opens and confirms a verification; panics unless a new one was opened.
pub async fn opened(store: &dyn VerificationStore, order: OpenCommand) -> StoredVerification {
    let sent = sent(store.open(order).await.unwrap());
    assert!(sent.is_new, "{sent:?}");
    store.confirm(&sent.verification.id, 1).await.unwrap();
    sent.verification
}

pub fn sent(opened: Opened) -> Sent {
    match opened {
        Opened::Send(sent) => sent,
        other => panic!("a message is to be sent, not {other:?}"),
    }
}

/// Returns a check of `code` under the configured key.
pub fn check(id: &VerificationId, code: &str, check_id: &str, now: Timestamp) -> CheckCommand {
    CheckCommand {
        service: service("web"),
        expected: Expected::default(),
        candidates: vec![digest("d1", id, code)],
        check_id: check_id.parse().unwrap(),
        now,
        id: id.clone(),
    }
}

/// Runs `command` with the default limits.
pub async fn checked(store: &dyn VerificationStore, command: CheckCommand) -> Checked {
    store.check(command, GuessBudget::default()).await.unwrap()
}

pub async fn verdict(store: &dyn VerificationStore, command: CheckCommand) -> CheckVerdict {
    let checked = checked(store, command).await;
    assert!(!checked.repeated, "{checked:?}");
    checked.verdict
}

/// Returns the verification as its service sees it.
pub async fn seen(
    store: &dyn VerificationStore,
    id: &VerificationId,
    now: Timestamp,
) -> Option<StoredVerification> {
    store.get(id, &service("web"), now).await.unwrap()
}
