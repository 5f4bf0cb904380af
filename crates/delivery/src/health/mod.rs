//! What is known of every provider: one gauge for the whole of it (faults, receipts, rests it
//! asked for) and one for each country it was asked to send to (errors, latency). Each process
//! keeps its own. Refuses to choose: [`crate::route`] does.

mod gauge;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use watchword_core::{AttemptClass, ReceiptState, Timestamp};

pub(crate) use gauge::Admission;
use gauge::{Gauge, Sign, WHOLE};

/// An accepted message that took longer counts against its provider.
const SLOW: Duration = Duration::from_secs(3);

/// A country (ISO 3166), or empty where there is none.
pub(crate) type Region = String;

/// Gauges of the providers of one channel, by their place in its list.
#[derive(Debug)]
pub(crate) struct Health {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    whole: Vec<Gauge>,
    regions: HashMap<(usize, Region), Gauge>,
}

/// What an attempt told about its provider.
pub(crate) struct Seen<'a> {
    pub provider: usize,
    pub region: &'a Region,
    pub class: AttemptClass,
    pub took: Duration,
    pub retry_after: Option<Duration>,
    pub now: Timestamp,
}

impl Health {
    pub(crate) fn new(providers: usize, now: Timestamp) -> Self {
        Self {
            inner: Mutex::new(Inner {
                whole: vec![Gauge::new(now); providers],
                regions: HashMap::new(),
            }),
        }
    }

    /// What `provider` may get for `region`: the lesser of its two gauges.
    pub(crate) fn admission(&self, provider: usize, region: &Region, now: Timestamp) -> Admission {
        let inner = self.lock();
        let whole = inner.whole[provider].admission(now);
        let region = inner
            .regions
            .get(&(provider, region.clone()))
            .map_or(Admission::Share(WHOLE), |gauge| gauge.admission(now));
        match (whole, region) {
            (Admission::Closed, _) | (_, Admission::Closed) => Admission::Closed,
            (Admission::Trial, _) | (_, Admission::Trial) => Admission::Trial,
            (Admission::Share(whole), Admission::Share(region)) => {
                Admission::Share(whole.min(region))
            }
        }
    }

    /// Whether `provider` must not be asked even if nobody else can be: for a fault that only a
    /// person mends, or because it asked for rest.
    pub(crate) fn is_shut(&self, provider: usize, now: Timestamp) -> bool {
        let inner = self.lock();
        let gauge = &inner.whole[provider];
        let waits_for_trial = gauge.is_faulty() && gauge.admission(now) != Admission::Trial;
        waits_for_trial || gauge.is_resting(now)
    }

    /// A trial of `provider` is on its way.
    pub(crate) fn on_trial(&self, provider: usize, region: &Region, now: Timestamp) {
        let mut inner = self.lock();
        inner.whole[provider].on_trial(now);
        if let Some(gauge) = inner.regions.get_mut(&(provider, region.clone())) {
            gauge.on_trial(now);
        }
    }

    /// Takes in how an attempt ended; gives the level of its country from then on.
    pub(crate) fn seen(&self, seen: &Seen<'_>) -> u8 {
        let sign = match seen.class {
            AttemptClass::Accepted if seen.took > SLOW => Sign::Slow,
            AttemptClass::Accepted
            | AttemptClass::RecipientInvalid
            | AttemptClass::RecipientBlocked
            | AttemptClass::MessageRejected => Sign::Good,
            AttemptClass::Transient
            | AttemptClass::UnknownOutcome
            | AttemptClass::DestinationRefused => Sign::Bad,
            AttemptClass::ConfigFault => Sign::Fault,
        };
        let mut inner = self.lock();
        let country = match (sign, seen.retry_after) {
            // It works, and says when it will again.
            (Sign::Bad, Some(rest)) => {
                let rest_ms = u64::try_from(rest.as_millis()).unwrap_or(u64::MAX);
                inner.whole[seen.provider].rest(seen.now, rest_ms);
                inner.regions.get(&(seen.provider, seen.region.clone()))
            }
            (Sign::Fault, _) => {
                inner.whole[seen.provider].observe(sign, seen.now);
                inner.regions.get(&(seen.provider, seen.region.clone()))
            }
            _ => {
                if sign == Sign::Good {
                    inner.whole[seen.provider].observe(sign, seen.now);
                }
                let gauge = inner
                    .regions
                    .entry((seen.provider, seen.region.clone()))
                    .or_insert_with(|| Gauge::new(seen.now));
                gauge.observe(sign, seen.now);
                Some(&*gauge)
            }
        };
        country.map_or(WHOLE, Gauge::level)
    }

    /// Takes in a provider's later word. Of one that is closed off it says nothing: it is about
    /// messages from before, and only an attempt shows whether it was mended.
    pub(crate) fn heard(&self, provider: usize, state: ReceiptState, now: Timestamp) {
        let sign = match state {
            ReceiptState::InFlight => return,
            ReceiptState::Delivered => Sign::Good,
            // One phone that is switched off says little: never enough to close a provider by
            // itself in a row.
            ReceiptState::Failed | ReceiptState::Expired => Sign::Slow,
        };
        let gauge = &mut self.lock().whole[provider];
        if gauge.level() > 0 {
            gauge.observe(sign, now);
        }
    }

    /// The share of `provider` in tenths, the lowest of its gauges.
    pub(crate) fn level(&self, provider: usize) -> u8 {
        let inner = self.lock();
        inner
            .regions
            .iter()
            .filter(|((owner, _), _)| *owner == provider)
            .map(|(_, gauge)| gauge.level())
            .chain([inner.whole[provider].level()])
            .min()
            .unwrap_or(WHOLE)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_of_before_is_no_trial() {
        let at = |ms| Timestamp::from_millis(0).plus_millis(ms);
        let (health, region) = (Health::new(1, at(0)), Region::new());
        health.seen(&Seen {
            provider: 0,
            region: &region,
            class: AttemptClass::ConfigFault,
            took: Duration::ZERO,
            retry_after: None,
            now: at(0),
        });
        for _ in 0..3 {
            health.heard(0, ReceiptState::Delivered, at(6_000));
        }
        health.heard(0, ReceiptState::Failed, at(6_000));
        assert_eq!(health.level(0), 0);
        assert_eq!(health.admission(0, &region, at(6_000)), Admission::Trial);
    }
}
