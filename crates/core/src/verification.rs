//! The life of one verification as a state machine whose steps consume the state. The `SQLite`
//! store runs it inside a transaction; the Lua scripts of the Redis store say the same and are
//! held to it by a shared suite. Refuses to know codes: whether one matched is an argument.

use crate::{Policy, ResendCode, Timestamp, VerificationStatus};

/// The least that a verification may be opened ahead of now: clocks of several machines differ by
/// less.
const CLOCK_SKEW_MS: u64 = 5_000;

/// A verification whose code can still be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// The policy it was opened with.
    pub policy: Policy,
    /// Before this moment the verification did not exist.
    pub opened_at: Timestamp,
    /// From this moment on no code is right.
    pub expires_at: Timestamp,
    /// Codes that may still be compared.
    pub checks_left: u8,
    /// Messages so far, the current one included.
    pub sends: u8,
    /// Whether the broker confirmed the current message.
    pub confirmed: bool,
    /// Whether a fallback step asked for the current message, and not a request.
    pub by_step: bool,
    /// From this moment on another message may be sent.
    pub resend_after: Timestamp,
}

/// What a request for a message leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// The current message was never confirmed: publish it again under the same delivery id.
    Repeat,
    /// A further message, with a new code if `rotate`.
    Further {
        /// Whether it carries a new code.
        rotate: bool,
    },
    /// Too early for another message.
    Cooling,
    /// All messages are used up.
    Exhausted,
    /// A later message than the one the step follows was asked for.
    Superseded,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckVerdict {
    /// The code was right; the verification is approved, once and for all.
    Approved,
    /// The code was wrong; further checks are allowed.
    Wrong,
    /// The code was wrong and was the last one allowed.
    LastWrong,
    /// Nothing was compared: no such verification, used, ended, expired, or its subject may not
    /// guess now. From outside these look alike.
    Refused,
}

impl Pending {
    /// A verification opened at `now`, its first message on the way.
    pub const fn open(policy: Policy, now: Timestamp) -> Self {
        Self {
            policy,
            opened_at: now,
            expires_at: now.plus_millis(policy.lifetime_ms),
            checks_left: policy.max_checks,
            sends: 1,
            confirmed: false,
            by_step: false,
            resend_after: now.plus_millis(policy.cooldown_ms),
        }
    }

    /// Whether its code can be checked at `now`. If a verification lies ahead of now by more than
    /// its cooldown, its clock has been corrected since: it has ended, because its code would live
    /// longer than its policy says.
    pub fn is_live(&self, now: Timestamp) -> bool {
        let ahead_ms = self.opened_at.millis_since(now);
        now < self.expires_at && ahead_ms <= self.policy.cooldown_ms.max(CLOCK_SKEW_MS)
    }

    /// The time from which another message may be requested, as seen at `now`: never more than a
    /// cooldown away.
    #[must_use]
    pub fn resend_after(&self, now: Timestamp) -> Timestamp {
        self.resend_after
            .min(now.plus_millis(self.policy.cooldown_ms))
    }

    /// Whether the last message is younger than the cooldown. If it lies ahead of now by more than
    /// the cooldown, its clock has been corrected since, and it delays nothing.
    fn is_cooling(&self, now: Timestamp) -> bool {
        let cooldown_ms = self.policy.cooldown_ms;
        let longest = cooldown_ms.saturating_mul(2);
        now < self.resend_after && self.resend_after <= now.plus_millis(longest)
    }

    /// Asks for a message at `now`. The state changes only for [`Sending::Further`].
    #[must_use]
    pub fn send(self, now: Timestamp) -> (Self, Sending) {
        // A step's message is the step's to repeat: it goes to another recipient.
        if !self.confirmed && !self.by_step {
            return (self, Sending::Repeat);
        }
        if self.is_cooling(now) {
            return (self, Sending::Cooling);
        }
        self.further(false, now)
    }

    /// A fallback step at `now` that follows message number `after`: the cooldown does not hold it
    /// back, a later message does.
    #[must_use]
    pub fn step(self, after: u8, now: Timestamp) -> (Self, Sending) {
        if self.by_step && !self.confirmed && self.sends == after.saturating_add(1) {
            return (self, Sending::Repeat);
        }
        if self.sends != after {
            return (self, Sending::Superseded);
        }
        self.further(true, now)
    }

    fn further(mut self, by_step: bool, now: Timestamp) -> (Self, Sending) {
        if self.sends >= self.policy.max_sends {
            return (self, Sending::Exhausted);
        }
        self.sends += 1;
        self.confirmed = false;
        self.by_step = by_step;
        self.resend_after = now.plus_millis(self.policy.cooldown_ms);
        (
            self,
            Sending::Further {
                rotate: self.policy.resend == ResendCode::Rotate,
            },
        )
    }

    /// The broker confirmed message number `send`. An old confirmation changes nothing.
    #[must_use]
    pub const fn confirm(mut self, send: u8) -> Self {
        if send == self.sends {
            self.confirmed = true;
        }
        self
    }

    /// One check at `now`. `Err` is the final status; `Ok` is the state that goes on.
    pub fn check(mut self, matched: bool, now: Timestamp) -> Result<Self, VerificationStatus> {
        if !self.is_live(now) {
            return Err(VerificationStatus::Expired);
        }
        if matched {
            return Err(VerificationStatus::Approved);
        }
        self.checks_left = self.checks_left.saturating_sub(1);
        if self.checks_left == 0 {
            Err(VerificationStatus::MaxAttemptsReached)
        } else {
            Ok(self)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    #[test]
    fn a_step_follows_its_message_and_no_other() {
        let policy = Policy {
            max_sends: 3,
            ..Policy::default()
        };
        let first = Pending::open(policy, NOW).confirm(1);
        // Inside the cooldown, where a request would wait.
        let (stepped, sending) = first.step(1, NOW);
        assert_eq!(sending, Sending::Further { rotate: false });
        assert_eq!((stepped.sends, stepped.confirmed), (2, false));
        // The issuer died before the confirm: the step repeats it, a request does not.
        assert_eq!(stepped.step(1, NOW).1, Sending::Repeat);
        assert_eq!(stepped.send(NOW).1, Sending::Cooling);
        let done = stepped.confirm(2);
        assert_eq!(done.step(1, NOW).1, Sending::Superseded);
        // A request in between cancels it.
        let later = NOW.plus_millis(policy.cooldown_ms);
        let (resent, _) = first.send(later);
        assert_eq!(resent.step(1, later).1, Sending::Superseded);
        let (last, _) = done.step(2, later);
        assert_eq!(last.confirm(3).step(3, later).1, Sending::Exhausted);
    }

    #[test]
    fn an_unconfirmed_message_is_repeated_not_counted() {
        let opened = Pending::open(Policy::default(), NOW);
        let (same, sending) = opened.send(NOW.plus_millis(1));
        assert_eq!((same, sending), (opened, Sending::Repeat));
    }

    #[test]
    fn a_further_message_waits_for_the_cooldown_and_ends_with_the_last() {
        let mut state = Pending::open(Policy::default(), NOW).confirm(1);
        assert_eq!(state.send(NOW.plus_millis(29_999)).1, Sending::Cooling);
        let mut now = NOW;
        for send in 2..=5 {
            now = now.plus_millis(30_000);
            let (next, sending) = state.send(now);
            assert_eq!(sending, Sending::Further { rotate: false });
            assert_eq!(next.sends, send);
            assert_eq!(
                next.expires_at, state.expires_at,
                "a resend does not lengthen a life"
            );
            state = next.confirm(send);
        }
        assert_eq!(state.send(now.plus_millis(30_000)).1, Sending::Exhausted);
    }

    #[test]
    fn a_late_confirmation_of_an_earlier_message_is_not_the_current_one() {
        let state = Pending::open(Policy::default(), NOW).confirm(1);
        let (second, _) = state.send(NOW.plus_millis(30_000));
        assert!(!second.confirm(1).confirmed && second.confirm(2).confirmed);
    }

    #[test]
    fn the_deadline_is_the_first_moment_that_fails() {
        let state = Pending::open(Policy::default(), NOW);
        assert_eq!(
            state.check(true, NOW.plus_millis(299_999)),
            Err(VerificationStatus::Approved)
        );
        assert_eq!(
            state.check(true, NOW.plus_millis(300_000)),
            Err(VerificationStatus::Expired)
        );
    }

    #[test]
    fn a_clock_that_was_corrected_leaves_no_long_wait_and_no_long_life() {
        let ahead = |ms| Pending::open(Policy::default(), NOW.plus_millis(ms)).confirm(1);
        let table = [
            // Opened ahead by this much: live, cooling, wait.
            (0, true, true, 30_000),
            (30_000, true, true, 30_000),
            (30_001, false, false, 30_000),
            (7_200_000, false, false, 30_000),
        ];
        for (ms, live, cooling, wait_ms) in table {
            let state = ahead(ms);
            assert_eq!(state.is_live(NOW), live, "{ms}");
            assert_eq!(state.send(NOW).1 == Sending::Cooling, cooling, "{ms}");
            assert_eq!(state.resend_after(NOW), NOW.plus_millis(wait_ms), "{ms}");
        }
        // Without a cooldown the clocks of two machines may still differ a little.
        let policy = Policy {
            cooldown_ms: 0,
            ..Policy::default()
        };
        let state = Pending::open(policy, NOW.plus_millis(5_000));
        assert!(state.is_live(NOW) && !state.is_live(NOW.minus_millis(1)));
    }

    proptest! {
        /// Whatever happens in whatever order, at most `max_checks` codes are compared and no
        /// resend gives one back.
        #[test]
        fn no_order_of_steps_gives_a_check_back(steps in prop::collection::vec((0_u8..3, 0_u64..40_000), 0..60)) {
            let mut state = Pending::open(Policy::default(), NOW);
            let (mut now, mut compared) = (NOW, 0);
            for (step, wait) in steps {
                now = now.plus_millis(wait);
                match step {
                    0 => state = state.send(now).0,
                    1 => state = state.confirm(state.sends),
                    _ => match state.check(false, now) {
                        Ok(next) => { compared += 1; state = next; }
                        Err(_) => break,
                    },
                }
                prop_assert!(compared + u32::from(state.checks_left) == 5);
                prop_assert!(state.sends <= 5);
            }
        }
    }
}
