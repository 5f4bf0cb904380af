//! The decision after an attempt, as a pure function of its outcome class and the remaining time.

use std::time::Duration;

use watchword_core::{AttemptClass, DeliveryOutcome, Ladder, Rung, Timestamp, millis};

/// The least remaining lifetime with which an attempt starts. A code that lives shorter is of no
/// use to the person waiting for it.
pub const LEAST_USEFUL: Duration = Duration::from_secs(3);

/// A channel's configuration for outcomes that leave a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How many times an attempt of unknown outcome is followed by another one, per message. The
    /// person may then receive the same code twice, which is better than not at all; more attempts
    /// only cost money. A provider that recognizes a repeat by its id is retried without this
    /// limit, and counts once if another provider gets the message afterwards.
    pub unknown_retries: u32,
    /// Whether a text that one provider refused is offered to another.
    pub rejected_elsewhere: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            unknown_retries: 1,
            rejected_elsewhere: false,
        }
    }
}

/// The next step of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The delivery has ended.
    End(DeliveryOutcome),
    /// Try another provider immediately.
    Failover,
    /// Try again after this retry delay.
    Wait(Rung),
}

/// The outcome of an attempt and the state of the delivery.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own that the table looks at"
)]
pub struct Ended {
    /// The attempt's outcome class.
    pub class: AttemptClass,
    /// Attempts made, including this one.
    pub attempt_count: u32,
    /// Attempts of unknown outcome, including this one. Consecutive attempts of a provider that
    /// recognizes a repeat count once.
    pub unknown_count: u32,
    /// Whether this provider recognizes a repeat.
    pub is_idempotent: bool,
    /// Whether a healthy provider is left that was not tried in this round.
    pub has_another: bool,
    /// Whether a provider is left, healthy or not, that has not refused this delivery for good.
    pub has_left: bool,
    /// Whether a fallback step follows if the delivery fails.
    pub has_fallback: bool,
    /// The delay that the provider asked for.
    pub retry_after: Option<Duration>,
    /// The time of the decision.
    pub now: Timestamp,
    /// The order's deadline; nothing is sent from this time on.
    pub deadline: Timestamp,
}

impl Ended {
    /// Returns the retry delay before the next round, or the end of the delivery if none fits.
    pub fn wait(&self) -> Decision {
        let rung = Ladder::STANDARD.next(
            self.attempt_count,
            self.retry_after.map_or(0, millis),
            self.now,
            self.deadline,
            millis(LEAST_USEFUL),
        );
        rung.map_or(Decision::End(DeliveryOutcome::Expired), Decision::Wait)
    }

    fn elsewhere_or(&self, otherwise: Decision) -> Decision {
        let in_time = self.deadline.since(self.now) >= LEAST_USEFUL;
        if self.has_another && in_time {
            Decision::Failover
        } else {
            otherwise
        }
    }
}

/// Decides by outcome class.
#[expect(clippy::match_same_arms, reason = "one row a class")]
pub fn decide(ended: Ended, rules: Rules) -> Decision {
    let failed = Decision::End(DeliveryOutcome::Failed);
    match ended.class {
        AttemptClass::Accepted => Decision::End(DeliveryOutcome::Accepted),
        // Sending through another provider would bypass an opt-out; an invalid number stays
        // invalid.
        AttemptClass::RecipientInvalid | AttemptClass::RecipientBlocked => failed,
        AttemptClass::MessageRejected if rules.rejected_elsewhere => ended.elsewhere_or(failed),
        AttemptClass::MessageRejected => failed,
        // Every provider would get the same text.
        AttemptClass::TextFault => failed,
        // This provider refused for good. Others may only be unhealthy for now.
        AttemptClass::DestinationRefused if ended.has_left => ended.elsewhere_or(ended.wait()),
        AttemptClass::DestinationRefused => failed,
        // An operator may fix the fault while the code lives. A fallback step is faster.
        AttemptClass::ConfigFault if ended.has_left || !ended.has_fallback => {
            ended.elsewhere_or(ended.wait())
        }
        AttemptClass::ConfigFault => failed,
        AttemptClass::Transient => ended.elsewhere_or(ended.wait()),
        // The same provider recognizes whether it has the message; another would send it again.
        AttemptClass::UnknownOutcome if ended.is_idempotent => ended.wait(),
        AttemptClass::UnknownOutcome if ended.unknown_count > rules.unknown_retries => failed,
        AttemptClass::UnknownOutcome => ended.elsewhere_or(ended.wait()),
    }
}

/// Returns how long an attempt may take now, or `None` if it must not start. The result is at least
/// a second shorter than the code's remaining lifetime, and at most `limit`.
pub fn attempt_budget(limit: Duration, now: Timestamp, deadline: Timestamp) -> Option<Duration> {
    let left = deadline.since(now);
    (left >= LEAST_USEFUL).then(|| limit.min(left.saturating_sub(Duration::from_secs(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn ended(class: AttemptClass, attempt_count: u32, left_ms: u64) -> Ended {
        Ended {
            class,
            attempt_count,
            unknown_count: attempt_count,
            is_idempotent: false,
            has_another: false,
            has_left: false,
            has_fallback: false,
            retry_after: None,
            now: NOW,
            deadline: NOW.plus_millis(left_ms),
        }
    }

    fn told(decision: Decision) -> String {
        match decision {
            Decision::End(outcome) => outcome.to_string(),
            Decision::Failover => "failover".to_owned(),
            Decision::Wait(rung) => rung.name.to_owned(),
        }
    }

    #[test]
    fn each_class_has_its_consequence() {
        use AttemptClass as Class;
        // Class, attempts, decision without and with another provider.
        let table = [
            (Class::Accepted, 1, "accepted", "accepted"),
            (Class::RecipientInvalid, 1, "failed", "failed"),
            (Class::RecipientBlocked, 1, "failed", "failed"),
            (Class::MessageRejected, 1, "failed", "failed"),
            (Class::TextFault, 1, "failed", "failed"),
            (Class::DestinationRefused, 1, "failed", "failover"),
            (Class::ConfigFault, 1, "1s", "failover"),
            (Class::ConfigFault, 5, "45s", "failover"),
            (Class::Transient, 1, "1s", "failover"),
            (Class::Transient, 3, "15s", "failover"),
            (Class::UnknownOutcome, 1, "1s", "failover"),
            (Class::UnknownOutcome, 2, "failed", "failed"),
        ];
        for (class, attempts, alone, with_another) in table {
            let mut ended = ended(class, attempts, 300_000);
            let rules = Rules::default();
            assert_eq!(told(decide(ended, rules)), alone, "{class} {attempts}");
            (ended.has_another, ended.has_left) = (true, true);
            assert_eq!(
                told(decide(ended, rules)),
                with_another,
                "{class} {attempts}"
            );
        }
        let rules = Rules::default();
        assert_eq!(
            told(decide(ended(Class::Transient, 1, 3_999), rules)),
            "expired"
        );
        assert_eq!(told(decide(ended(Class::Transient, 1, 4_000), rules)), "1s");
        let mut late = ended(Class::Transient, 1, 2_999);
        late.has_another = true;
        assert_eq!(told(decide(late, rules)), "expired");
    }

    #[test]
    fn a_refusal_waits_for_a_provider_that_is_only_in_trouble() {
        for class in [AttemptClass::DestinationRefused, AttemptClass::ConfigFault] {
            let mut refused = ended(class, 1, 300_000);
            refused.has_left = true;
            assert_eq!(told(decide(refused, Rules::default())), "1s", "{class}");
        }
    }

    #[test]
    fn a_fault_of_the_account_waits_for_an_operator_unless_a_fallback_step_is_left() {
        let mut fault = ended(AttemptClass::ConfigFault, 1, 300_000);
        assert_eq!(told(decide(fault, Rules::default())), "1s");
        fault.has_fallback = true;
        assert_eq!(told(decide(fault, Rules::default())), "failed");
        let late = ended(AttemptClass::ConfigFault, 1, 3_999);
        assert_eq!(told(decide(late, Rules::default())), "expired");
    }

    #[test]
    fn policy_and_idempotency_decide_where_there_is_a_choice() {
        let strict = Rules {
            unknown_retries: 0,
            rejected_elsewhere: true,
        };
        let mut unknown = ended(AttemptClass::UnknownOutcome, 1, 300_000);
        unknown.has_another = true;
        assert_eq!(told(decide(unknown, strict)), "failed");
        unknown.is_idempotent = true;
        assert_eq!(told(decide(unknown, strict)), "1s");
        let mut rejected = ended(AttemptClass::MessageRejected, 1, 300_000);
        rejected.has_another = true;
        assert_eq!(told(decide(rejected, strict)), "failover");
    }

    #[test]
    fn a_provider_that_asks_for_time_gets_it() {
        let mut ended = ended(AttemptClass::Transient, 1, 300_000);
        ended.retry_after = Some(Duration::from_secs(10));
        assert_eq!(told(decide(ended, Rules::default())), "15s");
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
