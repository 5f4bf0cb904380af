//! Events: every decoded event survives encoding, and an order that opens is the one that was
//! sealed. Inputs are documents; each also describes a change of a valid document.

use std::collections::BTreeMap;
use std::sync::Arc;

use watchword_core::{
    Channel, Entropy, EntropyError, Key, KeyRing, Recipient, Sealer, Timestamp, Variables,
};
use watchword_events::{
    CloudEvent, DeliveryUpdated, EventData, Order, OtpRequested, OtpSend, ReceiptReceived,
    RequestParked, StepDue, VerificationUpdated,
};

const SEALED_AT: Timestamp = Timestamp::from_millis(1_795_521_600_000);

/// Decodes the document, and applies the change to a sealed one.
pub fn run(input: &[u8]) {
    round_trip::<OtpRequested>(input);
    round_trip::<ReceiptReceived>(input);
    round_trip::<StepDue>(input);
    round_trip::<DeliveryUpdated>(input);
    round_trip::<VerificationUpdated>(input);
    round_trip::<RequestParked>(input);
    if let Some(event) = round_trip::<OtpSend>(input) {
        open(&event);
    }
    changed(input);
    relabelled(input);
}

fn round_trip<T: EventData + PartialEq + std::fmt::Debug>(input: &[u8]) -> Option<CloudEvent<T>> {
    let event = CloudEvent::<T>::decode(input).ok()?;
    let bytes = event.encode().expect("what was decoded encodes");
    // The encoding adds a member, so a document near the size limit may exceed it.
    if bytes.len() <= 64 * 1024 {
        let again = CloudEvent::<T>::decode(&bytes).expect("what was encoded decodes");
        assert_eq!(again, event);
    }
    Some(event)
}

/// Replaces a piece of a sealed order's document with a piece of the input. The piece begins at
/// `from`/256 of the document and is at most 95 bytes long.
fn changed(input: &[u8]) {
    let [from, length, tail @ ..] = input else {
        return;
    };
    let event = order().seal(&sealer(), SEALED_AT).expect("it seals");
    let mut document = event.encode().expect("it encodes");
    let from = usize::from(*from) * document.len() / 256;
    let to = (from + usize::from(length % 96)).min(document.len());
    document.splice(from..to, tail.iter().copied());
    if let Ok(event) = CloudEvent::<OtpSend>::decode(&document) {
        open(&event);
    }
}

/// Replaces one character in a field of a sealed order.
fn relabelled(input: &[u8]) {
    let [field, place, letter, ..] = *input else {
        return;
    };
    let mut event = order().seal(&sealer(), SEALED_AT).expect("it seals");
    let replaced = |text: &str| {
        let (at, letter) = (usize::from(place) % text.len(), 32 + letter % 95);
        let mut bytes = text.as_bytes().to_vec();
        bytes[at] = letter;
        String::from_utf8(bytes).expect("ASCII")
    };
    let data = &mut event.data;
    match field % 6 {
        0 => event.id = replaced(&event.id),
        1 => data.deadline = replaced(&data.deadline),
        2 => data.sealed = replaced(&data.sealed),
        3 => data.key_id = replaced(&data.key_id),
        4 => {
            if let Ok(name) = replaced(data.service.as_str()).parse() {
                data.service = name;
            }
        }
        _ => data.channel = Channel::Email,
    }
    open(&event);
}

/// With one key and one order, only that order may open.
fn open(event: &CloudEvent<OtpSend>) {
    let Ok(opened) = Order::open(event, &sealer()) else {
        return;
    };
    let ours = order();
    assert_eq!(opened.delivery_id, ours.delivery_id);
    assert_eq!(opened.service, ours.service);
    assert_eq!(opened.recipient, ours.recipient);
    assert_eq!(opened.code, ours.code);
    assert_eq!(opened.deadline, ours.deadline);
    assert_eq!(opened.locale, ours.locale);
    assert_eq!(opened.variables, ours.variables);
}

/// Returns the order of the fixture `otp.send.v1.json`, which was sealed with the same key.
fn order() -> Order {
    let variables = BTreeMap::from([("amount".to_owned(), "12".to_owned())]);
    Order {
        delivery_id: format!("{}-2", "a".repeat(32)).parse().expect("an id"),
        service: "jira".parse().expect("a name"),
        recipient: Recipient::parse(Channel::Sms, "+4915112345678").expect("a number"),
        code: "012345".parse().expect("a code"),
        deadline: Timestamp::from_rfc3339("2026-11-24T12:05:00Z").expect("a time"),
        locale: Some("de".parse().expect("a locale")),
        variables: Variables::new(variables).expect("variables"),
        next_step: None,
        details: None,
    }
}

fn sealer() -> Sealer {
    let key = Key::new("k1".parse().expect("an id"), [1; 32]);
    Sealer::new(KeyRing::new(vec![key]).expect("a ring"), Arc::new(Zero))
}

/// A constant nonce, so that the seal of an order is always the same text and can be a seed.
#[derive(Debug)]
struct Zero;

impl Entropy for Zero {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        bytes.fill(0);
        Ok(())
    }
}
