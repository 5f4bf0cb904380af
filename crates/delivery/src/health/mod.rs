//! Health of the providers of one channel, as observed by this process. [`crate::route`] picks
//! providers by it.

mod gauge;
mod provider;
mod region;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use watchword_core::{AttemptClass, ReceiptState, Timestamp};

use crate::provider::Scope;
pub(crate) use gauge::Admission;
use gauge::WHOLE;
pub(crate) use provider::LONGEST_BY_HAND_MS;
use provider::ProviderHealth;
pub(crate) use region::{Region, witness};

/// An acceptance that took longer counts against the provider.
const SLOW: Duration = Duration::from_secs(3);

/// An operator's override: a circuit that is forced open or closed until a given time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByHand {
    /// Open: the provider is not called at all. Closed: it gets its full share at every
    /// destination, whatever the outcomes of its calls.
    pub is_open: bool,
    /// When the override ends and the outcomes of calls decide again.
    pub until: Timestamp,
}

impl ByHand {
    const fn level(self) -> u8 {
        if self.is_open { 0 } else { WHOLE }
    }
}

/// The state of a provider's circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Circuit {
    /// The provider gets messages.
    Closed,
    /// The provider gets single messages as half-open probes.
    HalfOpen,
    /// The provider gets no messages, or only those that no other provider can take.
    Open,
}

/// Why a provider gets no messages, except as a half-open probe or as the last resort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// An operator holds its circuit open until then.
    ByHand(Timestamp),
    /// It refuses our account.
    Fault,
    /// Its calls failed. It is still called if no other provider can be.
    Failures,
    /// It asked to wait.
    Waits,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByHand(until) => write!(f, "is held open by an operator until {until}"),
            Self::Fault => f.write_str("has an open circuit because it refuses our account"),
            Self::Failures => f.write_str("has an open circuit after failed calls"),
            Self::Waits => f.write_str("asked to wait"),
        }
    }
}

/// Health of the providers, by their index in the router's list.
#[derive(Debug)]
pub(crate) struct Health(Mutex<Vec<ProviderHealth>>);

/// The outcome of one attempt.
pub(crate) struct Seen<'a> {
    pub provider: usize,
    pub region: &'a Region,
    /// Whether the attempt was the half-open probe.
    pub is_probe: bool,
    /// The recipient's [`witness`].
    pub recipient: u64,
    pub class: AttemptClass,
    pub scope: Scope,
    pub took: Duration,
    pub retry_after: Option<Duration>,
    pub now: Timestamp,
}

impl Health {
    pub(crate) fn new(providers: usize, now: Timestamp) -> Self {
        let new = |_| ProviderHealth::new(now);
        Self(Mutex::new((0..providers).map(new).collect()))
    }

    /// Returns the share that `provider` may get for `region` now.
    pub(crate) fn admission(&self, provider: usize, region: &Region, now: Timestamp) -> Admission {
        self.lock()[provider].admission(region, now)
    }

    /// Records that a half-open probe of `provider` is in flight.
    pub(crate) fn on_probe(&self, provider: usize, region: &Region, now: Timestamp) {
        self.lock()[provider].on_probe(region, now);
    }

    /// Records that the half-open probe of `provider` for `region` was not sent.
    pub(crate) fn release(&self, provider: usize, region: &Region, now: Timestamp) {
        self.lock()[provider].release(region, now);
    }

    /// Applies the outcome of an attempt.
    pub(crate) fn see(&self, seen: &Seen<'_>) {
        self.lock()[seen.provider].see(seen);
    }

    /// Applies a receipt of `provider`.
    pub(crate) fn receipt(&self, provider: usize, state: ReceiptState, now: Timestamp) {
        self.lock()[provider].receipt(state, now);
    }

    /// Returns the share of `provider` to display, in tenths.
    pub(crate) fn level(&self, provider: usize, now: Timestamp) -> u8 {
        self.lock()[provider].level(now)
    }

    /// Returns the share to display for one country; for mail, the provider's share.
    pub(crate) fn country_level(&self, provider: usize, region: &Region, now: Timestamp) -> u8 {
        let providers = self.lock();
        if region.is_domain() {
            providers[provider].level(now)
        } else {
            providers[provider].region_level(region, now)
        }
    }

    /// Sets or clears the operator's override for `provider`.
    pub(crate) fn hold(&self, provider: usize, by_hand: Option<ByHand>) {
        self.lock()[provider].hold(by_hand);
    }

    /// Returns the operator's override for `provider`, if it has not expired.
    pub(crate) fn by_hand(&self, provider: usize, now: Timestamp) -> Option<ByHand> {
        self.lock()[provider].by_hand(now)
    }

    /// Returns why `provider` gets no messages; `None` if it gets some.
    pub(crate) fn stopped(&self, provider: usize, now: Timestamp) -> Option<Stopped> {
        self.lock()[provider].stopped(now)
    }

    /// Returns the state of the provider's circuit, its number of destinations, and how many of
    /// them have an open circuit.
    pub(crate) fn circuit(&self, provider: usize, now: Timestamp) -> (Circuit, (usize, usize)) {
        let provider = &self.lock()[provider];
        (provider.circuit(now), provider.destinations())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<ProviderHealth>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
