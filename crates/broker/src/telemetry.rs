//! Metrics of the broker links of both engines. Labels come from closed sets, and every handle is
//! created at start, so that counting needs no lookup.

use std::sync::Arc;
use std::time::Duration;

use watchword_events::Lane;
use watchword_metrics::prometheus::{Error, Histogram, IntCounter, IntGauge, Registry};
use watchword_metrics::{Kind, Maker, Series};

use crate::message::Route;
use crate::port::PublishError;

const PUBLISH: Series = Series {
    name: "watchword_publish_seconds",
    kind: Kind::Histogram(&[
        0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0,
    ]),
    labels: &["route", "result"],
    help: "Time from a publish to its confirm, by route (`lane` a work queue, `parked` a dead-letter queue, `event`) and result.",
    action: "Slow or `unconfirmed`: check the broker's disk and its quorum. `blocked`, `rejected`: an alarm or a full queue; callers get 503 until it clears.",
};
const CONNECTED: Series = Series {
    name: "watchword_broker_connected",
    kind: Kind::Gauge,
    labels: &[],
    help: "1 while publishing and consuming are possible.",
    action: "0: check that the broker runs and that user and virtual host are right. The log names the reason once.",
};
const CONNECTS: Series = Series {
    name: "watchword_broker_connects_total",
    kind: Kind::Counter,
    labels: &[],
    help: "Connections made to the broker, including the first.",
    action: "Growing: the link breaks repeatedly; check the network and the broker's log.",
};
const BLOCKED: Series = Series {
    name: "watchword_broker_blocked",
    kind: Kind::Gauge,
    labels: &[],
    help: "1 while the broker refuses publishes because of an alarm.",
    action: "1: free memory or disk on the broker's node; the alarm then clears by itself.",
};
const RECEIVED: Series = Series {
    name: "watchword_messages_received_total",
    kind: Kind::Counter,
    labels: &["lane"],
    help: "Messages delivered to this process.",
    action: "Flat while the queue holds messages: its consumers are stuck.",
};
const REDELIVERED: Series = Series {
    name: "watchword_messages_redelivered_total",
    kind: Kind::Counter,
    labels: &["lane"],
    help: "Messages that the broker had already delivered once before.",
    action: "Growing without restarts: processes crash or lose their link while they hold messages.",
};
const SETTLED: Series = Series {
    name: "watchword_messages_settled_total",
    kind: Kind::Counter,
    labels: &["lane", "how"],
    help: "Messages settled: `ack` done, `retry` moved to a wait queue, `park` dead-lettered, `requeue` returned to the queue, `late` expired after a retry and moved to the late queue.",
    action: "`park`: `watchword dead-letters list`. `requeue`: the store is unavailable.",
};
const QUEUED: Series = Series {
    name: "watchword_queue_messages",
    kind: Kind::Gauge,
    labels: &["lane", "state"],
    help: "Messages by queue: `ready`, `waiting` for a retry or expired, `parked` (dead-lettered). Every process reports its own sample; use the maximum.",
    action: "`ready` growing: add workers, or find the slow provider. `parked`: `watchword dead-letters list`.",
};
const CONSUMERS: Series = Series {
    name: "watchword_queue_consumers",
    kind: Kind::Gauge,
    labels: &["lane"],
    help: "Consumers of a queue. Every process reports its own sample; use the maximum.",
    action: "0: the role that reads the queue does not run, or has no link.",
};
const OLDEST: Series = Series {
    name: "watchword_queue_oldest_seconds",
    kind: Kind::Gauge,
    labels: &["lane"],
    help: "Upper bound of the age of the oldest ready message of a queue: the time since this process last saw no more ready messages than it has taken since. Use the minimum over processes. Too small until the process is older than the message.",
    action: "Near the lifetime of a code: messages expire in the queue. Add workers, or find the cause of the delay.",
};

/// All metrics of this crate.
pub const SERIES: &[Series] = &[
    PUBLISH,
    CONNECTED,
    CONNECTS,
    BLOCKED,
    RECEIVED,
    REDELIVERED,
    SETTLED,
    QUEUED,
    CONSUMERS,
    OLDEST,
];

const ROUTES: [&str; 3] = ["lane", "parked", "event"];
const RESULTS: [&str; 6] = [
    "confirmed",
    "unavailable",
    "blocked",
    "rejected",
    "unroutable",
    "unconfirmed",
];
const WAYS: [&str; 5] = ["ack", "retry", "park", "requeue", "late"];

/// Metrics of the broker links of one process; cheap to clone.
#[derive(Debug, Clone)]
pub struct BrokerMetrics(Arc<Handles>);

#[derive(Debug)]
struct Handles {
    /// Indexed by [`ROUTES`], then by [`RESULTS`].
    publish: [[Histogram; RESULTS.len()]; ROUTES.len()],
    connected: IntGauge,
    connects: IntCounter,
    blocked: IntGauge,
    lanes: [LaneMetrics; Lane::ALL.len()],
}

/// Metrics of one queue kind.
#[derive(Debug)]
pub(crate) struct LaneMetrics {
    received: IntCounter,
    redelivered: IntCounter,
    settled: [IntCounter; WAYS.len()],
    pub(crate) ready: IntGauge,
    pub(crate) waiting: IntGauge,
    pub(crate) parked: IntGauge,
    pub(crate) consumers: IntGauge,
    pub(crate) oldest_seconds: IntGauge,
}

impl LaneMetrics {
    /// Returns how many messages this process took, without redeliveries.
    pub(crate) fn taken(&self) -> u64 {
        self.received.get().saturating_sub(self.redelivered.get())
    }
}

impl BrokerMetrics {
    /// Registers the metrics; all series start at zero.
    pub fn register(registry: &Registry) -> Result<Self, Error> {
        let make = Maker::new(registry);
        let publish = make.histograms(&PUBLISH)?;
        let received = make.counters(&RECEIVED)?;
        let redelivered = make.counters(&REDELIVERED)?;
        let settled = make.counters(&SETTLED)?;
        let queued = make.gauges(&QUEUED)?;
        let consumers = make.gauges(&CONSUMERS)?;
        let oldest = make.gauges(&OLDEST)?;
        let lane = |lane: Lane| {
            let lane = lane.as_str();
            LaneMetrics {
                received: received.with_label_values(&[lane]),
                redelivered: redelivered.with_label_values(&[lane]),
                settled: WAYS.map(|how| settled.with_label_values(&[lane, how])),
                ready: queued.with_label_values(&[lane, "ready"]),
                waiting: queued.with_label_values(&[lane, "waiting"]),
                parked: queued.with_label_values(&[lane, "parked"]),
                consumers: consumers.with_label_values(&[lane]),
                oldest_seconds: oldest.with_label_values(&[lane]),
            }
        };
        Ok(Self(Arc::new(Handles {
            publish: ROUTES
                .map(|route| RESULTS.map(|result| publish.with_label_values(&[route, result]))),
            connected: make.gauge(&CONNECTED)?,
            connects: make.counter(&CONNECTS)?,
            blocked: make.gauge(&BLOCKED)?,
            lanes: Lane::ALL.map(lane),
        })))
    }

    pub(crate) fn connected(&self, up: bool) {
        self.0.connected.set(i64::from(up));
        if up {
            self.0.connects.inc();
        }
    }

    pub(crate) fn blocked(&self, blocked: bool) {
        self.0.blocked.set(i64::from(blocked));
    }

    pub(crate) fn published(
        &self,
        route: &Route,
        published: &Result<(), PublishError>,
        took: Duration,
    ) {
        let route = match route {
            Route::Lane(_) => 0,
            Route::Parked(..) => 1,
            Route::Event(_) => 2,
        };
        let result = match published {
            Ok(()) => 0,
            Err(PublishError::Unavailable) => 1,
            Err(PublishError::Blocked) => 2,
            Err(PublishError::Rejected) => 3,
            Err(PublishError::Unroutable) => 4,
            Err(PublishError::Unconfirmed) => 5,
        };
        self.0.publish[route][result].observe(took.as_secs_f64());
    }

    pub(crate) fn received(&self, lane: Lane, redelivered: bool) {
        let lane = self.lane(lane);
        lane.received.inc();
        if redelivered {
            lane.redelivered.inc();
        }
    }

    pub(crate) fn settled(&self, lane: Lane, how: &'static str) {
        let way = WAYS.iter().position(|way| *way == how);
        self.lane(lane).settled[way.unwrap_or_default()].inc();
    }

    pub(crate) fn lane(&self, lane: Lane) -> &LaneMetrics {
        &self.0.lanes[lane.place()]
    }
}
