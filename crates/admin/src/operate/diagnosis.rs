//! Diagnoses a verification in one sentence: a pure function of its records.

use watchword_core::{
    AttemptClass, Channel, DeliveryOutcome, ProviderName, ReceiptState, Timestamp,
    VerificationStatus,
};
use watchword_ledger::{Attempt, DeliveryRecord};
use watchword_verifier::store::{Inspected, StoredVerification};

/// How far a store's clock may be ahead of this process's clock before a diagnosis mentions it.
const CLOCK_SKEW_MS: u64 = 5_000;
/// The reasons why a code can end before its expiry time.
pub(super) const EARLY_END: &str = "a backup was restored or the clock was set back";

/// The inputs of a diagnosis in addition to the records.
#[derive(Debug)]
pub(super) struct Circumstances {
    /// The end of the subject's lock, if it is locked.
    pub(super) locked_until: Option<Timestamp>,
    /// The reason why no provider of the channel gets messages, if there is one.
    pub(super) standstill: Option<String>,
    pub(super) now: Timestamp,
}

/// Whether the code ended before its expiry time.
pub(super) fn has_ended_early(verification: &StoredVerification, now: Timestamp) -> bool {
    let ahead_ms = verification.expires_at.millis_since(now);
    verification.status == VerificationStatus::Expired && ahead_ms > CLOCK_SKEW_MS
}

/// Returns a sentence on what happened. `records` are the verification's deliveries in order.
pub(super) fn diagnose(
    inspected: &Inspected,
    records: &[DeliveryRecord],
    around: &Circumstances,
) -> String {
    let verification = &inspected.verification;
    if let Some(until) = around.locked_until
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
            let message = message(inspected, records, has_expired, around);
            let end = if has_ended_early(verification, around.now) {
                format!(", and the code is no longer valid because {EARLY_END}")
            } else if has_expired {
                ", and the code has expired".to_owned()
            } else {
                String::new()
            };
            let ahead = if is_ahead(verification, records, around.now) {
                "; some of its times are yet to come by this machine's clock, which was set back or \
                 differs from the clock that wrote them"
            } else {
                ""
            };
            format!("{message}{end}{ahead}.")
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

/// Whether a recorded time is later than `now`, by more than [`CLOCK_SKEW_MS`].
fn is_ahead(verification: &StoredVerification, records: &[DeliveryRecord], now: Timestamp) -> bool {
    let times = records.iter().map(|record| record.updated_at);
    let mut times = times.chain([verification.opened_at]);
    times.any(|at| at.millis_since(now) > CLOCK_SKEW_MS)
}

/// Describes the last message, and the message before it if the last was not queued.
fn message(
    inspected: &Inspected,
    records: &[DeliveryRecord],
    has_expired: bool,
    around: &Circumstances,
) -> String {
    let sends = inspected.verification.sends;
    let of = |send| records.iter().find(|record| record.id.send() == send);
    let standstill = around.standstill.as_ref().filter(|_| !has_expired);
    let stuck = standstill.map_or_else(String::new, |why| format!("; {why}"));
    match of(sends) {
        Some(record) => {
            let waits = record.outcome == DeliveryOutcome::Queued;
            let stuck = if waits { &stuck } else { "" };
            format!("{}{stuck}", of_record(record, has_expired))
        }
        None if inspected.confirmed => {
            format!("{}{stuck}", unclaimed(&inspected.verification, has_expired))
        }
        None => {
            let unsent = unsent(inspected);
            let Some(before) = sends.checked_sub(1).filter(|before| *before > 0) else {
                return unsent;
            };
            let earlier = match of(before) {
                Some(record) => of_record(record, has_expired),
                None => unclaimed(&inspected.verification, has_expired),
            };
            format!("{unsent}; before that, {}", uncapitalized(&earlier))
        }
    }
}

/// Describes a message that was not queued.
fn unsent(inspected: &Inspected) -> String {
    let message = noun(inspected.verification.channel);
    let message = match inspected.verification.sends {
        1 => message.to_owned(),
        _ => format!("further {message}"),
    };
    match &inspected.refused_by {
        Some(limit) => {
            format!("The request was refused by limit {limit} (429), no {message} was sent")
        }
        None => format!(
            "No {message} was sent: a limit refused it (429) or the queue did not take it (503), so the \
             caller got an error and may ask again"
        ),
    }
}

fn uncapitalized(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

/// Describes a queued message that no worker has claimed.
fn unclaimed(verification: &StoredVerification, has_expired: bool) -> String {
    let channel = verification.channel;
    let message = noun(channel);
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
pub(super) mod tests;
