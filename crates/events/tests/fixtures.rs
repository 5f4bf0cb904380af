//! Every version of every event has a fixture that must decode in every later release. A send order
//! with a changed id, channel, service or deadline must not open.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::sync::Arc;

use watchword_core::{
    Channel, Entropy, EntropyError, Key, KeyRing, Recipient, SealError, Sealer, Timestamp,
    Variables,
};
use watchword_events::{
    CloudEvent, DecodeError, DeliveryUpdated, EventData, Order, OrderError, OtpRequested, OtpSend,
    ReceiptReceived, StepDue, VerificationUpdated,
};

#[derive(Debug)]
struct Zero;

impl Entropy for Zero {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        bytes.fill(0);
        Ok(())
    }
}

fn sealer() -> Sealer {
    let key = Key::new("k1".parse().unwrap(), [1; 32]);
    Sealer::new(KeyRing::new(vec![key]).unwrap(), Arc::new(Zero))
}

fn order() -> Order {
    Order {
        delivery_id: format!("{}-2", "a".repeat(32)).parse().unwrap(),
        service: "jira".parse().unwrap(),
        recipient: Recipient::parse(Channel::Sms, "+4915112345678").unwrap(),
        code: "012345".parse().unwrap(),
        deadline: Timestamp::from_rfc3339("2026-11-24T12:05:00Z").unwrap(),
        locale: Some("de".parse().unwrap()),
        variables: Variables::new(BTreeMap::from([("amount".into(), "12".into())])).unwrap(),
        next_step: None,
        details: None,
    }
}

fn event() -> CloudEvent<OtpSend> {
    order()
        .seal(
            &sealer(),
            Timestamp::from_rfc3339("2026-11-24T12:00:00Z").unwrap(),
        )
        .unwrap()
}

fn fixture<T: EventData>(bytes: &[u8]) -> CloudEvent<T> {
    let event = CloudEvent::<T>::decode(bytes).unwrap();
    let again: serde_json::Value = serde_json::from_slice(&event.encode().unwrap()).unwrap();
    let mut given: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    // Earlier versions omitted zeros: their fixtures have no fractions of a second.
    given["time"] = event.time.to_rfc3339().into();
    assert_eq!(again, given);
    event
}

#[test]
fn otp_send_v1_opens() {
    let event = fixture::<OtpSend>(include_bytes!("fixtures/otp.send.v1.json"));
    let opened = Order::open(&event, &sealer()).unwrap();
    assert_eq!(opened.recipient, order().recipient);
    assert_eq!(opened.code, order().code);
    assert_eq!(opened.variables, order().variables);
}

#[test]
fn the_next_step_travels_inside_the_seal() {
    let mut followed = order();
    followed.next_step = Some(1);
    followed.details = Some("0123456789abcdef".parse().unwrap());
    let sealed = followed.seal(&sealer(), Timestamp::from_millis(0)).unwrap();
    let opened = Order::open(&sealed, &sealer()).unwrap();
    assert_eq!(opened.next_step, Some(1));
    assert_eq!(opened.details, followed.details);
    // An order sealed by an earlier build has none.
    let before = CloudEvent::decode(include_bytes!("fixtures/otp.send.v1.json")).unwrap();
    assert_eq!(Order::open(&before, &sealer()).unwrap().next_step, None);
}

#[test]
fn the_other_events_decode() {
    let requested = fixture::<OtpRequested>(include_bytes!("fixtures/otp.requested.v1.json"));
    assert_eq!(requested.data.channel, "email");
    assert_eq!(requested.data.client, None);
    let by_client =
        fixture::<OtpRequested>(include_bytes!("fixtures/otp.requested.client.v1.json"));
    assert_eq!(
        by_client.data.client.unwrap().ip.as_deref(),
        Some("192.0.2.1")
    );
    let updated = fixture::<DeliveryUpdated>(include_bytes!("fixtures/delivery.updated.v1.json"));
    assert_eq!(updated.data.attempts, 2);
    let bytes = include_bytes!("fixtures/delivery.updated.v1.fraction.json");
    let exact = fixture::<DeliveryUpdated>(bytes);
    assert_eq!(exact.time, updated.time);
    let as_it_is: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    assert_eq!(as_it_is["time"], exact.time.to_rfc3339());
    let receipt = fixture::<ReceiptReceived>(include_bytes!("fixtures/receipt.received.v1.json"));
    assert_eq!(receipt.data.error.as_deref(), Some("E17"));
    let step = fixture::<StepDue>(include_bytes!("fixtures/step.due.v1.json"));
    assert_eq!((step.data.step, step.data.after_send), (1, 1));
    assert_eq!(step.data.details, None);
    let planned = fixture::<StepDue>(include_bytes!("fixtures/step.due.v1.details.json"));
    assert_eq!(planned.data.details, "0123456789abcdef".parse().ok());
    let opened =
        fixture::<VerificationUpdated>(include_bytes!("fixtures/verification.updated.v1.json"));
    assert_eq!(opened.data.sends, Some(1));
    let refused = fixture::<VerificationUpdated>(include_bytes!(
        "fixtures/verification.updated.refused.v1.json"
    ));
    assert_eq!(refused.data.refusal.unwrap().code, "invalid_phone");
}

#[test]
fn a_changed_event_does_not_open() {
    let broken = Err(OrderError::Seal(SealError::Broken));
    let open = |event: &CloudEvent<OtpSend>| Order::open(event, &sealer()).map(|_| ());
    assert_eq!(open(&event()), Ok(()));

    let mut moved = event();
    moved.data.channel = Channel::Email;
    assert_eq!(open(&moved), broken);
    let mut stolen = event();
    stolen.data.service = "bank".parse().unwrap();
    assert_eq!(open(&stolen), broken);
    let mut prolonged = event();
    prolonged.data.deadline = "2026-11-24T13:05:00Z".into();
    assert_eq!(open(&prolonged), broken);
    let mut renamed = event();
    renamed.id = format!("{}-3", "a".repeat(32));
    assert_eq!(open(&renamed), broken);
    let mut relabelled = event();
    relabelled.data.verification_id = "b".repeat(32).parse().unwrap();
    assert_eq!(open(&relabelled), Err(OrderError::Malformed));
    let mut rekeyed = event();
    rekeyed.data.key_id = "k2".into();
    assert_eq!(open(&rekeyed), Err(OrderError::Seal(SealError::UnknownKey)));
}

#[test]
fn nothing_of_the_secret_stands_in_the_document() {
    let document = String::from_utf8(event().encode().unwrap()).unwrap();
    for secret in ["4915112345678", "012345", "amount"] {
        assert!(!document.contains(secret));
    }
}

#[test]
fn hostile_documents_are_refused() {
    let decode = |text: &str| CloudEvent::<OtpSend>::decode(text.as_bytes()).unwrap_err();
    let good = String::from_utf8(event().encode().unwrap()).unwrap();
    assert_eq!(decode(""), DecodeError::NotAnEvent);
    assert_eq!(decode(&good[..good.len() / 2]), DecodeError::NotAnEvent);
    assert_eq!(decode(&" ".repeat(65_537)), DecodeError::TooLarge);
    assert_eq!(decode(&"[".repeat(60_000)), DecodeError::NotAnEvent);
    assert_eq!(
        decode(&good.replace("\"1.0\"", "\"0.3\"")),
        DecodeError::SpecVersion
    );
    assert_eq!(
        decode(&good.replace("send.v1", "send.v2")),
        DecodeError::UnknownType
    );
    assert_eq!(
        decode(&good.replace("\"sms\"", "\"fax\"")),
        DecodeError::Data
    );
    assert_eq!(decode(&good.replace("\"jira\"", "7")), DecodeError::Data);
    assert!(CloudEvent::<OtpRequested>::decode(
        br#"{"specversion":"1.0","id":"1","source":"/a","type":"watchword.otp.requested.v1","time":"2026-11-24T12:00:00Z","data":{"channel":"sms","to":"+4915112345678","ttl":9}}"#
    ).is_err());
}
