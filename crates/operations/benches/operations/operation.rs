//! One operation with a name, called often: for its time, or for a simulator that counts. Refuses
//! one that does not do what it should, since a refusal costs less.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::ensure;

/// Calls before anything is counted: lazy tables are made and memory of the right sizes is at hand.
const WARM_UP_CALLS: u32 = 20;
/// Calls that are counted. `tests/counts` divides by it.
const COUNTED_CALLS: u32 = 100;

const BATCHES: usize = 50;
const BATCH: Duration = Duration::from_millis(4);

/// What is measured.
pub struct Operation {
    name: &'static str,
    call: Box<dyn Fn() -> bool>,
}

/// How long a call takes, over batches.
pub struct Time {
    pub least_ns: f64,
    pub median_ns: f64,
}

impl Operation {
    /// `call` gives `None` when it went wrong. What it makes is dropped within the call.
    pub fn new<T>(name: &'static str, call: impl Fn() -> Option<T> + 'static) -> Self {
        Self {
            name,
            call: Box::new(move || black_box(call()).is_some()),
        }
    }

    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Calls for the simulator, which writes down what it has each time [`Operation::warm_up`] or
    /// [`Operation::counted_calls`] returns: their names are what it goes by.
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
            ensure!(
                (self.call)(),
                "{}: it does not do what it should",
                self.name
            );
        }
        Ok(())
    }
}
