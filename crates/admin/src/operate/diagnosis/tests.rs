//! Diagnoses of every outcome, and the records that the tests of `find` share.

use watchword_core::{DeliveryId, Purpose, VerificationId};
use watchword_ledger::Receipt;

use super::*;

const T0: Timestamp = Timestamp::from_millis(1_800_000_000_000);

pub fn inspected(status: VerificationStatus, confirmed: bool) -> Inspected {
    let id: VerificationId = "a".repeat(32).parse().unwrap();
    Inspected {
        verification: StoredVerification {
            id,
            service: "web".parse().unwrap(),
            status,
            channel: Channel::Sms,
            purpose: Purpose::login(),
            masked_to: "+49***78".to_owned(),
            opened_at: T0,
            expires_at: T0.plus_millis(300_000),
            resend_after: T0.plus_millis(30_000),
            sends: 1,
            checks_left: 5,
            awaits_step: false,
        },
        confirmed,
        refused_by: None,
        recipient: None,
    }
}

pub fn record(
    outcome: DeliveryOutcome,
    last: Option<AttemptClass>,
    receipt: Option<ReceiptState>,
) -> DeliveryRecord {
    let id: VerificationId = "a".repeat(32).parse().unwrap();
    let attempts: Vec<_> = last
        .map(|class| Attempt {
            provider: Some("twilio".parse().unwrap()),
            class,
            provider_message_id: None,
            at_ms: T0.as_millis() + 1_000,
            took_ms: 240,
        })
        .into_iter()
        .collect();
    DeliveryRecord {
        id: DeliveryId::new(id, 1),
        channel: Channel::Sms,
        outcome,
        attempt_count: u32::try_from(attempts.len()).unwrap(),
        attempts,
        service: None,
        trace_id: None,
        receipt: receipt.map(|state| Receipt {
            state,
            at: T0.plus_millis(4_000),
        }),
        updated_at: T0.plus_millis(2_000),
    }
}

/// Returns the circumstances one second after the verification of [`inspected`] expired.
pub fn later() -> Circumstances {
    Circumstances {
        locked_until: None,
        standstill: None,
        now: T0.plus_millis(301_000),
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one row a case")]
fn one_sentence_says_what_happened() {
    use AttemptClass as Class;
    use DeliveryOutcome as Outcome;
    use ReceiptState as Said;
    use VerificationStatus as Status;
    let none: Option<(Outcome, Option<Class>, Option<Said>)> = None;
    let at = "2027-01-15T08:00:01.000Z";
    let accepted = format!("The SMS was accepted by twilio at {at}");
    let reported = "which reported at 2027-01-15T08:00:04.000Z that it";
    for (status, confirmed, delivery, expected) in [
        (
            Status::Approved,
            true,
            none,
            "The code was entered in time and approved.".to_owned(),
        ),
        (
            Status::Canceled,
            true,
            Some((Outcome::Accepted, Some(Class::Accepted), None)),
            "It was canceled by the service or an operator, or a request with other variables \
             replaced it."
                .to_owned(),
        ),
        (
            Status::MaxAttemptsReached,
            true,
            none,
            "All checks were used up by wrong codes; the person must request a new code."
                .to_owned(),
        ),
        (
            Status::Pending,
            false,
            none,
            "No SMS was sent: a limit refused it (429) or the queue did not take it (503), so the caller \
             got an error and may ask again."
                .to_owned(),
        ),
        (
            Status::Pending,
            true,
            none,
            "The SMS waits in its queue for the sms-worker.".to_owned(),
        ),
        (
            Status::Expired,
            true,
            none,
            "No sms-worker took the SMS in time, and the code has expired.".to_owned(),
        ),
        (
            Status::Pending,
            true,
            Some((Outcome::Sending, None, None)),
            "The SMS is being sent now.".to_owned(),
        ),
        (
            Status::Pending,
            true,
            Some((Outcome::Queued, Some(Class::Transient), None)),
            format!(
                "twilio answered transient at {at}, and another attempt to send the SMS follows."
            ),
        ),
        (
            Status::Pending,
            true,
            Some((Outcome::Accepted, Some(Class::Accepted), None)),
            format!("{accepted}, no receipt yet."),
        ),
        (
            Status::Expired,
            true,
            Some((
                Outcome::Accepted,
                Some(Class::Accepted),
                Some(Said::InFlight),
            )),
            format!("{accepted}, {reported} is on its way, and the code has expired."),
        ),
        (
            Status::Pending,
            true,
            Some((
                Outcome::Delivered,
                Some(Class::Accepted),
                Some(Said::Delivered),
            )),
            format!("{accepted}, {reported} was delivered."),
        ),
        (
            Status::Pending,
            true,
            Some((Outcome::Failed, Some(Class::ConfigFault), None)),
            format!(
                "No provider delivered the SMS: twilio answered config_fault at {at} (our \
                 account or configuration is at fault)."
            ),
        ),
        (
            Status::Pending,
            true,
            Some((Outcome::Failed, Some(Class::RecipientInvalid), None)),
            format!(
                "No provider delivered the SMS: twilio answered recipient_invalid at {at} (the \
                 address does not exist or cannot get messages)."
            ),
        ),
        (
            Status::Pending,
            true,
            Some((Outcome::Failed, Some(Class::Accepted), Some(Said::Failed))),
            "twilio accepted the SMS and reported that it was not delivered.".to_owned(),
        ),
        (
            Status::Pending,
            true,
            Some((Outcome::Failed, None, None)),
            "The SMS was not sent: a send limit or the lock of the subject held it back."
                .to_owned(),
        ),
        (
            Status::Expired,
            true,
            Some((Outcome::Expired, None, None)),
            "The SMS expired before a provider was called, and the code has expired."
                .to_owned(),
        ),
    ] {
        let records: Vec<_> = delivery
            .map(|(outcome, last, receipt)| record(outcome, last, receipt))
            .into_iter()
            .collect();
        let told = diagnose(&inspected(status, confirmed), &records, &later());
        assert_eq!(told, expected);
    }
    let parked = [record(Outcome::Parked, None, None)];
    let told = diagnose(&inspected(Status::Pending, true), &parked, &later());
    assert!(told.contains("watchword dead-letters show"), "{told}");
}

#[test]
fn a_refused_request_names_its_limit_and_the_message_before_it() {
    let mut refused = inspected(VerificationStatus::Pending, false);
    refused.refused_by = Some("client_per_hour".to_owned());
    let told = diagnose(&refused, &[], &later());
    assert_eq!(
        told,
        "The request was refused by limit client_per_hour (429), no SMS was sent."
    );
    refused.verification.sends = 2;
    let first = [record(
        DeliveryOutcome::Accepted,
        Some(AttemptClass::Accepted),
        None,
    )];
    let told = diagnose(&refused, &first, &later());
    assert_eq!(
        told,
        "The request was refused by limit client_per_hour (429), no further SMS was sent; before \
         that, the SMS was accepted by twilio at 2027-01-15T08:00:01.000Z, no receipt yet."
    );
    refused.refused_by = None;
    let told = diagnose(&refused, &first, &later());
    assert!(
        told.starts_with("No further SMS was sent: a limit"),
        "{told}"
    );
    assert!(told.contains("before that, the SMS was accepted"), "{told}");
}

#[test]
fn a_message_that_waits_says_why_no_provider_is_called() {
    let standstill = "no provider of sms is called: twilio is held open by an operator until x";
    let around = Circumstances {
        standstill: Some(standstill.to_owned()),
        ..later()
    };
    let told =
        |status, records: &[DeliveryRecord]| diagnose(&inspected(status, true), records, &around);
    let queued = [record(
        DeliveryOutcome::Queued,
        Some(AttemptClass::Transient),
        None,
    )];
    for records in [&[][..], &queued] {
        let text = told(VerificationStatus::Pending, records);
        assert!(text.ends_with(&format!("; {standstill}.")), "{text}");
        let text = told(VerificationStatus::Expired, records);
        assert!(!text.contains(standstill), "{text}");
    }
    let accepted = [record(
        DeliveryOutcome::Accepted,
        Some(AttemptClass::Accepted),
        None,
    )];
    let text = told(VerificationStatus::Pending, &accepted);
    assert!(!text.contains(standstill), "{text}");
}

#[test]
fn times_that_are_yet_to_come_are_explained() {
    let around = |ms| Circumstances {
        now: T0.plus_millis(ms),
        ..later()
    };
    // A backup from a minute ago was restored: its live codes have ended.
    let expired = inspected(VerificationStatus::Expired, true);
    let told = diagnose(&expired, &[], &around(60_000));
    assert_eq!(
        told,
        "No sms-worker took the SMS in time, and the code is no longer valid because a backup was \
         restored or the clock was set back."
    );
    let told = diagnose(&expired, &[], &around(300_000));
    assert!(told.ends_with("and the code has expired."), "{told}");
    // The clock was set back afterwards, so the recorded times are in the future.
    let accepted = [record(
        DeliveryOutcome::Accepted,
        Some(AttemptClass::Accepted),
        None,
    )];
    let pending = inspected(VerificationStatus::Pending, true);
    let told = diagnose(&pending, &accepted, &around(0));
    assert!(!told.contains("yet to come"), "{told}");
    let set_back = Circumstances {
        now: T0.minus_millis(60_000),
        ..later()
    };
    let told = diagnose(&pending, &accepted, &set_back);
    assert!(
        told.contains("; some of its times are yet to come"),
        "{told}"
    );
}

#[test]
fn a_locked_subject_is_the_first_thing_to_know() {
    let accepted = [record(
        DeliveryOutcome::Accepted,
        Some(AttemptClass::Accepted),
        None,
    )];
    let told = |status, until| {
        let locked_until = Some(Timestamp::from_millis(until));
        let around = Circumstances {
            locked_until,
            ..later()
        };
        diagnose(&inspected(status, true), &accepted, &around)
    };
    for status in [
        VerificationStatus::Pending,
        VerificationStatus::Expired,
        VerificationStatus::MaxAttemptsReached,
    ] {
        let text = told(status, T0.as_millis());
        assert!(text.contains("locked"), "{text}");
        assert!(text.contains(" until 2027-01-15T08:00:00.000Z,"), "{text}");
    }
    let forever = told(VerificationStatus::Pending, i64::MAX);
    assert!(
        forever.contains("until an operator unlocks it"),
        "{forever}"
    );
    let approved = told(VerificationStatus::Approved, i64::MAX);
    assert!(!approved.contains("locked"), "{approved}");
}

#[test]
fn every_outcome_and_class_is_one_sentence() {
    for &outcome in DeliveryOutcome::ALL {
        for class in AttemptClass::ALL.iter().copied().map(Some).chain([None]) {
            let states = ReceiptState::ALL.iter().copied().map(Some).chain([None]);
            for receipt in states {
                for status in [VerificationStatus::Pending, VerificationStatus::Expired] {
                    let records = [record(outcome, class, receipt)];
                    let told = diagnose(&inspected(status, true), &records, &later());
                    assert!(told.ends_with('.'), "{told}");
                    assert!(!told.contains(". "), "{told}");
                    assert!(told.len() > 20, "{told}");
                }
            }
        }
    }
}
