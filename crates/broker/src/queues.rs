//! Queue depth and an upper bound of the age of waiting messages, from a sample every few seconds.
//! Handling a message costs nothing extra.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use watchword_events::Lane;
use watchword_metrics::prometheus::IntGauge;

use crate::telemetry::BrokerMetrics;

/// Interval between samples of the queues.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Samples kept for each queue; beyond this, every second one is dropped.
const LOOKS: usize = 200;

/// The samples of all queues.
#[derive(Debug, Default)]
pub(crate) struct Queues([Watched; Lane::ALL.len()]);

impl Queues {
    /// Records that `lane` has `ready` waiting messages at `now`, and updates the gauges.
    pub(crate) fn ready(&mut self, lane: Lane, ready: u64, metrics: &BrokerMetrics, now: Instant) {
        let metrics = metrics.lane(lane);
        let oldest = self.0[lane.place()].look(ready, metrics.taken(), now);
        set(&metrics.ready, ready);
        set(&metrics.oldest_seconds, oldest.as_secs());
    }
}

/// Sets a gauge, saturating at the largest `i64`.
pub(crate) fn set(gauge: &IntGauge, number: u64) {
    gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
}

/// The samples of one queue. The first one bounds the age of the waiting messages.
#[derive(Debug, Default)]
struct Watched(VecDeque<Look>);

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    ready: u64,
    taken: u64,
}

impl Watched {
    /// Adds a sample and returns the largest age that a waiting message can have. Queues are read
    /// in order: once as many messages were taken as an earlier sample saw waiting, all of those
    /// are gone, and every waiting message is younger than that sample. Other processes take
    /// messages too, which this process does not see, so the true age is at most the returned one.
    fn look(&mut self, ready: u64, taken: u64, now: Instant) -> Duration {
        let at = now;
        self.0.push_back(Look { at, ready, taken });
        let gone = |look: &Look| taken.saturating_sub(look.taken) >= look.ready;
        let last_gone = self.0.iter().rposition(gone).unwrap_or(0);
        self.0.drain(..last_gone);
        if self.0.len() > LOOKS {
            // Keep the first sample: the age counts from it.
            let mut place = 0;
            self.0.retain(|_| {
                place += 1;
                place == 1 || place % 2 == 0
            });
        }
        self.0
            .front()
            .filter(|_| ready > 0)
            .map_or(Duration::ZERO, |first| now.duration_since(first.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the bound in seconds after each of `looks`: (ready, taken since the previous
    /// sample), one every 5 s.
    fn bounds(looks: &[(u64, u64)]) -> Vec<u64> {
        let (mut watched, mut taken, begun) = (Watched::default(), 0, Instant::now());
        let mut bounds = Vec::new();
        for (index, (ready, newly)) in (0_u32..).zip(looks) {
            taken += newly;
            let now = begun + Duration::from_secs(5) * index;
            bounds.push(watched.look(*ready, taken, now).as_secs());
        }
        bounds
    }

    #[test]
    fn an_empty_lane_has_no_age_and_a_busy_one_is_young() {
        assert_eq!(bounds(&[(0, 0), (0, 10), (3, 100), (5, 90)]), [0, 0, 5, 5]);
    }

    #[test]
    fn a_lane_nobody_takes_from_grows_old() {
        assert_eq!(bounds(&[(0, 0), (4, 0), (9, 0), (9, 0)]), [0, 5, 10, 15]);
    }

    #[test]
    fn a_backlog_is_as_old_as_the_look_whose_messages_are_taken() {
        // 100 wait at 5 s; 60 are taken by 10 s and 120 by 15 s, so all that waited at 5 s are
        // gone.
        let looks = [(0, 0), (100, 0), (140, 60), (180, 60), (180, 150)];
        assert_eq!(bounds(&looks), [0, 5, 10, 10, 10]);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_first_stays() {
        let looks = vec![(1, 0); 3 * LOOKS];
        let bounds = bounds(&looks);
        assert_eq!(bounds.last(), Some(&(5 * (3 * LOOKS as u64 - 1))));
    }
}
