//! What the issuer counts. Labels come from closed sets; series start at zero.

use prometheus::{IntCounterVec, Opts, Registry};
use watchword_broker::PublishError;
use watchword_chassis::{Problem, ProblemCode};
use watchword_core::Channel;

use crate::issuer::Stepped;

/// Counters of the issuer.
#[derive(Debug, Clone)]
pub struct IssuerMetrics {
    requests: IntCounterVec,
    published: IntCounterVec,
    parked: IntCounterVec,
    steps: IntCounterVec,
}

/// By which way a request came.
#[derive(Debug, Clone, Copy)]
pub enum Entry {
    /// `POST`.
    Http,
    /// `watchword.otp.requested`.
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

/// Why a request by event is put aside.
pub const PARK_REASONS: [&str; 6] = [
    "too_large",
    "not_an_event",
    "spec_version",
    "unknown_type",
    "bad_data",
    "unknown_user",
];

impl IssuerMetrics {
    /// Registers the counters.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let requests = counter(
            "watchword_requests_total",
            "Requests for a code or a resend, by way in and result: accepted, or the problem's code.",
            &["entry", "result"],
        )?;
        let published = counter(
            "watchword_sends_published_total",
            "Messages to send, by channel and what became of the publish.",
            &["channel", "result"],
        )?;
        let parked = counter(
            "watchword_requests_parked_total",
            "Requests by event put aside, by reason.",
            &["reason"],
        )?;
        let steps = counter(
            "watchword_fallback_steps_total",
            "Fallback steps that became due, by what became of them.",
            &["result"],
        )?;
        for stepped in Stepped::ALL {
            steps.with_label_values(&[stepped.as_str()]);
        }
        for entry in [Entry::Http, Entry::Event] {
            requests.with_label_values(&[entry.as_str(), "accepted"]);
            for code in ProblemCode::ALL {
                requests.with_label_values(&[entry.as_str(), code.as_str()]);
            }
        }
        for channel in Channel::ALL {
            for result in ["confirmed", "refused", "unconfirmed"] {
                published.with_label_values(&[channel.as_str(), result]);
            }
        }
        for reason in PARK_REASONS {
            parked.with_label_values(&[reason]);
        }
        Ok(Self {
            requests,
            published,
            parked,
            steps,
        })
    }

    pub(crate) fn answered<T>(&self, entry: Entry, answer: &Result<T, Problem>) {
        let result = answer
            .as_ref()
            .map_or_else(|problem| problem.code.as_str(), |_| "accepted");
        self.requests
            .with_label_values(&[entry.as_str(), result])
            .inc();
    }

    pub(crate) fn published(&self, channel: Channel, published: &Result<(), PublishError>) {
        let result = match published {
            Ok(()) => "confirmed",
            Err(PublishError::Unconfirmed) => "unconfirmed",
            Err(_) => "refused",
        };
        self.published
            .with_label_values(&[channel.as_str(), result])
            .inc();
    }

    pub(crate) fn stepped(&self, stepped: Stepped) {
        self.steps.with_label_values(&[stepped.as_str()]).inc();
    }

    pub(crate) fn parked(&self, reason: &'static str) {
        self.parked.with_label_values(&[reason]).inc();
    }
}
