//! What calls of a store cost and how they fail, the same for both stores. Refuses to name a key or a
//! script.

use std::sync::Arc;
use std::time::Instant;

use watchword_metrics::prometheus::{Error, Histogram, IntCounter, Registry};
use watchword_metrics::{Kind, Maker, Series};

use crate::StorageError;

const SECONDS: Series = Series {
    name: "watchword_store_call_seconds",
    kind: Kind::Histogram(&[
        0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
    ]),
    labels: &["store", "call"],
    help: "How long a call took, also one that failed: `script` and `command` of `redis`, `write` (until it is on disk) and `read` of `sqlite`.",
    action: "Slow: the store's disk, its memory or the network; everything waits for it.",
};
const ERRORS: Series = Series {
    name: "watchword_store_errors_total",
    kind: Kind::Counter,
    labels: &["store", "reason"],
    help: "Calls without an answer: `unavailable` (away, full, read-only, no rights), `timeout`, `rejected` (wrong in itself).",
    action: "Callers get 503 meanwhile. `unavailable`: the log says why. `rejected`: a fault of ours, or someone else's data; report it.",
};

/// Everything this crate counts.
pub const SERIES: &[Series] = &[SECONDS, ERRORS];

/// What was asked of a store.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call {
    Script,
    Command,
    Write,
    Read,
}

/// Counters of one store; cheap to clone.
#[derive(Debug, Clone)]
pub struct StorageMetrics(Arc<Handles>);

#[derive(Debug)]
struct Handles {
    /// Of scripts or writes.
    first: Histogram,
    /// Of commands or reads.
    second: Histogram,
    unavailable: IntCounter,
    timeout: IntCounter,
    rejected: IntCounter,
}

impl StorageMetrics {
    /// Registers those of Redis.
    pub fn redis(registry: &Registry) -> Result<Self, Error> {
        Self::register(registry, "redis", ["script", "command"])
    }

    /// Registers those of the `SQLite` file.
    pub fn sqlite(registry: &Registry) -> Result<Self, Error> {
        Self::register(registry, "sqlite", ["write", "read"])
    }

    fn register(registry: &Registry, store: &str, calls: [&str; 2]) -> Result<Self, Error> {
        let make = Maker::fixed(registry, "store", store);
        let (seconds, errors) = (make.histograms(&SECONDS)?, make.counters(&ERRORS)?);
        let [first, second] = calls.map(|call| seconds.with_label_values(&[call]));
        Ok(Self(Arc::new(Handles {
            first,
            second,
            unavailable: errors.with_label_values(&["unavailable"]),
            timeout: errors.with_label_values(&["timeout"]),
            rejected: errors.with_label_values(&["rejected"]),
        })))
    }

    /// A call that `begun` then has ended.
    pub(crate) fn called(&self, call: Call, begun: Instant, error: Option<&StorageError>) {
        let seconds = match call {
            Call::Script | Call::Write => &self.0.first,
            Call::Command | Call::Read => &self.0.second,
        };
        seconds.observe(begun.elapsed().as_secs_f64());
        match error {
            None => {}
            Some(StorageError::Unavailable(_) | StorageError::Config(_)) => {
                self.0.unavailable.inc();
            }
            Some(StorageError::Timeout) => self.0.timeout.inc(),
            Some(StorageError::Rejected(_)) => self.0.rejected.inc(),
        }
    }
}
