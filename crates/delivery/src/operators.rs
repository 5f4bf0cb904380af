//! The operator's view of a channel's providers, and circuits that an operator forced open or
//! closed.

use std::sync::Arc;

use watchword_core::{ProviderName, Timestamp};

use crate::health::{ByHand, Circuit, LONGEST_BY_HAND_MS};
use crate::provider::Provider;
use crate::route::Router;

/// A provider as shown to an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderView {
    /// The provider's name in the configuration.
    pub name: ProviderName,
    /// The share of traffic that it may get, in tenths.
    pub share_tenths: u8,
    /// The state of its circuit breaker.
    pub circuit: Circuit,
    /// The operator's override of the circuit, if there is one.
    pub by_hand: Option<ByHand>,
    /// Countries or mail domains that the provider was asked to send to.
    pub destinations: usize,
    /// Destinations among them whose own circuit is open.
    pub destinations_open: usize,
}

impl Router {
    /// Returns the operator's view of each provider at `now`.
    pub fn views(&self, now: Timestamp) -> Vec<ProviderView> {
        let view = |(place, provider): (usize, &Arc<dyn Provider>)| {
            let (circuit, (destinations, destinations_open)) = self.health.circuit(place, now);
            ProviderView {
                name: provider.name().clone(),
                share_tenths: self.health.level(place, now),
                circuit,
                by_hand: self.health.by_hand(place, now),
                destinations,
                destinations_open,
            }
        };
        self.providers().iter().enumerate().map(view).collect()
    }

    /// Forces the circuit of the provider `name` open or closed, for at most a day, or (`None`)
    /// returns it to the outcomes of calls. Returns `false` if there is no such provider.
    pub fn hold(&self, name: &ProviderName, by_hand: Option<ByHand>, now: Timestamp) -> bool {
        let Some(place) = self.place(name) else {
            return false;
        };
        let latest = now.plus_millis(LONGEST_BY_HAND_MS);
        let until = |held: ByHand| held.until.min(latest);
        let by_hand = by_hand.map(|held| ByHand {
            until: until(held),
            ..held
        });
        self.health.hold(place, by_hand);
        true
    }

    /// Copies the operator's overrides from `earlier`, by provider name, so that a reload does not
    /// end them.
    pub fn keep_held(&self, earlier: &Self, now: Timestamp) {
        for (place, provider) in earlier.providers().iter().enumerate() {
            if let Some(held) = earlier.health.by_hand(place, now) {
                self.hold(provider.name(), Some(held), now);
            }
        }
    }
}
