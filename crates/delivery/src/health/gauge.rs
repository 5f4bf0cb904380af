//! The circuit breaker of one provider, or of one provider in one region: a health score from 0
//! (circuit open) to 10 (full share), as a pure state machine over observations and their times; it
//! reads no clock. The score falls fast and rises one step at a time. A gap between the two
//! thresholds gives a provider of constant quality a constant share; a simulated month in
//! `route/tests.rs` holds the constants below to that.

use watchword_core::Timestamp;

/// The health score of a provider without failures.
pub(super) const WHOLE: u8 = 10;

/// Half-life of the weighted counts of successes and failures.
const HALF_LIFE_MS: f64 = 120_000.0;
/// With fewer weighted observations the rate of failures is not judged.
const FEW: f64 = 10.0;
/// Above this rate of failures the circuit opens.
const BROKEN: f64 = 0.5;
/// Above this rate of failures the share shrinks.
const POOR: f64 = 0.15;
/// Below this rate of failures the share grows. The gap to `POOR` prevents oscillation.
const GOOD: f64 = 0.05;
/// Consecutive failures that open the circuit, however good the provider was before.
pub(super) const IN_A_ROW: u32 = 10;
/// The same for low traffic, which means fewer weighted observations than `NEXT_TO_NONE`.
const IN_A_ROW_OF_FEW: u32 = 5;
const NEXT_TO_NONE: f64 = 6.0;
/// Consecutive successes that also raise a score. A provider that fails three calls of ten reaches
/// this number once in 50,000 tries.
const GOOD_IN_A_ROW: u32 = 30;
/// The same for low traffic, and the least time between two such steps.
const GOOD_IN_A_ROW_OF_FEW: u32 = 5;
const STEP_UP_OF_FEW_MS: u64 = 300_000;
/// The least time between two steps down, and between two steps up.
const STEP_DOWN_MS: u64 = 10_000;
const STEP_UP_MS: u64 = 30_000;
/// Backoff of an open circuit: doubled with each failed probe, reset after the provider kept its
/// full share for `CALM_MS`.
const FIRST_REST_MS: u64 = 5_000;
const LONGEST_REST_MS: u64 = 900_000;
/// The longest backoff for a fault that an operator fixes. A refused call is fast and costs little,
/// and without another provider all orders wait for the probe that finds the fault fixed.
const LONGEST_FAULTY_REST_MS: u64 = 5_000;
const CALM_MS: u64 = 600_000;
/// Consecutive half-open probes that must succeed before the circuit closes.
const PROBES: u8 = 3;
/// A probe without a reported outcome is forgotten after this time.
const PROBE_MS: u64 = 60_000;

/// An observed outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// The provider accepted a message in time.
    Good,
    /// The provider accepted a message, but slowly.
    Slow,
    /// The call failed or timed out.
    Bad,
    /// The provider refuses our account until an operator fixes it.
    Fault,
}

/// The part of its share that a provider may get now, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Admission {
    /// The provider must not be called: it refuses our account, or it asked to wait.
    Barred,
    /// The provider may be called only if no other provider can be.
    LastResort,
    /// A single message may be sent, as a half-open probe.
    Probe,
    /// The provider gets this many tenths of its share.
    Share(u8),
}

/// The state of one circuit breaker.
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
    rests_until: Timestamp,
    faulty: bool,
    probe_at: Option<Timestamp>,
    probes: u8,
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
            // Not `now`: after the clock is set back, the circuit would stay open until then.
            rests_until: Timestamp::from_millis(0),
            faulty: false,
            probe_at: None,
            probes: 0,
        }
    }

    pub(super) const fn level(&self) -> u8 {
        self.level
    }

    /// Returns whether the provider refused our account, which only an operator can fix.
    pub(super) const fn is_faulty(&self) -> bool {
        self.faulty
    }

    /// Returns whether the circuit is open or half-open.
    pub(super) const fn is_open(&self) -> bool {
        self.level == 0
    }

    /// Returns whether the circuit is in backoff at `now`. A remaining time above the maximum was
    /// recorded before the clock was set back and does not count.
    pub(super) fn rests(&self, now: Timestamp) -> bool {
        (1..=LONGEST_REST_MS).contains(&self.rests_until.millis_since(now))
    }

    /// Returns how long the circuit has been half-open.
    pub(super) fn half_open_ms(&self, now: Timestamp) -> u64 {
        if self.rests_until > now {
            // The clock was set back.
            return LONGEST_REST_MS;
        }
        now.millis_since(self.rests_until)
    }

    pub(super) fn admission(&self, now: Timestamp) -> Admission {
        let rests = self.rests(now);
        if self.level > 0 {
            // A closed circuit is in backoff only if the provider asked to wait.
            let share = Admission::Share(self.level);
            return if rests { Admission::Barred } else { share };
        }
        let is_probed = self
            .probe_at
            .is_some_and(|at| at <= now && now < at.plus_millis(PROBE_MS));
        if rests || is_probed {
            self.refusal()
        } else {
            Admission::Probe
        }
    }

    /// Returns the admission of messages that may not be a half-open probe while the circuit is
    /// open.
    pub(super) const fn refusal(&self) -> Admission {
        if self.faulty {
            Admission::Barred
        } else {
            Admission::LastResort
        }
    }

    /// Records that a message is in flight as a half-open probe.
    pub(super) const fn on_probe(&mut self, now: Timestamp) {
        self.probe_at = Some(now);
    }

    /// Records that the probe, if there was one, ended without evidence about this circuit. The
    /// next message may be a probe immediately.
    pub(super) const fn release(&mut self) {
        self.probe_at = None;
    }

    /// Starts a backoff of `rest_ms`, as the provider asked.
    pub(super) fn rest(&mut self, now: Timestamp, rest_ms: u64) {
        let until = now.plus_millis(rest_ms.min(LONGEST_REST_MS));
        self.rests_until = if self.rests(now) {
            self.rests_until.max(until)
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
            self.open(now);
        } else if self.is_open() {
            self.probed(sign == Sign::Good, now);
        } else if self.is_broken() {
            self.open(now);
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

    /// Returns whether the rate of failures exceeds `part` beyond chance: by twice the standard
    /// deviation of this number of failures. Without that margin, the score of a provider of
    /// constant quality would keep drifting up and down.
    fn is_surely_above(&self, part: f64) -> bool {
        let seen = self.good + self.bad;
        seen >= FEW && self.bad - 2.0 * self.bad.sqrt() > part * seen
    }

    /// Returns whether so many calls succeeded that one more failure would not change the verdict.
    fn is_surely_good(&self) -> bool {
        self.bad + 1.0 <= GOOD * (self.good + self.bad)
    }

    /// Opens the circuit. Does nothing if it is open and in backoff, except for a new fault.
    pub(super) fn open(&mut self, now: Timestamp) {
        // Ignore failures of calls already in flight when the circuit opened.
        if self.is_open() && self.rests(now) {
            if self.faulty {
                // From now on the circuit bars the provider entirely, which must not last as long
                // as the backoff after failed calls.
                let latest = now.plus_millis(LONGEST_FAULTY_REST_MS);
                self.rests_until = self.rests_until.min(latest);
            }
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
        self.rests_until = now.plus_millis(self.rest_ms.min(longest_ms));
        self.rest_ms = (self.rest_ms * 2).min(LONGEST_REST_MS);
        (self.level, self.changed_at) = (0, now);
        (self.probe_at, self.probes) = (None, 0);
    }

    fn probed(&mut self, succeeded: bool, now: Timestamp) {
        if self.rests(now) {
            return;
        }
        self.probe_at = None;
        if !succeeded {
            self.open(now);
            return;
        }
        self.probes += 1;
        if self.probes >= PROBES {
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
    fn a_fixed_fault_is_found_within_seconds_however_long_it_lasted() {
        let mut gauge = Gauge::new(at(0));
        let mut now_ms = 0;
        for _ in 0..20 {
            gauge.observe(Sign::Fault, at(now_ms));
            now_ms += 5_000;
            assert_eq!(gauge.admission(at(now_ms)), Admission::Probe);
            gauge.on_probe(at(now_ms));
        }
    }

    #[test]
    fn a_clock_that_is_set_back_opens_no_circuit() {
        const HOUR_MS: u64 = 3_600_000;
        let mut gauge = Gauge::new(at(2 * HOUR_MS));
        let back = at(2 * HOUR_MS - 310_000);
        assert_eq!(gauge.admission(back), Admission::Share(WHOLE));
        // A backoff that was requested before the clock was set back does not count either.
        gauge.rest(at(2 * HOUR_MS), 10_000);
        assert_eq!(gauge.admission(at(HOUR_MS)), Admission::Share(WHOLE));
        gauge.rest(at(HOUR_MS), 10_000);
        assert_eq!(gauge.admission(at(HOUR_MS)), Admission::Barred);
        let rested = at(HOUR_MS + 10_000);
        assert_eq!(gauge.admission(rested), Admission::Share(WHOLE));
        // A probe that was sent before the clock was set back does not count either.
        gauge.observe(Sign::Fault, at(2 * HOUR_MS));
        gauge.on_probe(at(2 * HOUR_MS + 5_000));
        assert_eq!(gauge.admission(at(HOUR_MS)), Admission::Probe);
        assert!(gauge.half_open_ms(at(HOUR_MS)) > 5_000);
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
        assert_eq!(gauge.admission(at(1_010)), Admission::LastResort);
        // Calls already in flight change nothing.
        gauge.observe(Sign::Bad, at(1_100));
        assert_eq!(gauge.admission(at(6_009)), Admission::Probe);
        for probe in 0..3 {
            assert_eq!(gauge.admission(at(6_009 + probe)), Admission::Probe);
            gauge.on_probe(at(6_009 + probe));
            assert_eq!(gauge.admission(at(6_009 + probe)), Admission::LastResort);
            gauge.observe(Sign::Good, at(6_009 + probe));
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
    fn a_failed_probe_doubles_the_rest_up_to_a_quarter_of_an_hour() {
        let mut gauge = Gauge::new(at(0));
        let mut now = 0;
        (0..5).for_each(|_| gauge.observe(Sign::Bad, at(0)));
        let mut rests = Vec::new();
        for _ in 0..10 {
            let opened_at = now;
            while gauge.admission(at(now)) == Admission::LastResort {
                now += 1_000;
            }
            rests.push((now - opened_at) / 1_000);
            gauge.on_probe(at(now));
            gauge.observe(Sign::Bad, at(now));
        }
        assert_eq!(rests, [5, 10, 20, 40, 80, 160, 320, 640, 900, 900]);
    }

    #[test]
    fn a_fault_during_a_long_rest_bars_for_five_seconds_only() {
        let mut gauge = Gauge::new(at(0));
        (0..5).for_each(|_| gauge.observe(Sign::Bad, at(0)));
        let mut now = 0;
        for _ in 0..9 {
            now += LONGEST_REST_MS;
            assert_eq!(gauge.admission(at(now)), Admission::Probe);
            gauge.on_probe(at(now));
            gauge.observe(Sign::Bad, at(now));
        }
        now += 1_000;
        assert_eq!(gauge.admission(at(now)), Admission::LastResort);
        gauge.observe(Sign::Fault, at(now));
        assert_eq!(gauge.admission(at(now + 4_999)), Admission::Barred);
        assert_eq!(gauge.admission(at(now + 5_000)), Admission::Probe);
    }

    #[test]
    fn a_fault_opens_at_once_and_a_lost_probe_is_not_waited_for() {
        let mut gauge = Gauge::new(at(0));
        gauge.observe(Sign::Fault, at(0));
        assert!(gauge.is_faulty());
        assert_eq!(gauge.admission(at(4_999)), Admission::Barred);
        gauge.on_probe(at(5_000));
        assert_eq!(gauge.admission(at(64_999)), Admission::Barred);
        assert_eq!(gauge.admission(at(65_000)), Admission::Probe);
        // A probe without evidence about the account makes room for the next one at once.
        gauge.on_probe(at(65_000));
        gauge.release();
        assert_eq!(gauge.admission(at(65_001)), Admission::Probe);
    }
}
