//! Metrics of a worker. Labels come from closed sets and from the configuration.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use watchword_broker::DeadLetterReason;
use watchword_core::{
    AttemptClass, Channel, DeliveryOutcome, Live, ProviderName, ReceiptState, Timestamp,
};
use watchword_metrics::prometheus::{
    Error, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};
use watchword_metrics::{Countries, Maker};

use crate::{Router, series};

/// The effects of a receipt.
const RECEIPT_RESULTS: [&str; 3] = ["counted", "repeated", "unknown"];

/// The results of calls by country: accepted, refused because of the recipient or the text, or
/// failed.
const COUNTRY_RESULTS: [&str; 3] = ["accepted", "refused", "failed"];

/// The classes that end a call: all but the last, `text_fault`, which ends before the call.
const CALL_CLASSES: &[AttemptClass] = match AttemptClass::ALL {
    [calls @ .., AttemptClass::TextFault] => calls,
    all => all,
};

/// The reasons for dead-lettering an order.
const DEAD_LETTER_REASONS: [DeadLetterReason; 11] = [
    DeadLetterReason::TooLarge,
    DeadLetterReason::NotAnEvent,
    DeadLetterReason::SpecVersion,
    DeadLetterReason::UnknownType,
    DeadLetterReason::BadData,
    DeadLetterReason::UnknownKey,
    DeadLetterReason::BrokenSeal,
    DeadLetterReason::MalformedOrder,
    DeadLetterReason::WrongChannel,
    DeadLetterReason::UnknownService,
    DeadLetterReason::Panic,
];

/// Metrics of one worker; cheap to clone.
#[derive(Debug, Clone)]
pub struct DeliveryMetrics(Arc<Handles>);

impl std::ops::Deref for DeliveryMetrics {
    type Target = Handles;

    fn deref(&self) -> &Handles {
        &self.0
    }
}

/// The series of one worker.
#[derive(Debug)]
pub struct Handles {
    channel: Channel,
    /// By name, because a reload may add providers.
    providers: Live<BTreeMap<ProviderName, Arc<ProviderMetrics>>>,
    attempts: IntCounterVec,
    seconds: HistogramVec,
    not_called: IntCounterVec,
    share: IntGaugeVec,
    failures_in_a_row: IntGaugeVec,
    receipts: IntCounterVec,
    /// By final outcome, then by the class of the last attempt, or none.
    ended: Vec<Vec<IntCounter>>,
    parked: IntCounterVec,
    country_attempts: IntCounterVec,
    country_share: IntGaugeVec,
    pub(crate) age_seconds: Histogram,
    pub(crate) wait_seconds: Histogram,
    pub(crate) retries: IntCounter,
    pub(crate) redeliveries: IntCounter,
    pub(crate) repeats: IntCounter,
    pub(crate) after_crash: IntCounter,
    pub(crate) past_deadline: IntCounter,
    pub(crate) events_dropped: IntCounter,
    pub(crate) in_flight: IntGauge,
    pub(crate) failovers: IntCounter,
    pub(crate) text_faults: IntCounter,
    pub(crate) nobody: IntCounter,
}

/// The series of one provider.
#[derive(Debug)]
struct ProviderMetrics {
    name: String,
    attempts: Vec<IntCounter>,
    seconds: Histogram,
    not_called: IntCounter,
    share: IntGauge,
    failures_in_a_row: IntGauge,
    /// By state, then by [`RECEIPT_RESULTS`].
    receipts: Vec<[IntCounter; RECEIPT_RESULTS.len()]>,
    countries: Countries<CountryMetrics>,
}

/// The series of one provider in one country.
#[derive(Debug)]
struct CountryMetrics {
    /// By [`COUNTRY_RESULTS`].
    attempts: [IntCounter; COUNTRY_RESULTS.len()],
    share: IntGauge,
}

impl DeliveryMetrics {
    /// Registers the metrics of the worker of `channel` that sends through `providers`. Series
    /// start at zero; those of a country start with its first message.
    pub fn register(
        registry: &Registry,
        channel: Channel,
        providers: &[&ProviderName],
    ) -> Result<Self, Error> {
        let make = Maker::fixed(registry, "channel", channel.as_str());
        let ended = make.counters(&series::ENDED)?;
        let parked = make.counters(&series::PARKED)?;
        for reason in DEAD_LETTER_REASONS {
            parked.with_label_values(&[reason.as_str()]);
        }
        let ended_as = |outcome: &DeliveryOutcome| {
            let classes = AttemptClass::ALL.iter().map(|class| class.as_str());
            let classes = classes.chain(["none"]).filter(|_| outcome.is_final());
            let labels = classes.map(|class| [outcome.as_str(), class]);
            labels
                .map(|labels| ended.with_label_values(&labels))
                .collect()
        };
        let handles = Handles {
            channel,
            providers: Live::new(BTreeMap::new()),
            attempts: make.counters(&series::ATTEMPTS)?,
            seconds: make.histograms(&series::ATTEMPT_SECONDS)?,
            not_called: make.counters(&series::NOT_CALLED)?,
            share: make.gauges(&series::SHARE)?,
            failures_in_a_row: make.gauges(&series::FAILURES_IN_A_ROW)?,
            receipts: make.counters(&series::RECEIPTS)?,
            ended: DeliveryOutcome::ALL.iter().map(ended_as).collect(),
            parked,
            country_attempts: make.counters(&series::COUNTRY_ATTEMPTS)?,
            country_share: make.gauges(&series::COUNTRY_SHARE)?,
            age_seconds: make.histogram(&series::AGE)?,
            wait_seconds: make.histogram(&series::WAIT)?,
            retries: make.counter(&series::RETRIES)?,
            redeliveries: make.counter(&series::REDELIVERIES)?,
            repeats: make.counter(&series::REPEATS)?,
            after_crash: make.counter(&series::POSSIBLE_DUPLICATES)?,
            past_deadline: make.counter(&series::PAST_DEADLINE)?,
            events_dropped: make.counter(&series::EVENTS_DROPPED)?,
            in_flight: make.gauge(&series::IN_FLIGHT)?,
            failovers: make.counter(&series::FAILOVERS)?,
            text_faults: make.counter(&series::TEXT_FAULTS)?,
            nobody: make.counter(&series::NO_PROVIDER)?,
        };
        for provider in providers {
            handles.provider(provider);
        }
        Ok(Self(Arc::new(handles)))
    }
}

impl Handles {
    /// Returns the worker's channel.
    pub const fn channel(&self) -> Channel {
        self.channel
    }

    /// Returns the series of `name`, creating them on first use.
    fn provider(&self, name: &ProviderName) -> Arc<ProviderMetrics> {
        let known = self.providers.get();
        if let Some(provider) = known.get(name) {
            return provider.clone();
        }
        let text = name.as_str();
        let attempted =
            |class: &AttemptClass| self.attempts.with_label_values(&[text, class.as_str()]);
        let received = |state: &ReceiptState| {
            RECEIPT_RESULTS.map(|result| {
                self.receipts
                    .with_label_values(&[text, state.as_str(), result])
            })
        };
        let share = self.share.with_label_values(&[text]);
        share.set(10);
        let provider = Arc::new(ProviderMetrics {
            name: text.to_owned(),
            attempts: CALL_CLASSES.iter().map(attempted).collect(),
            seconds: self.seconds.with_label_values(&[text]),
            not_called: self.not_called.with_label_values(&[text]),
            share,
            failures_in_a_row: self.failures_in_a_row.with_label_values(&[text]),
            receipts: ReceiptState::ALL.iter().map(received).collect(),
            countries: Countries::default(),
        });
        // Two concurrent calls create the same series; the one that is lost here is created again
        // later.
        let mut more = BTreeMap::clone(&known);
        more.insert(name.clone(), provider.clone());
        self.providers.replace(more);
        provider
    }

    /// Counts an attempt of `provider` for a recipient in `country`.
    pub(crate) fn attempted(
        &self,
        provider: &ProviderName,
        country: &str,
        class: AttemptClass,
        took: Duration,
    ) {
        let provider = self.provider(provider);
        if let Some(counter) = provider.attempts.get(class as usize) {
            counter.inc();
        }
        provider.seconds.observe(took.as_secs_f64());
        match class {
            AttemptClass::Accepted => provider.failures_in_a_row.set(0),
            AttemptClass::Transient | AttemptClass::UnknownOutcome | AttemptClass::ConfigFault => {
                provider.failures_in_a_row.inc();
            }
            // The provider works but refused the recipient, the text or the destination, or was not
            // called.
            AttemptClass::TextFault
            | AttemptClass::RecipientInvalid
            | AttemptClass::RecipientBlocked
            | AttemptClass::MessageRejected
            | AttemptClass::DestinationRefused => {}
        }
        let result = match class {
            AttemptClass::Accepted => 0,
            AttemptClass::RecipientInvalid
            | AttemptClass::RecipientBlocked
            | AttemptClass::MessageRejected
            | AttemptClass::TextFault => 1,
            AttemptClass::Transient
            | AttemptClass::UnknownOutcome
            | AttemptClass::DestinationRefused
            | AttemptClass::ConfigFault => 2,
        };
        self.country(&provider, country).attempts[result].inc();
    }

    /// Counts an attempt that ended before `provider` was called.
    pub(crate) fn not_called(&self, provider: &ProviderName) {
        self.provider(provider).not_called.inc();
    }

    /// Updates the share that `provider` may get, overall and in a country.
    pub(crate) fn share(&self, provider: &ProviderName, shown: u8, country: Option<(&str, u8)>) {
        let provider = self.provider(provider);
        provider.share.set(i64::from(shown));
        if let Some((country, level)) = country {
            self.country(&provider, country).share.set(i64::from(level));
        }
    }

    /// Updates the shares of all providers of `router` at `now`. An operator's override can expire
    /// without any message that would update them.
    pub fn show_shares(&self, router: &Router, now: Timestamp) {
        for (place, provider) in router.providers().iter().enumerate() {
            self.share(provider.name(), router.health.level(place, now), None);
        }
    }

    fn country<'a>(&self, provider: &'a ProviderMetrics, country: &str) -> &'a CountryMetrics {
        provider.countries.of(country, |country| {
            let labels = [provider.name.as_str(), country];
            CountryMetrics {
                attempts: COUNTRY_RESULTS.map(|result| {
                    self.country_attempts
                        .with_label_values(&[labels[0], labels[1], result])
                }),
                share: self.country_share.with_label_values(&labels),
            }
        })
    }

    pub(crate) fn receipt(&self, provider: &ProviderName, state: ReceiptState, result: &str) {
        let result = RECEIPT_RESULTS.iter().position(|known| *known == result);
        if let Some(result) = result {
            self.provider(provider).receipts[state as usize][result].inc();
        }
    }

    /// Counts a delivery that ended; `last` is the class of its last attempt.
    pub(crate) fn ended(&self, outcome: DeliveryOutcome, last: Option<AttemptClass>) {
        let last = last.map_or(AttemptClass::ALL.len(), |class| class as usize);
        if let Some(counter) = self.ended[outcome as usize].get(last) {
            counter.inc();
        }
    }

    /// Counts a dead-lettered order. Rare, so it is the only counter that looks up a label.
    pub(crate) fn dead_lettered(&self, reason: DeadLetterReason) {
        self.parked.with_label_values(&[reason.as_str()]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_end_with_an_acceptance_only() {
        let registry = Registry::new();
        let name: ProviderName = "acme".parse().unwrap();
        let metrics = DeliveryMetrics::register(&registry, Channel::Sms, &[&name]).unwrap();
        let series = metrics.failures_in_a_row.with_label_values(&["acme"]);
        for (class, expected) in [
            (AttemptClass::Transient, 1),
            (AttemptClass::RecipientInvalid, 1),
            (AttemptClass::UnknownOutcome, 2),
            (AttemptClass::DestinationRefused, 2),
            (AttemptClass::ConfigFault, 3),
            (AttemptClass::Accepted, 0),
            (AttemptClass::Transient, 1),
        ] {
            metrics.attempted(&name, "DE", class, Duration::ZERO);
            assert_eq!(series.get(), expected, "{class}");
        }
    }
}
