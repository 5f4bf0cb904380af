//! Metrics of the issuer. Labels come from closed sets, and series start at zero.

use std::sync::Arc;
use std::time::Duration;

use watchword_broker::{DeadLetterReason, PublishError};
use watchword_chassis::{ProblemCode, Services};
use watchword_core::Channel;
use watchword_metrics::prometheus::{Error, Gauge, Histogram, IntCounter, IntCounterVec, Registry};
use watchword_metrics::{Kind, LATENCY, Maker, Series};

use crate::limits::Limit;
use crate::stepper::Stepped;

const REQUESTS: Series = Series {
    name: "watchword_requests_total",
    kind: Kind::Counter,
    labels: &["entry", "result"],
    help: "Requests for a code or a resend, by entry point (`http`, `event`) and result: `accepted`, or the problem code.",
    action: "`broker_unavailable`, `store_unavailable`: see the series of the broker and the store. `rate_limited`, `cooldown`, `subject_locked`: traffic of one caller, or an attack. `unauthorized`: an API key that no service has.",
};
const SECONDS: Series = Series {
    name: "watchword_request_seconds",
    kind: Kind::Histogram(LATENCY),
    labels: &[],
    help: "Time to answer a request over HTTP after its body arrived: store, limits and the broker's confirm.",
    action: "If it rises, compare `watchword_store_call_seconds` and `watchword_publish_seconds`.",
};
const PUBLISHED: Series = Series {
    name: "watchword_sends_published_total",
    kind: Kind::Counter,
    labels: &["channel", "result"],
    help: "Published send orders: `confirmed` by the broker, `refused`, or `unconfirmed` before the deadline.",
    action: "`refused` or `unconfirmed`: check the broker. Callers get 503 and may retry.",
};
const PARKED: Series = Series {
    name: "watchword_requests_parked_total",
    kind: Kind::Counter,
    labels: &["reason"],
    help: "Requests by event that were dead-lettered, by reason.",
    action: "`watchword dead-letters list --queue requests`, then fix the publisher. `unknown_user`: no service has the user in `broker_users`. `wrong_queue`: a user published into another service's request queue; set topic permissions. `expired`, `delivery_limit`: no issuer answered in time, or issuers died or lost their connection; the answer was `request_expired`.",
};
const STEPS: Series = Series {
    name: "watchword_fallback_steps_total",
    kind: Kind::Counter,
    labels: &["result"],
    help: "Fallback steps that became due, by result.",
    action: "Many `sent`: the first channel does not reach people.",
};
const LIMITED: Series = Series {
    name: "watchword_limit_refusals_total",
    kind: Kind::Counter,
    labels: &["limit"],
    help: "Messages and requests that a send limit refused, by limit: `cooldown`, or its key in `[services.NAME.limits]`. Includes fallback steps.",
    action: "`number_block_per_hour`, `country_per_day`, `client_per_hour`: someone requests codes to profit from the messages (SMS pumping), or the limit is too low for your users. `subject_per_hour`, `recipient_per_hour`, `recipient_per_day`: one person; `watchword unlock` clears these counters.",
};
const LIFETIME: Series = Series {
    name: "watchword_code_lifetime_seconds",
    kind: Kind::Gauge,
    labels: &[],
    help: "The shortest configured lifetime of a code over all services.",
    action: "None: alerts compare ages with it.",
};

/// All series of this crate.
pub const SERIES: &[Series] = &[
    REQUESTS, SECONDS, PUBLISHED, PARKED, STEPS, LIMITED, LIFETIME,
];

const PUBLISH_RESULTS: [&str; 3] = ["confirmed", "refused", "unconfirmed"];

/// Metrics of the issuer; cheap to clone.
#[derive(Debug, Clone)]
pub struct IssuerMetrics(Arc<Handles>);

#[derive(Debug)]
struct Handles {
    /// By entry point: accepted requests, then refused ones by problem code.
    requests: [(IntCounter, Vec<IntCounter>); 2],
    seconds: Histogram,
    /// By channel, then by [`PUBLISH_RESULTS`].
    published: [[IntCounter; PUBLISH_RESULTS.len()]; Channel::ALL.len()],
    parked: IntCounterVec,
    steps: IntCounterVec,
    /// In the order of [`Limit::ALL`].
    limited: [IntCounter; Limit::ALL.len()],
    lifetime_seconds: Gauge,
}

/// The entry point of a request.
#[derive(Debug, Clone, Copy)]
pub enum Entry {
    /// An HTTP request for a code or a resend.
    Http,
    /// An event of type `watchword.otp.requested.v1`.
    Event,
}

impl Entry {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Event => "event",
        }
    }
}

/// The reasons for which a request by event is dead-lettered.
const DEAD_LETTER_REASONS: [DeadLetterReason; 9] = [
    DeadLetterReason::TooLarge,
    DeadLetterReason::NotAnEvent,
    DeadLetterReason::SpecVersion,
    DeadLetterReason::UnknownType,
    DeadLetterReason::BadData,
    DeadLetterReason::UnknownUser,
    DeadLetterReason::WrongQueue,
    DeadLetterReason::Expired,
    DeadLetterReason::DeliveryLimit,
];

impl IssuerMetrics {
    /// Registers the metrics.
    pub fn register(registry: &Registry) -> Result<Self, Error> {
        let make = Maker::new(registry);
        let requests = make.counters(&REQUESTS)?;
        let published = make.counters(&PUBLISHED)?;
        let parked = make.counters(&PARKED)?;
        let limited = make.counters(&LIMITED)?;
        let steps = make.counters(&STEPS)?;
        for stepped in Stepped::ALL {
            steps.with_label_values(&[stepped.as_str()]);
        }
        for reason in DEAD_LETTER_REASONS {
            parked.with_label_values(&[reason.as_str()]);
        }
        let answers = |entry: Entry| {
            let of = |result| requests.with_label_values(&[entry.as_str(), result]);
            let problems = ProblemCode::ALL.iter();
            let problems = problems.map(|code| of(code.as_str())).collect();
            (of("accepted"), problems)
        };
        let publishes = |channel: Channel| {
            PUBLISH_RESULTS.map(|result| published.with_label_values(&[channel.as_str(), result]))
        };
        Ok(Self(Arc::new(Handles {
            requests: [Entry::Http, Entry::Event].map(answers),
            seconds: make.histogram(&SECONDS)?,
            published: Channel::ALL.map(publishes),
            parked,
            steps,
            limited: Limit::ALL.map(|limit| limited.with_label_values(&[limit.as_str()])),
            lifetime_seconds: make.fraction(&LIFETIME)?,
        })))
    }

    /// Sets the gauge of the shortest lifetime from the configured services.
    pub fn serves(&self, services: &Services) {
        let lives = services.iter().map(|service| service.policy.lifetime_ms);
        if let Some(shortest) = lives.min() {
            let shortest = Duration::from_millis(shortest);
            self.0.lifetime_seconds.set(shortest.as_secs_f64());
        }
    }

    /// Records how long the answer to a request over HTTP took.
    pub(crate) fn took(&self, took: Duration) {
        self.0.seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn accepted(&self, entry: Entry) {
        self.0.requests[entry as usize].0.inc();
    }

    pub(crate) fn refused(&self, entry: Entry, code: ProblemCode) {
        self.0.requests[entry as usize].1[code as usize].inc();
    }

    pub(crate) fn published(&self, channel: Channel, published: &Result<(), PublishError>) {
        let result = match published {
            Ok(()) => 0,
            Err(PublishError::Unconfirmed) => 2,
            Err(_) => 1,
        };
        self.0.published[channel as usize][result].inc();
    }

    pub(crate) fn limited(&self, limit: Limit) {
        self.0.limited[limit as usize].inc();
    }

    pub(crate) fn stepped(&self, stepped: Stepped) {
        let steps = &self.0.steps;
        steps.with_label_values(&[stepped.as_str()]).inc();
    }

    pub(crate) fn dead_lettered(&self, reason: DeadLetterReason) {
        self.0.parked.with_label_values(&[reason.as_str()]).inc();
    }
}
