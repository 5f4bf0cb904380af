//! What follows an attempt, as a pure function of how it ended and how much time is left. Refuses
//! to act.

use std::time::Duration;

use watchword_core::{AttemptClass, DeliveryOutcome, Ladder, Rung, Timestamp};

/// With less life left than this a code is of no use to the person who waits for it: no attempt
/// starts.
pub const LEAST_USEFUL: Duration = Duration::from_secs(3);

/// How often an attempt of unknown outcome is followed by another. The person may then get the
/// same code twice, which is better than not at all; more often would only cost money.
const UNKNOWN_RETRIES: u32 = 1;

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The delivery has ended.
    End(DeliveryOutcome),
    /// Another attempt after this wait.
    Wait(Rung),
}

/// How an attempt ended, and where the delivery stands.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// How it ended.
    pub class: AttemptClass,
    /// Attempts made, this one included.
    pub attempt_count: u32,
    /// How long the provider asks to wait.
    pub retry_after: Option<Duration>,
    /// Now.
    pub now: Timestamp,
    /// Nothing is sent from this moment on.
    pub deadline: Timestamp,
}

/// Decides by outcome class.
pub fn decide(ended: Ended) -> Decision {
    match ended.class {
        AttemptClass::Accepted => Decision::End(DeliveryOutcome::Accepted),
        AttemptClass::RecipientInvalid
        | AttemptClass::RecipientBlocked
        | AttemptClass::MessageRejected
        | AttemptClass::ConfigFault => Decision::End(DeliveryOutcome::Failed),
        AttemptClass::UnknownOutcome if ended.attempt_count > UNKNOWN_RETRIES => {
            Decision::End(DeliveryOutcome::Failed)
        }
        AttemptClass::UnknownOutcome | AttemptClass::Transient => {
            let at_least_ms = ended.retry_after.map_or(0, millis);
            let rung = Ladder::STANDARD.next(
                ended.attempt_count,
                at_least_ms,
                ended.now,
                ended.deadline,
                millis(LEAST_USEFUL),
            );
            rung.map_or(Decision::End(DeliveryOutcome::Expired), Decision::Wait)
        }
    }
}

/// How long an attempt may take now, or `None` when it must not start: shorter than the code's
/// remaining life by a second, and never longer than the provider's own limit.
pub fn attempt_budget(limit: Duration, now: Timestamp, deadline: Timestamp) -> Option<Duration> {
    let left = deadline.since(now);
    (left >= LEAST_USEFUL).then(|| limit.min(left.saturating_sub(Duration::from_secs(1))))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn decided(class: AttemptClass, attempt_count: u32, left_ms: u64) -> String {
        let ended = Ended {
            class,
            attempt_count,
            retry_after: None,
            now: NOW,
            deadline: NOW.plus_millis(left_ms),
        };
        match decide(ended) {
            Decision::End(outcome) => outcome.to_string(),
            Decision::Wait(rung) => rung.name.to_owned(),
        }
    }

    #[test]
    fn each_class_has_its_consequence() {
        use AttemptClass as Class;
        let table = [
            (Class::Accepted, 1, "accepted"),
            (Class::RecipientInvalid, 1, "failed"),
            (Class::RecipientBlocked, 1, "failed"),
            (Class::MessageRejected, 1, "failed"),
            (Class::ConfigFault, 1, "failed"),
            (Class::Transient, 1, "1s"),
            (Class::Transient, 3, "15s"),
            (Class::UnknownOutcome, 1, "1s"),
            (Class::UnknownOutcome, 2, "failed"),
        ];
        for (class, attempts, consequence) in table {
            assert_eq!(
                decided(class, attempts, 300_000),
                consequence,
                "{class} {attempts}"
            );
        }
        assert_eq!(decided(Class::Transient, 1, 3_999), "expired");
        assert_eq!(decided(Class::Transient, 1, 4_000), "1s");
    }

    #[test]
    fn a_provider_that_asks_for_time_gets_it() {
        let ended = Ended {
            class: AttemptClass::Transient,
            attempt_count: 1,
            retry_after: Some(Duration::from_secs(10)),
            now: NOW,
            deadline: NOW.plus_millis(300_000),
        };
        assert!(matches!(decide(ended), Decision::Wait(rung) if rung.name == "15s"));
    }

    #[test]
    fn an_attempt_ends_before_the_code_does_or_never_starts() {
        let budget =
            |left_ms| attempt_budget(Duration::from_secs(10), NOW, NOW.plus_millis(left_ms));
        assert_eq!(budget(300_000), Some(Duration::from_secs(10)));
        assert_eq!(budget(5_000), Some(Duration::from_secs(4)));
        assert_eq!(budget(2_999), None);
        assert_eq!(
            attempt_budget(Duration::from_secs(10), NOW, NOW.minus_millis(1)),
            None
        );
    }
}
