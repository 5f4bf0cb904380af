//! The verification's state machine. Each transition consumes the state and returns the next one.
//! The `SQLite` store runs it inside a transaction; the Lua scripts of the Redis store implement
//! the same rules, and one test suite holds both to them. Codes are not known here: the caller
//! passes whether one matched.

use crate::{Policy, ResendCode, Timestamp, VerificationStatus};

/// How far ahead of now a verification may have been opened even if its cooldown is shorter: clocks
/// of several machines differ by less.
const CLOCK_SKEW_MS: u64 = 5_000;

/// A verification whose code can still be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// The policy that it was opened with.
    pub policy: Policy,
    /// The time at which it was opened.
    pub opened_at: Timestamp,
    /// The time from which the code is expired.
    pub expires_at: Timestamp,
    /// Codes that may still be compared.
    pub checks_left: u8,
    /// Messages sent so far, including the current one.
    pub sends: u8,
    /// Whether the broker confirmed the current message.
    pub confirmed: bool,
    /// Whether a fallback step, not a request, caused the current message.
    pub by_step: bool,
    /// Whether a send limit refused the current message, so that it was not sent.
    pub refused: bool,
    /// The time from which another message may be requested.
    pub resend_after: Timestamp,
}

/// The decision about a request for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// The current message was never confirmed: publish it again under the same delivery id.
    Repeat,
    /// Send a further message.
    Further {
        /// Whether the message carries a new code.
        rotate: bool,
    },
    /// The cooldown is not over.
    Cooling,
    /// All messages of the verification are used.
    Exhausted,
    /// A message later than the one that the step follows was requested.
    Superseded,
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckVerdict {
    /// The code was right; the verification is approved and ends.
    Approved,
    /// The code was wrong; further checks are allowed.
    Wrong,
    /// The code was wrong, and it was the last check.
    LastWrong,
    /// No code was compared: the verification is unknown, used, ended or expired, or its subject is
    /// locked. Callers cannot distinguish these cases.
    Refused,
}

impl Pending {
    /// Opens a verification at `now`; its first message is not confirmed yet.
    pub const fn open(policy: Policy, now: Timestamp) -> Self {
        Self {
            policy,
            opened_at: now,
            expires_at: now.plus_millis(policy.lifetime_ms),
            checks_left: policy.max_checks,
            sends: 1,
            confirmed: false,
            by_step: false,
            refused: false,
            resend_after: now.plus_millis(policy.cooldown_ms),
        }
    }

    /// Whether the code can be checked at `now`.
    ///
    /// If the verification was opened ahead of `now` by more than its cooldown, the clock has been
    /// set back since. It has then ended, because its code would live longer than its policy
    /// allows.
    pub fn is_live(&self, now: Timestamp) -> bool {
        let ahead_ms = self.opened_at.millis_since(now);
        now < self.expires_at && ahead_ms <= self.policy.cooldown_ms.max(CLOCK_SKEW_MS)
    }

    /// Returns the time from which another message may be requested: at most one cooldown after
    /// `now`, even if the clock was set back.
    #[must_use]
    pub fn resend_after(&self, now: Timestamp) -> Timestamp {
        self.resend_after
            .min(now.plus_millis(self.policy.cooldown_ms))
    }

    /// Whether the cooldown of the last message is running. If that message is ahead of `now` by
    /// more than a cooldown, the clock has been set back since, and the message delays nothing.
    fn is_cooling(&self, now: Timestamp) -> bool {
        let cooldown_ms = self.policy.cooldown_ms;
        let longest = cooldown_ms.saturating_mul(2);
        now < self.resend_after && self.resend_after <= now.plus_millis(longest)
    }

    /// Decides about a request for a message at `now`. The state changes for
    /// [`Sending::Further`], and for a message that a limit refused before.
    #[must_use]
    pub fn send(self, now: Timestamp) -> (Self, Sending) {
        // A step's message is repeated by the step only: it goes to another recipient than a
        // request's.
        if !self.confirmed && !self.by_step {
            return (self.begun_again(now), Sending::Repeat);
        }
        if self.is_cooling(now) {
            return (self, Sending::Cooling);
        }
        self.further(false, now)
    }

    /// Decides about a fallback step at `now` that follows message number `after`. The cooldown
    /// does not apply; a later message supersedes the step.
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

    /// Counts the cooldown of a refused message from `now`, and for the first message the lifetime
    /// of the code as well: until now no message has shown it.
    fn begun_again(mut self, now: Timestamp) -> Self {
        if self.refused {
            self.refused = false;
            self.resend_after = now.plus_millis(self.policy.cooldown_ms);
            if self.sends == 1 {
                let lifetime_ms = self.expires_at.millis_since(self.opened_at);
                self.opened_at = now;
                self.expires_at = now.plus_millis(lifetime_ms);
            }
        }
        self
    }

    /// Marks message number `send` as refused by a send limit. A confirmed message, an earlier one
    /// and one of a fallback step stay as they are.
    #[must_use]
    pub const fn refuse(mut self, send: u8) -> Self {
        if send == self.sends && !self.confirmed && !self.by_step {
            self.refused = true;
        }
        self
    }

    fn further(mut self, by_step: bool, now: Timestamp) -> (Self, Sending) {
        if self.sends >= self.policy.max_sends {
            return (self, Sending::Exhausted);
        }
        self.sends += 1;
        self.confirmed = false;
        self.by_step = by_step;
        self.refused = false;
        self.resend_after = now.plus_millis(self.policy.cooldown_ms);
        (
            self,
            Sending::Further {
                rotate: self.policy.resend == ResendCode::Rotate,
            },
        )
    }

    /// Marks message number `send` as confirmed by the broker. Confirmations of earlier messages
    /// change nothing.
    #[must_use]
    pub const fn confirm(mut self, send: u8) -> Self {
        if send == self.sends {
            self.confirmed = true;
            self.refused = false;
        }
        self
    }

    /// Applies one check at `now`. `Err` holds the final status, `Ok` the state if checks are left.
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
        // Within the cooldown, in which a request would be refused.
        let (stepped, sending) = first.step(1, NOW);
        assert_eq!(sending, Sending::Further { rotate: false });
        assert_eq!((stepped.sends, stepped.confirmed), (2, false));
        // The issuer died before the confirm: the step repeats its message, a request does not.
        assert_eq!(stepped.step(1, NOW).1, Sending::Repeat);
        assert_eq!(stepped.send(NOW).1, Sending::Cooling);
        let done = stepped.confirm(2);
        assert_eq!(done.step(1, NOW).1, Sending::Superseded);
        // A request in between cancels the step.
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
            // Opened ahead by this many milliseconds: live, cooling, wait.
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
        // Without a cooldown, the clocks of two machines may still differ a little.
        let policy = Policy {
            cooldown_ms: 0,
            ..Policy::default()
        };
        let state = Pending::open(policy, NOW.plus_millis(5_000));
        assert!(state.is_live(NOW) && !state.is_live(NOW.minus_millis(1)));
    }

    proptest! {
        /// In any order of events at most `max_checks` codes are compared, and no resend gives a
        /// check back.
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
