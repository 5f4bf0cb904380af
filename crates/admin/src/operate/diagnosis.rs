//! Diagnoses a verification in one sentence: a pure function of its records.

use watchword_core::{
    AttemptClass, Channel, DeliveryOutcome, ProviderName, ReceiptState, Timestamp,
    VerificationStatus,
};
use watchword_ledger::{Attempt, DeliveryRecord};
use watchword_verifier::store::Inspected;

/// Says what happened; `records` are those of its deliveries, in their order, and the subject is
/// locked until `locked_until`.
pub(super) fn diagnose(
    inspected: &Inspected,
    records: &[DeliveryRecord],
    locked_until: Option<Timestamp>,
) -> String {
    let verification = &inspected.verification;
    if let Some(until) = locked_until
        && verification.status != VerificationStatus::Approved
    {
        return locked(until);
    }
    match verification.status {
        VerificationStatus::Approved => "The code was entered in time and approved.".to_owned(),
        VerificationStatus::Canceled => "It was canceled by the service or an operator, or a \
            request with other variables replaced it."
            .to_owned(),
        VerificationStatus::MaxAttemptsReached => "All checks were used up by wrong codes; the \
            person must request a new code."
            .to_owned(),
        VerificationStatus::Pending | VerificationStatus::Expired | VerificationStatus::Failed => {
            let has_expired = verification.status == VerificationStatus::Expired;
            let last = records
                .iter()
                .find(|record| record.id.send() == verification.sends);
            let message = match last {
                Some(record) => of_record(record, has_expired),
                None => unclaimed(inspected, has_expired),
            };
            let end = if has_expired {
                ", and the code has expired."
            } else {
                "."
            };
            format!("{message}{end}")
        }
    }
}

fn locked(until: Timestamp) -> String {
    let until = if until.as_millis() == i64::MAX {
        "until an operator unlocks it".to_owned()
    } else {
        format!("until {until}")
    };
    format!(
        "The subject is locked for too many wrong codes {until}, so no code is compared and none is \
         sent; 'watchword unlock' ends it."
    )
}

/// The message that no worker has claimed.
fn unclaimed(inspected: &Inspected, has_expired: bool) -> String {
    let channel = inspected.verification.channel;
    let message = noun(channel);
    if !inspected.confirmed {
        return format!(
            "No {message} was sent: a limit refused it (429) or the queue did not take it (503), so the \
             caller got an error and may ask again"
        );
    }
    let worker = worker(channel);
    if has_expired {
        format!("No {worker} took the {message} in time")
    } else {
        format!("The {message} waits in its queue for the {worker}")
    }
}

fn of_record(record: &DeliveryRecord, has_expired: bool) -> String {
    let message = noun(record.channel);
    let last = record.attempts.last();
    let provider = last
        .and_then(|attempt| attempt.provider.as_ref())
        .map_or("the provider", ProviderName::as_str);
    let at = last.map(|attempt| Timestamp::from_millis(attempt.at_ms).to_rfc3339());
    let at = at.unwrap_or_else(|| record.updated_at.to_rfc3339());
    match record.outcome {
        DeliveryOutcome::Queued => match last {
            Some(attempt) if has_expired => format!(
                "The {message} was not delivered: {provider} answered {} at {at} and no attempt \
                 followed",
                attempt.class
            ),
            Some(attempt) => format!(
                "{provider} answered {} at {at}, and another attempt to send the {message} follows",
                attempt.class
            ),
            None => format!("The {message} waits for an attempt"),
        },
        DeliveryOutcome::Sending if has_expired => format!(
            "A {} took the {message} and never said how it ended",
            worker(record.channel)
        ),
        DeliveryOutcome::Sending => format!("The {message} is being sent now"),
        DeliveryOutcome::Accepted | DeliveryOutcome::Delivered => {
            let accepted = format!("The {message} was accepted by {provider} at {at}");
            match record.receipt {
                None => format!("{accepted}, no receipt yet"),
                Some(receipt) => {
                    let said = match receipt.state {
                        ReceiptState::InFlight => "that it is on its way",
                        ReceiptState::Delivered => "that it was delivered",
                        ReceiptState::Failed => "that it was not delivered",
                        ReceiptState::Expired => "that it expired before it was delivered",
                    };
                    format!("{accepted}, which reported at {} {said}", receipt.at)
                }
            }
        }
        DeliveryOutcome::Failed => failed(record, message, provider, last, &at),
        DeliveryOutcome::Expired => match last {
            None => format!("The {message} expired before a provider was called"),
            Some(attempt) => format!(
                "The {message} expired before a provider accepted it: {provider} last answered {}",
                attempt.class
            ),
        },
        DeliveryOutcome::Parked => format!(
            "The {message} could not be processed and is a dead letter: 'watchword dead-letters \
             show {}'",
            record.id
        ),
    }
}

fn failed(
    record: &DeliveryRecord,
    message: &str,
    provider: &str,
    last: Option<&Attempt>,
    at: &str,
) -> String {
    let Some(attempt) = last else {
        return format!(
            "The {message} was not sent: a send limit or the lock of the subject held it back"
        );
    };
    if record.receipt.is_some() {
        return format!("{provider} accepted the {message} and reported that it was not delivered");
    }
    let why = match attempt.class {
        AttemptClass::TextFault => {
            return format!(
                "The {message} was not sent: its text could not be rendered or did not show the code; the worker's log names the template"
            );
        }
        AttemptClass::RecipientInvalid => "the address does not exist or cannot get messages",
        AttemptClass::RecipientBlocked => "the person or the carrier refuses messages",
        AttemptClass::MessageRejected => "it refuses the text",
        AttemptClass::DestinationRefused => "it does not deliver to this destination",
        AttemptClass::ConfigFault => "our account or configuration is at fault",
        AttemptClass::Transient => "it failed",
        AttemptClass::UnknownOutcome => "it did not answer, so the person may have the message",
        AttemptClass::Accepted => "it accepted the message, which was counted as failed later",
    };
    format!(
        "No provider delivered the {message}: {provider} answered {} at {at} ({why})",
        attempt.class
    )
}

const fn noun(channel: Channel) -> &'static str {
    match channel {
        Channel::Sms => "SMS",
        Channel::Email => "mail",
    }
}

const fn worker(channel: Channel) -> &'static str {
    match channel {
        Channel::Sms => "sms-worker",
        Channel::Email => "email-worker",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use watchword_core::{DeliveryId, Purpose, VerificationId};
    use watchword_ledger::Receipt;
    use watchword_verifier::store::StoredVerification;

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
            let told = diagnose(&inspected(status, confirmed), &records, None);
            assert_eq!(told, expected);
        }
        let parked = [record(Outcome::Parked, None, None)];
        let told = diagnose(&inspected(Status::Pending, true), &parked, None);
        assert!(told.contains("watchword dead-letters show"), "{told}");
    }

    #[test]
    fn a_locked_subject_is_the_first_thing_to_know() {
        let accepted = [record(
            DeliveryOutcome::Accepted,
            Some(AttemptClass::Accepted),
            None,
        )];
        let told = |status, until| {
            let until = Some(Timestamp::from_millis(until));
            diagnose(&inspected(status, true), &accepted, until)
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
                        let told = diagnose(&inspected(status, true), &records, None);
                        assert!(told.ends_with('.'), "{told}");
                        assert!(!told.contains(". "), "{told}");
                        assert!(told.len() > 20, "{told}");
                    }
                }
            }
        }
    }
}
