//! Metrics about store calls, the same for Redis and `SQLite`. No label names a key or a script.

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
    help: "Duration of calls, including failed ones: `script` and `command` of `redis`, `write` (until it is on disk) and `read` of `sqlite`.",
    action: "A rise means that the store's disk, memory or network is slow; every request waits for it.",
};
const ERRORS: Series = Series {
    name: "watchword_store_errors_total",
    kind: Kind::Counter,
    labels: &["store", "reason"],
    help: "Failed calls: `unavailable` (not reachable, full, read-only, no permission), `timeout`, `rejected` (the operation itself is invalid).",
    action: "Callers get 503 while it rises. `unavailable`: the log has the reason. `rejected`: a bug, or foreign data in the store; report it.",
};

/// All series of this crate.
pub const SERIES: &[Series] = &[SECONDS, ERRORS];

/// The kind of a store call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Call {
    Script,
    Command,
    Write,
    Read,
}

/// Metrics of one store; cheap to clone.
#[derive(Debug, Clone)]
pub struct StorageMetrics(Arc<Handles>);

#[derive(Debug)]
struct Handles {
    /// For scripts or writes.
    first: Histogram,
    /// For commands or reads.
    second: Histogram,
    unavailable: IntCounter,
    timeout: IntCounter,
    rejected: IntCounter,
}

impl StorageMetrics {
    /// Registers the metrics of Redis.
    pub fn redis(registry: &Registry) -> Result<Self, Error> {
        Self::register(registry, "redis", ["script", "command"])
    }

    /// Registers the metrics of the `SQLite` file.
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

    /// Counts a call that began at `begun`.
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
