//! Tests of the timeline, the status and the order of found verifications.

use watchword_core::{AttemptClass, ReceiptState};

use super::*;
use crate::operate::diagnosis::tests::{inspected, later, record};

#[test]
fn the_timeline_is_in_order_and_names_the_message() {
    let records = [record(
        DeliveryOutcome::Delivered,
        Some(AttemptClass::Accepted),
        Some(ReceiptState::Delivered),
    )];
    let report = describe(
        inspected(VerificationStatus::Expired, true),
        &records,
        &later(),
    );
    let events: Vec<_> = report
        .timeline
        .iter()
        .map(|entry| entry.event.as_str())
        .collect();
    assert_eq!(
        events,
        [
            "opened by web",
            "twilio: accepted in 240 ms",
            "receipt: delivered",
            "code expired, 5 checks left"
        ]
    );
    assert!(report.timeline.is_sorted_by_key(|entry| &entry.at));
    let named = report
        .timeline
        .iter()
        .filter(|entry| entry.delivery.is_some());
    assert_eq!(named.count(), 2);
}

/// A backup was restored while the code was live.
#[test]
fn the_timeline_ends_now_if_the_code_ended_early() {
    let mut around = later();
    around.now = around.now.minus_millis(241_000);
    let report = describe(inspected(VerificationStatus::Expired, true), &[], &around);
    let last = report.timeline.last().unwrap();
    assert_eq!(last.at, around.now.to_rfc3339());
    assert!(last.event.contains("a backup was restored"), "{last:?}");
}

/// As `GET /v1/verifications/{id}` shows it.
#[test]
fn a_verification_whose_messages_all_failed_is_failed() {
    let failed = [record(
        DeliveryOutcome::Failed,
        Some(AttemptClass::ConfigFault),
        None,
    )];
    let status = |records: &[DeliveryRecord], sends| {
        let mut inspected = inspected(VerificationStatus::Pending, true);
        inspected.verification.sends = sends;
        describe(inspected, records, &later()).status
    };
    assert_eq!(status(&failed, 1), VerificationStatus::Failed);
    // The second message is queued, and no worker has claimed it.
    assert_eq!(status(&failed, 2), VerificationStatus::Pending);
    assert_eq!(status(&[], 1), VerificationStatus::Pending);
}

#[test]
fn refused_requests_hide_no_message() {
    let found = |age, confirmed, sends| {
        let mut one = inspected(VerificationStatus::Pending, confirmed);
        let opened_at = one.verification.opened_at;
        one.verification.opened_at = opened_at.minus_millis(age);
        one.verification.sends = sends;
        let id = char::from(b'a' + u8::try_from(age).unwrap());
        one.verification.id = id.to_string().repeat(32).parse().unwrap();
        one
    };
    let refused = |one| Inspected {
        refused_by: Some("cooldown".to_owned()),
        ..one
    };
    let mut all = vec![
        refused(found(0, false, 1)),
        refused(found(1, false, 2)),
        refused(found(2, false, 1)),
        // Its message was queued, and the store did not record the confirm.
        found(3, false, 1),
        found(4, true, 1),
    ];
    let ages = |all: &[Inspected]| {
        let ids = all.iter().map(|one| one.verification.id.as_str());
        ids.map(|id| id.as_bytes()[0] - b'a').collect::<Vec<_>>()
    };
    messages_first(&mut all);
    assert_eq!(ages(&all), [1, 3, 4, 0, 2]);
}
