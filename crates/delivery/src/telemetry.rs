//! What a worker counts. Labels come from closed sets and the configuration; a provider is known by
//! its place in the list, so that nothing is looked up for a message.

use std::sync::Arc;
use std::time::Duration;

use watchword_core::{AttemptClass, Channel, DeliveryOutcome, ProviderName, ReceiptState};
use watchword_metrics::prometheus::{
    Error, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};
use watchword_metrics::{Countries, Maker};

use crate::series;

/// What a receipt changed.
const RECEIPT_RESULTS: [&str; 3] = ["counted", "repeated", "unknown"];

/// How the attempts of a country ended, in short: taken, refused for the recipient's or the text's
/// own sake, or failed.
const COUNTRY_RESULTS: [&str; 3] = ["accepted", "refused", "failed"];

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

/// Counters of one worker; cheap to clone.
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
    /// By their place in the router.
    providers: Vec<ProviderMetrics>,
    /// By outcome if that is final, then by the class of the last attempt or none.
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
    pub(crate) nobody: IntCounter,
}

/// The series of one provider.
#[derive(Debug)]
struct ProviderMetrics {
    name: String,
    attempts: Vec<IntCounter>,
    seconds: Histogram,
    share: IntGauge,
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
    /// Registers the counters of the worker of `channel` that sends through `providers`; series
    /// start at zero, those of a country when it is first sent to.
    pub fn register(
        registry: &Registry,
        channel: Channel,
        providers: &[&ProviderName],
    ) -> Result<Self, Error> {
        let make = Maker::fixed(registry, "channel", channel.as_str());
        let ended = make.counters(&series::ENDED)?;
        let parked = make.counters(&series::PARKED)?;
        for reason in PARK_REASONS.iter().chain(&["panic"]) {
            parked.with_label_values(&[reason]);
        }
        let ended_as = |outcome: &DeliveryOutcome| {
            let classes = AttemptClass::ALL.iter().map(|class| class.as_str());
            let classes = classes.chain(["none"]).filter(|_| outcome.is_final());
            let labels = classes.map(|class| [outcome.as_str(), class]);
            labels
                .map(|labels| ended.with_label_values(&labels))
                .collect()
        };
        Ok(Self(Arc::new(Handles {
            channel,
            providers: provider_metrics(&make, providers)?,
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
            nobody: make.counter(&series::NO_PROVIDER)?,
        })))
    }
}

fn provider_metrics(
    make: &Maker<'_>,
    providers: &[&ProviderName],
) -> Result<Vec<ProviderMetrics>, Error> {
    let attempts = make.counters(&series::ATTEMPTS)?;
    let seconds = make.histograms(&series::ATTEMPT_SECONDS)?;
    let share = make.gauges(&series::SHARE)?;
    let receipts = make.counters(&series::RECEIPTS)?;
    let of = |provider: &&ProviderName| {
        let name = provider.as_str();
        let attempted = |class: &AttemptClass| attempts.with_label_values(&[name, class.as_str()]);
        let received = |state: &ReceiptState| {
            RECEIPT_RESULTS
                .map(|result| receipts.with_label_values(&[name, state.as_str(), result]))
        };
        let share = share.with_label_values(&[name]);
        share.set(10);
        ProviderMetrics {
            name: name.to_owned(),
            attempts: AttemptClass::ALL.iter().map(attempted).collect(),
            seconds: seconds.with_label_values(&[name]),
            share,
            receipts: ReceiptState::ALL.iter().map(received).collect(),
            countries: Countries::default(),
        }
    };
    Ok(providers.iter().map(of).collect())
}

impl Handles {
    /// The worker's channel.
    pub const fn channel(&self) -> Channel {
        self.channel
    }

    /// An attempt of the provider at `place` for a recipient in `country`.
    pub(crate) fn attempted(
        &self,
        place: usize,
        country: &str,
        class: AttemptClass,
        took: Duration,
    ) {
        let Some(provider) = self.providers.get(place) else {
            return;
        };
        provider.attempts[class as usize].inc();
        provider.seconds.observe(took.as_secs_f64());
        let result = match class {
            AttemptClass::Accepted => 0,
            AttemptClass::RecipientInvalid
            | AttemptClass::RecipientBlocked
            | AttemptClass::MessageRejected => 1,
            AttemptClass::Transient | AttemptClass::UnknownOutcome | AttemptClass::ConfigFault => 2,
        };
        self.country(provider, country).attempts[result].inc();
    }

    /// What the provider at `place` may get of its share: in its worst country, and in `country`.
    pub(crate) fn share(&self, place: usize, worst: u8, country: Option<(&str, u8)>) {
        let Some(provider) = self.providers.get(place) else {
            return;
        };
        provider.share.set(i64::from(worst));
        if let Some((country, level)) = country {
            self.country(provider, country).share.set(i64::from(level));
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

    pub(crate) fn receipt(&self, place: usize, state: ReceiptState, result: &str) {
        let result = RECEIPT_RESULTS.iter().position(|known| *known == result);
        if let (Some(provider), Some(result)) = (self.providers.get(place), result) {
            provider.receipts[state as usize][result].inc();
        }
    }

    /// A delivery ended; `last` is how its last attempt did.
    pub(crate) fn ended(&self, outcome: DeliveryOutcome, last: Option<AttemptClass>) {
        let last = last.map_or(AttemptClass::ALL.len(), |class| class as usize);
        if let Some(counter) = self.ended[outcome as usize].get(last) {
            counter.inc();
        }
    }

    /// Rare: the only label that is looked up.
    pub(crate) fn parked(&self, reason: &'static str) {
        self.parked.with_label_values(&[reason]).inc();
    }
}
