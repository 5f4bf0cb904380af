//! Receipts of every preset and scheme: unsigned ones are refused, signed ones are accepted, and
//! tampered ones are refused again. The event made of a receipt contains no recipient.
//!
//! An input is a `Letter`: the receiver's name, the query, headers, then the body.

use std::sync::LazyLock;

use http::Method;
use watchword_core::Timestamp;
use watchword_events::{CloudEvent, ReceiptReceived};
use watchword_sms_worker::{Call, Refusal};

use crate::canary::pick;
use crate::letter::Letter;
use crate::receivers::{Receiver, URL, receivers};
use crate::responses::is_error_code;
use crate::signer::{Draft, sign};
use crate::spoiled::spoiled;
use crate::varied::varied;

const NOW: Timestamp = Timestamp::from_millis(1_795_521_600_000);

static RECEIVERS: LazyLock<Vec<Receiver>> = LazyLock::new(receivers);

/// Verifies the call as it came, signed, and tampered in each way, and again signed with a varied
/// body.
pub fn run(input: &[u8]) {
    let Some(letter) = Letter::open(input) else {
        return;
    };
    let receiver = RECEIVERS
        .iter()
        .find(|receiver| receiver.name == letter.line(0))
        .unwrap_or(&RECEIVERS[input.len() % RECEIVERS.len()]);
    let query = url::form_urlencoded::parse(letter.line(1).as_bytes());
    let mut draft = Draft {
        bare: format!("{URL}/v1/receipts/{}", receiver.name),
        query: query.into_owned().collect(),
        headers: letter.headers(2),
        body: letter.body.to_vec(),
        now: NOW,
    };
    assert_eq!(read(receiver, &draft), Err(Refusal::Forged), "unsigned");
    if let Some(body) = varied(letter.body, pick(input)) {
        signed(
            receiver,
            &mut Draft {
                body,
                ..draft.clone()
            },
        );
    }
    if signed(receiver, &mut draft) {
        for (what, spoiled) in spoiled(&receiver.scheme, &draft) {
            assert_eq!(read(receiver, &spoiled), Err(Refusal::Forged), "{what}");
        }
    }
}

/// Signs the call and has it verified; returns `false` if it cannot be signed.
fn signed(receiver: &Receiver, draft: &mut Draft) -> bool {
    if !sign(&receiver.scheme, draft) {
        return false;
    }
    match read(receiver, draft) {
        Ok(receipts) => receipts.into_iter().for_each(check),
        Err(Refusal::Unreadable) => {}
        Err(Refusal::Forged) => panic!("{}: a signed receipt was refused", receiver.name),
    }
    true
}

fn read(receiver: &Receiver, draft: &Draft) -> Result<Vec<ReceiptReceived>, Refusal> {
    receiver.plan.read(&Call {
        method: &Method::POST,
        url: &draft.url(),
        headers: &draft.headers,
        query: &draft.query,
        body: &draft.body,
        now: draft.now,
    })
}

/// Asserts that the event of a receipt contains ids, a state and an error code only, and survives
/// encoding.
fn check(receipt: ReceiptReceived) {
    let is_plain = |id: &String| {
        (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
    };
    assert!(receipt.message_id.as_ref().is_none_or(is_plain));
    assert!(receipt.error.as_deref().is_none_or(is_error_code));
    assert!(receipt.delivery_id.is_some() || receipt.message_id.is_some());
    let event = CloudEvent {
        id: "1".to_owned(),
        source: "/watchword/sms-worker".to_owned(),
        time: NOW,
        data: receipt,
    };
    let bytes = event.encode().expect("a receipt encodes");
    assert_eq!(CloudEvent::decode(&bytes), Ok(event));
}
