//! The health of one provider as a level from 0 (closed off) to 10 (whole share), as a pure state
//! machine over what was observed and when. It falls fast and rises one step at a time, and
//! between falling and rising lies a gap, so that a provider of constant quality gets a constant
//! share. Refuses to read a clock.

use watchword_core::Timestamp;

/// The level of a provider nothing is wrong with.
pub(super) const WHOLE: u8 = 10;

/// Counts lose half their weight in this time.
const HALF_LIFE_MS: f64 = 120_000.0;
/// Fewer observations than this say nothing about a share.
const FEW: f64 = 10.0;
/// Above this part of bad ends the provider is closed off, …
const BROKEN: f64 = 0.5;
/// … above this one its share shrinks, …
const POOR: f64 = 0.15;
/// … and only below this one it grows.
const GOOD: f64 = 0.05;
/// So many bad ends in a row close it off, however good it was before.
const IN_A_ROW: u32 = 10;
/// The same where there is next to no traffic, which is so many observations.
const IN_A_ROW_OF_FEW: u32 = 5;
const NEXT_TO_NONE: f64 = 6.0;
/// With a small share it also grows after so many good ends in a row: one of three bad ends in ten
/// gets there once in 50,000 tries.
const GOOD_IN_A_ROW: u32 = 30;
/// The same where there is next to no traffic, and how long apart.
const GOOD_IN_A_ROW_OF_FEW: u32 = 5;
const STEP_UP_OF_FEW_MS: u64 = 300_000;
/// Time between two steps down, and between two up.
const STEP_DOWN_MS: u64 = 10_000;
const STEP_UP_MS: u64 = 30_000;
/// How long it stays closed off: doubled each time it fails its trial, back to the first once it
/// was whole again for a while.
const FIRST_REST_MS: u64 = 5_000;
const LONGEST_REST_MS: u64 = 900_000;
/// The same for a fault that a person mends: a call is refused fast and costs little, and if nobody
/// else can be asked all wait for the one that finds it mended.
const LONGEST_FAULTY_REST_MS: u64 = 5_000;
const CALM_MS: u64 = 600_000;
/// Trials that must succeed in a row before it gets a share.
const TRIALS: u8 = 3;
/// A trial that was never reported back is forgotten after this.
const TRIAL_MS: u64 = 60_000;

/// What was seen of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// It did what it is there for, were it to say no to a recipient.
    Good,
    /// It took a message, but late.
    Slow,
    /// It failed or was silent.
    Bad,
    /// It will not work until someone mends it.
    Fault,
}

/// How much of its share a provider may get now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Nothing.
    Closed,
    /// One message, to see.
    Trial,
    /// So many tenths of its share.
    Share(u8),
}

/// One provider, or one provider for one country.
#[derive(Debug, Clone)]
pub(super) struct Gauge {
    level: u8,
    changed_at: Timestamp,
    counted_at: Timestamp,
    good: f64,
    bad: f64,
    bad_in_a_row: u32,
    good_in_a_row: u32,
    rest_ms: u64,
    closed_until: Timestamp,
    faulty: bool,
    trial_at: Option<Timestamp>,
    trials: u8,
}

impl Gauge {
    pub(super) const fn new(now: Timestamp) -> Self {
        Self {
            level: WHOLE,
            changed_at: now,
            counted_at: now,
            good: 0.0,
            bad: 0.0,
            bad_in_a_row: 0,
            good_in_a_row: 0,
            rest_ms: FIRST_REST_MS,
            // Not `now`: a clock that is set back afterwards would close it off until then.
            closed_until: Timestamp::from_millis(0),
            faulty: false,
            trial_at: None,
            trials: 0,
        }
    }

    pub(super) const fn level(&self) -> u8 {
        self.level
    }

    /// Whether it is closed off for a fault that only a person mends.
    pub(super) const fn is_faulty(&self) -> bool {
        self.faulty
    }

    /// Whether it is sound but asked to be left alone for now.
    pub(super) fn is_resting(&self, now: Timestamp) -> bool {
        self.level > 0 && self.is_closed(now)
    }

    /// Whether its rest lasts. No rest is as long as one that a clock wrote that was set back since.
    fn is_closed(&self, now: Timestamp) -> bool {
        (1..=LONGEST_REST_MS).contains(&self.closed_until.millis_since(now))
    }

    pub(super) fn admission(&self, now: Timestamp) -> Admission {
        if self.is_closed(now) {
            return Admission::Closed;
        }
        if self.level > 0 {
            return Admission::Share(self.level);
        }
        match self.trial_at {
            Some(at) if now < at.plus_millis(TRIAL_MS) => Admission::Closed,
            _ => Admission::Trial,
        }
    }

    /// A message is on its way as a trial.
    pub(super) const fn on_trial(&mut self, now: Timestamp) {
        self.trial_at = Some(now);
    }

    /// It asked to be left alone for so long.
    pub(super) fn rest(&mut self, now: Timestamp, rest_ms: u64) {
        let until = now.plus_millis(rest_ms.min(LONGEST_REST_MS));
        self.closed_until = if self.is_closed(now) {
            self.closed_until.max(until)
        } else {
            until
        };
    }

    pub(super) fn observe(&mut self, sign: Sign, now: Timestamp) {
        self.fade(now);
        if sign != Sign::Good {
            self.good_in_a_row = 0;
        }
        match sign {
            Sign::Good => {
                self.good += 1.0;
                self.bad_in_a_row = 0;
                self.good_in_a_row = self.good_in_a_row.saturating_add(1);
            }
            Sign::Slow => self.bad += 1.0,
            Sign::Bad | Sign::Fault => {
                self.bad += 1.0;
                self.bad_in_a_row = self.bad_in_a_row.saturating_add(1);
            }
        }
        if sign == Sign::Fault {
            self.faulty = true;
            self.close(now);
        } else if self.level == 0 {
            self.tried(sign == Sign::Good, now);
        } else if self.is_broken() {
            self.close(now);
        } else {
            self.step(now);
        }
    }

    fn fade(&mut self, now: Timestamp) {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a window")]
        let passed = now.millis_since(self.counted_at) as f64;
        let kept = 0.5_f64.powf(passed / HALF_LIFE_MS);
        (self.good, self.bad) = (self.good * kept, self.bad * kept);
        self.counted_at = self.counted_at.max(now);
    }

    fn is_broken(&self) -> bool {
        let row = if self.good + self.bad < NEXT_TO_NONE {
            IN_A_ROW_OF_FEW
        } else {
            IN_A_ROW
        };
        self.bad_in_a_row >= row || self.is_surely_above(BROKEN)
    }

    /// Whether the part of bad ends is above `part`, chance allowed for: twice the spread that
    /// so many bad ends have by themselves. Without this a provider of constant quality wanders
    /// up and down for ever.
    fn is_surely_above(&self, part: f64) -> bool {
        let seen = self.good + self.bad;
        seen >= FEW && self.bad - 2.0 * self.bad.sqrt() > part * seen
    }

    /// Whether so much went well that one bad end more would not matter.
    fn is_surely_good(&self) -> bool {
        self.bad + 1.0 <= GOOD * (self.good + self.bad)
    }

    fn close(&mut self, now: Timestamp) {
        // What failed while it was closed already (calls that were on their way) is no new news.
        if self.level == 0 && self.is_closed(now) {
            return;
        }
        let is_calm = self.level == WHOLE && now.millis_since(self.changed_at) >= CALM_MS;
        if is_calm {
            self.rest_ms = FIRST_REST_MS;
        }
        let longest_ms = if self.faulty {
            LONGEST_FAULTY_REST_MS
        } else {
            LONGEST_REST_MS
        };
        self.closed_until = now.plus_millis(self.rest_ms.min(longest_ms));
        self.rest_ms = (self.rest_ms * 2).min(LONGEST_REST_MS);
        (self.level, self.changed_at) = (0, now);
        (self.trial_at, self.trials) = (None, 0);
    }

    fn tried(&mut self, succeeded: bool, now: Timestamp) {
        if self.is_closed(now) {
            return;
        }
        self.trial_at = None;
        if !succeeded {
            self.close(now);
            return;
        }
        self.trials += 1;
        if self.trials >= TRIALS {
            self.faulty = false;
            (self.level, self.changed_at) = (1, now);
            (self.good, self.bad, self.bad_in_a_row) = (0.0, 0.0, 0);
            self.good_in_a_row = 0;
        }
    }

    fn step(&mut self, now: Timestamp) {
        let since = now.millis_since(self.changed_at);
        if self.is_surely_above(POOR) {
            if since >= STEP_DOWN_MS && self.level > 1 {
                self.level = self.level.saturating_sub(2).max(1);
                self.changed_at = now;
            }
            return;
        }
        let row = self.good_in_a_row;
        let few_but_good =
            since >= STEP_UP_OF_FEW_MS && self.good + self.bad < FEW && row >= GOOD_IN_A_ROW_OF_FEW;
        let is_good = self.is_surely_good() || row >= GOOD_IN_A_ROW;
        let grows = (since >= STEP_UP_MS && is_good) || few_but_good;
        if self.level < WHOLE && grows {
            self.level += 1;
            self.changed_at = now;
            self.good_in_a_row = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_millis(0).plus_millis(ms)
    }

    #[test]
    fn a_fault_that_was_mended_is_found_within_seconds_however_long_it_lasted() {
        let mut gauge = Gauge::new(at(0));
        let mut now_ms = 0;
        for _ in 0..20 {
            gauge.observe(Sign::Fault, at(now_ms));
            now_ms += 5_000;
            assert_eq!(gauge.admission(at(now_ms)), Admission::Trial);
            gauge.on_trial(at(now_ms));
        }
    }

    #[test]
    fn a_clock_that_is_set_back_closes_nobody_off() {
        const HOUR_MS: u64 = 3_600_000;
        let mut gauge = Gauge::new(at(2 * HOUR_MS));
        let back = at(2 * HOUR_MS - 310_000);
        assert_eq!(gauge.admission(back), Admission::Share(WHOLE));
        // Nor does a rest that was asked for by the clock as it was.
        gauge.rest(at(2 * HOUR_MS), 10_000);
        assert!(!gauge.is_resting(at(HOUR_MS)));
        gauge.rest(at(HOUR_MS), 10_000);
        assert!(gauge.is_resting(at(HOUR_MS)) && !gauge.is_resting(at(HOUR_MS + 10_000)));
    }

    #[test]
    fn it_falls_fast_and_rises_one_step_at_a_time() {
        let mut gauge = Gauge::new(at(0));
        for call in 0..1_000 {
            gauge.observe(Sign::Good, at(call));
        }
        for call in 1_000..1_010 {
            assert_eq!(gauge.admission(at(call)), Admission::Share(WHOLE));
            gauge.observe(Sign::Bad, at(call));
        }
        assert_eq!(gauge.admission(at(1_010)), Admission::Closed);
        // Calls that were on their way change nothing.
        gauge.observe(Sign::Bad, at(1_100));
        assert_eq!(gauge.admission(at(6_009)), Admission::Trial);
        for trial in 0..3 {
            assert_eq!(gauge.admission(at(6_009 + trial)), Admission::Trial);
            gauge.on_trial(at(6_009 + trial));
            assert_eq!(gauge.admission(at(6_009 + trial)), Admission::Closed);
            gauge.observe(Sign::Good, at(6_009 + trial));
        }
        let mut levels = vec![gauge.level()];
        for second in 7..400 {
            gauge.observe(Sign::Good, at(second * 1_000));
            if levels.last() != Some(&gauge.level()) {
                levels.push(gauge.level());
            }
        }
        assert_eq!(levels, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn a_failed_trial_doubles_the_rest_up_to_a_quarter_of_an_hour() {
        let mut gauge = Gauge::new(at(0));
        let mut now = 0;
        (0..5).for_each(|_| gauge.observe(Sign::Bad, at(0)));
        let mut rests = Vec::new();
        for _ in 0..10 {
            let closed_at = now;
            while gauge.admission(at(now)) == Admission::Closed {
                now += 1_000;
            }
            rests.push((now - closed_at) / 1_000);
            gauge.on_trial(at(now));
            gauge.observe(Sign::Bad, at(now));
        }
        assert_eq!(rests, [5, 10, 20, 40, 80, 160, 320, 640, 900, 900]);
    }

    #[test]
    fn a_fault_closes_at_once_and_a_trial_that_was_lost_is_not_waited_for() {
        let mut gauge = Gauge::new(at(0));
        gauge.observe(Sign::Fault, at(0));
        assert!(gauge.is_faulty());
        assert_eq!(gauge.admission(at(4_999)), Admission::Closed);
        gauge.on_trial(at(5_000));
        assert_eq!(gauge.admission(at(64_999)), Admission::Closed);
        assert_eq!(gauge.admission(at(65_000)), Admission::Trial);
    }
}
