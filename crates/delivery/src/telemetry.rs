//! What a worker counts. Labels come from closed sets and the config; series start at zero.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};
use watchword_core::{AttemptClass, Channel, DeliveryOutcome, ProviderName, ReceiptState};

/// From 5 ms (a healthy pipeline) to 300 s (the life of a code).
const AGE_BUCKETS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 120.0, 300.0,
];

/// What a receipt changed.
const RECEIPT_RESULTS: [&str; 3] = ["counted", "repeated", "unknown"];

/// Why an order is put aside.
pub(crate) const PARK_REASONS: [&str; 10] = [
    "too_large",
    "not_an_event",
    "spec_version",
    "unknown_type",
    "bad_data",
    "unknown_key",
    "broken_seal",
    "malformed_order",
    "wrong_channel",
    "unknown_service",
];

/// Counters of one worker.
#[derive(Debug, Clone)]
pub struct DeliveryMetrics {
    channel: Channel,
    attempts: IntCounterVec,
    attempt_seconds: HistogramVec,
    ended: IntCounterVec,
    parked: IntCounterVec,
    pub(crate) age_seconds: Histogram,
    pub(crate) retries: IntCounter,
    pub(crate) redeliveries: IntCounter,
    pub(crate) repeats: IntCounter,
    pub(crate) after_crash: IntCounter,
    pub(crate) past_deadline: IntCounter,
    pub(crate) events_dropped: IntCounter,
    pub(crate) in_flight: IntGauge,
    pub(crate) failovers: IntCounter,
    pub(crate) nobody: IntCounter,
    provider_share: IntGaugeVec,
    receipts: IntCounterVec,
}

impl DeliveryMetrics {
    #[expect(clippy::too_many_lines, reason = "a list")]
    /// Registers the counters of the worker of `channel` that sends through `providers`.
    pub fn register(
        registry: &Registry,
        channel: Channel,
        providers: &[&ProviderName],
    ) -> Result<Self, prometheus::Error> {
        let opts =
            |name: &str, help: &str| Opts::new(name, help).const_label("channel", channel.as_str());
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(opts(name, help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::with_opts(opts(name, help))?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let attempts = counters(
            "watchword_attempts_total",
            "Calls of a provider, by how they ended.",
            &["provider", "class"],
        )?;
        let ended = counters(
            "watchword_deliveries_ended_total",
            "Deliveries that ended, by outcome.",
            &["outcome"],
        )?;
        let parked = counters(
            "watchword_orders_parked_total",
            "Orders put aside, by reason.",
            &["reason"],
        )?;
        let attempt_opts = HistogramOpts::from(opts(
            "watchword_attempt_seconds",
            "How long a provider's call took.",
        ))
        .buckets(AGE_BUCKETS.to_vec());
        let attempt_seconds = HistogramVec::new(attempt_opts, &["provider"])?;
        registry.register(Box::new(attempt_seconds.clone()))?;
        let age_opts = HistogramOpts::from(opts(
            "watchword_handover_age_seconds",
            "Age of an order when a provider accepted it, from the moment it was sealed.",
        ))
        .buckets(AGE_BUCKETS.to_vec());
        let age_seconds = Histogram::with_opts(age_opts)?;
        registry.register(Box::new(age_seconds.clone()))?;
        let in_flight = IntGauge::with_opts(opts(
            "watchword_deliveries_in_flight",
            "Orders in work now.",
        ))?;
        registry.register(Box::new(in_flight.clone()))?;

        let provider_share = IntGaugeVec::new(
            opts(
                "watchword_provider_share_tenths",
                "What a provider may get of its share, 0 to 10, in its worst country. 0: closed off.",
            ),
            &["provider"],
        )?;
        registry.register(Box::new(provider_share.clone()))?;
        let receipts = counters(
            "watchword_receipts_total",
            "Receipts by what they said and what that changed.",
            &["provider", "state", "result"],
        )?;
        for provider in providers.iter().map(|name| name.as_str()) {
            for class in AttemptClass::ALL {
                attempts.with_label_values(&[provider, class.as_str()]);
            }
            attempt_seconds.with_label_values(&[provider]);
            provider_share.with_label_values(&[provider]).set(10);
            for state in ReceiptState::ALL {
                for result in RECEIPT_RESULTS {
                    receipts.with_label_values(&[provider, state.as_str(), result]);
                }
            }
        }
        for outcome in DeliveryOutcome::ALL
            .iter()
            .filter(|outcome| outcome.is_final())
        {
            ended.with_label_values(&[outcome.as_str()]);
        }
        for reason in PARK_REASONS.iter().chain(&["panic"]) {
            parked.with_label_values(&[reason]);
        }
        Ok(Self {
            provider_share,
            receipts,
            failovers: counter(
                "watchword_failovers_total",
                "Attempts that were followed by another provider at once.",
            )?,
            nobody: counter(
                "watchword_no_provider_total",
                "Orders that waited because no provider could be asked.",
            )?,
            channel,
            attempts,
            attempt_seconds,
            ended,
            parked,
            age_seconds,
            in_flight,
            retries: counter("watchword_retries_total", "Orders put into a wait queue.")?,
            redeliveries: counter(
                "watchword_redeliveries_total",
                "Orders handed out by the broker again.",
            )?,
            repeats: counter(
                "watchword_repeats_total",
                "Orders whose delivery had ended already: recognised by the ledger, not sent again.",
            )?,
            after_crash: counter(
                "watchword_possible_duplicates_total",
                "Deliveries taken over from a worker that went silent: the person may get two messages.",
            )?,
            past_deadline: counter(
                "watchword_sends_past_deadline_total",
                "Messages a provider accepted after their deadline. Must stay 0.",
            )?,
            events_dropped: counter(
                "watchword_outcome_events_dropped_total",
                "Outcome events that could not be published; the ledger has the outcome.",
            )?,
        })
    }

    /// The worker's channel.
    pub const fn channel(&self) -> Channel {
        self.channel
    }

    pub(crate) fn attempted(&self, provider: &ProviderName, class: AttemptClass, took: Duration) {
        self.attempts
            .with_label_values(&[provider.as_str(), class.as_str()])
            .inc();
        self.attempt_seconds
            .with_label_values(&[provider.as_str()])
            .observe(took.as_secs_f64());
    }

    pub(crate) fn share(&self, provider: &ProviderName, level: u8) {
        self.provider_share
            .with_label_values(&[provider.as_str()])
            .set(i64::from(level));
    }

    pub(crate) fn receipt(&self, provider: &ProviderName, state: ReceiptState, result: &str) {
        self.receipts
            .with_label_values(&[provider.as_str(), state.as_str(), result])
            .inc();
    }

    pub(crate) fn ended(&self, outcome: DeliveryOutcome) {
        self.ended.with_label_values(&[outcome.as_str()]).inc();
    }

    pub(crate) fn parked(&self, reason: &'static str) {
        self.parked.with_label_values(&[reason]).inc();
    }
}
