//! What follows an attempt, as a pure function of how it ended and how much time is left. Refuses
//! to act.

use std::time::Duration;

use watchword_core::{AttemptClass, DeliveryOutcome, Ladder, Rung, Timestamp};

/// With less life left than this a code is of no use to the person who waits for it: no attempt
/// starts.
pub const LEAST_USEFUL: Duration = Duration::from_secs(3);

/// What a channel's configuration decides about ends that leave a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How often an attempt of unknown outcome is followed by another, in the life of a message.
    /// The person may then get the same code twice, which is better than not at all; more often
    /// only costs money. A provider that recognises a repeat by its id gets as many as it takes, and
    /// counts once if another provider gets the message then.
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

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The delivery has ended.
    End(DeliveryOutcome),
    /// Another provider, at once.
    Failover,
    /// Another attempt after this wait.
    Wait(Rung),
}

/// How an attempt ended, and where the delivery stands.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own that the table looks at"
)]
pub struct Ended {
    /// How it ended.
    pub class: AttemptClass,
    /// Attempts made, this one included.
    pub attempt_count: u32,
    /// Attempts of unknown outcome, this one included; of a provider that recognises a repeat one for
    /// all in a row.
    pub unknown_count: u32,
    /// Whether this provider recognises a repeat.
    pub is_idempotent: bool,
    /// Whether a healthy provider is left that was not asked in this round.
    pub has_another: bool,
    /// Whether a provider is left, healthy or not, that has not refused this delivery for good.
    pub has_left: bool,
    /// Whether a fallback step follows if the delivery fails.
    pub has_fallback: bool,
    /// How long the provider asks to wait.
    pub retry_after: Option<Duration>,
    /// Now.
    pub now: Timestamp,
    /// Nothing is sent from this moment on.
    pub deadline: Timestamp,
}

impl Ended {
    /// The wait before the next round, or the end of the delivery.
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
        // Going round an opt-out by another provider would be a breach; a wrong number stays wrong.
        AttemptClass::RecipientInvalid | AttemptClass::RecipientBlocked => failed,
        AttemptClass::MessageRejected if rules.rejected_elsewhere => ended.elsewhere_or(failed),
        AttemptClass::MessageRejected => failed,
        // Every provider would get the same text.
        AttemptClass::TextFault => failed,
        // This provider refused for good. Another one may only be in trouble for now.
        AttemptClass::DestinationRefused if ended.has_left => ended.elsewhere_or(ended.wait()),
        AttemptClass::DestinationRefused => failed,
        // An operator may fix the fault while the code lives. A fallback step is sooner.
        AttemptClass::ConfigFault if ended.has_left || !ended.has_fallback => {
            ended.elsewhere_or(ended.wait())
        }
        AttemptClass::ConfigFault => failed,
        AttemptClass::Transient => ended.elsewhere_or(ended.wait()),
        // The same provider will know whether it has the message; another would not.
        AttemptClass::UnknownOutcome if ended.is_idempotent => ended.wait(),
        AttemptClass::UnknownOutcome if ended.unknown_count > rules.unknown_retries => failed,
        AttemptClass::UnknownOutcome => ended.elsewhere_or(ended.wait()),
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
        // Class, attempts, alone, with another provider.
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
