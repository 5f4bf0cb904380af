//! What the links to the queues count, for either engine. Labels come from closed sets; series
//! start at zero.

use std::time::Duration;

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};
use watchword_events::Lane;

use crate::message::Route;
use crate::port::PublishError;

/// Counters of the broker links of one process.
#[derive(Debug, Clone)]
pub struct BrokerMetrics {
    publish_seconds: HistogramVec,
    connected: IntGauge,
    connects: IntCounter,
    blocked: IntGauge,
    received: IntCounterVec,
    redelivered: IntCounterVec,
    settled: IntCounterVec,
}

const RESULTS: [&str; 6] = [
    "confirmed",
    "unavailable",
    "blocked",
    "rejected",
    "unroutable",
    "unconfirmed",
];
const WAYS: [&str; 4] = ["ack", "retry", "park", "requeue"];

impl BrokerMetrics {
    /// Registers the counters.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let publish_opts = HistogramOpts::new(
            "watchword_publish_seconds",
            "How long a publish took until its confirm, by kind of route and result.",
        )
        .buckets(vec![
            0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0,
        ]);
        let metrics = Self {
            publish_seconds: HistogramVec::new(publish_opts, &["route", "result"])?,
            connected: IntGauge::new(
                "watchword_broker_connected",
                "1 while publishing and consuming are possible.",
            )?,
            connects: IntCounter::new(
                "watchword_broker_connects_total",
                "Connections made to the broker, the first included.",
            )?,
            blocked: IntGauge::new(
                "watchword_broker_blocked",
                "1 while the broker refuses publishes because of an alarm.",
            )?,
            received: counters(
                "watchword_messages_received_total",
                "Messages handed out, by lane.",
                &["lane"],
            )?,
            redelivered: counters(
                "watchword_messages_redelivered_total",
                "Messages handed out again, by lane.",
                &["lane"],
            )?,
            settled: counters(
                "watchword_messages_settled_total",
                "Messages settled, by lane and way.",
                &["lane", "how"],
            )?,
        };
        registry.register(Box::new(metrics.publish_seconds.clone()))?;
        registry.register(Box::new(metrics.connected.clone()))?;
        registry.register(Box::new(metrics.connects.clone()))?;
        registry.register(Box::new(metrics.blocked.clone()))?;
        registry.register(Box::new(metrics.received.clone()))?;
        registry.register(Box::new(metrics.redelivered.clone()))?;
        registry.register(Box::new(metrics.settled.clone()))?;
        metrics.start_at_zero();
        Ok(metrics)
    }

    fn start_at_zero(&self) {
        for route in ["lane", "parked", "event"] {
            for result in RESULTS {
                self.publish_seconds.with_label_values(&[route, result]);
            }
        }
        for lane in Lane::ALL {
            self.received.with_label_values(&[lane.as_str()]);
            self.redelivered.with_label_values(&[lane.as_str()]);
            for how in WAYS {
                self.settled.with_label_values(&[lane.as_str(), how]);
            }
        }
    }

    pub(crate) fn connected(&self, up: bool) {
        self.connected.set(i64::from(up));
        if up {
            self.connects.inc();
        }
    }

    pub(crate) fn blocked(&self, blocked: bool) {
        self.blocked.set(i64::from(blocked));
    }

    pub(crate) fn published(
        &self,
        route: &Route,
        published: &Result<(), PublishError>,
        took: Duration,
    ) {
        let route = match route {
            Route::Lane(_) => "lane",
            Route::Parked(..) => "parked",
            Route::Event(_) => "event",
        };
        let result = match published {
            Ok(()) => "confirmed",
            Err(PublishError::Unavailable) => "unavailable",
            Err(PublishError::Blocked) => "blocked",
            Err(PublishError::Rejected) => "rejected",
            Err(PublishError::Unroutable) => "unroutable",
            Err(PublishError::Unconfirmed) => "unconfirmed",
        };
        self.publish_seconds
            .with_label_values(&[route, result])
            .observe(took.as_secs_f64());
    }

    pub(crate) fn received(&self, lane: Lane, redelivered: bool) {
        self.received.with_label_values(&[lane.as_str()]).inc();
        if redelivered {
            self.redelivered.with_label_values(&[lane.as_str()]).inc();
        }
    }

    pub(crate) fn settled(&self, lane: Lane, how: &'static str) {
        self.settled.with_label_values(&[lane.as_str(), how]).inc();
    }
}

fn counters(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name, help), labels)
}
