//! Named operation that is called repeatedly, to time it or to count its instructions. An operation
//! that fails ends the run, because a failing call costs less.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::ensure;

/// Calls before anything is counted, to initialize lazy tables and to warm the allocator.
const WARM_UP_CALLS: u32 = 20;
/// Number of counted calls. `tests/counts` divides by it.
const COUNTED_CALLS: u32 = 100;

const BATCHES: usize = 50;
const BATCH: Duration = Duration::from_millis(4);

/// Operation to measure.
pub struct Operation {
    name: &'static str,
    call: Box<dyn Fn() -> bool>,
}

/// Time per call, over all batches.
pub struct Time {
    pub least_ns: f64,
    pub median_ns: f64,
}

impl Operation {
    /// Creates an operation. `call` returns `None` if it fails. Its result is dropped within the
    /// call.
    pub fn new<T>(name: &'static str, call: impl Fn() -> Option<T> + 'static) -> Self {
        Self {
            name,
            call: Box::new(move || black_box(call()).is_some()),
        }
    }

    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Runs the calls for the simulator, which dumps its counters whenever [`Operation::warm_up`]
    /// or [`Operation::counted_calls`] returns. `tests/counts` refers to both by name.
    pub fn count(&self) -> anyhow::Result<()> {
        self.warm_up()?;
        self.counted_calls();
        Ok(())
    }

    #[inline(never)]
    fn counted_calls(&self) {
        for _ in 0..COUNTED_CALLS {
            black_box((self.call)());
        }
    }

    /// Times batches of calls.
    pub fn time(&self) -> anyhow::Result<Time> {
        self.warm_up()?;
        let once = self.batch(WARM_UP_CALLS) / WARM_UP_CALLS;
        let calls = u32::try_from(BATCH.as_nanos() / once.as_nanos().max(1))?.max(1);
        let mut times: Vec<f64> = (0..BATCHES)
            .map(|_| self.batch(calls).as_secs_f64() * 1e9 / f64::from(calls))
            .collect();
        times.sort_unstable_by(f64::total_cmp);
        Ok(Time {
            least_ns: times[0],
            median_ns: times[BATCHES / 2],
        })
    }

    fn batch(&self, calls: u32) -> Duration {
        let start = Instant::now();
        for _ in 0..calls {
            black_box((self.call)());
        }
        start.elapsed()
    }

    #[inline(never)]
    fn warm_up(&self) -> anyhow::Result<()> {
        for _ in 0..WARM_UP_CALLS {
            ensure!((self.call)(), "{}: the operation failed", self.name);
        }
        Ok(())
    }
}
