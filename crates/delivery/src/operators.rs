//! The operator's view of the providers of a channel, and the circuits that an operator holds.

use std::sync::Arc;

use watchword_core::{ProviderName, Timestamp};

use crate::health::{ByHand, Circuit, LONGEST_BY_HAND_MS};
use crate::provider::Provider;
use crate::route::Router;

/// A provider as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderView {
    /// Its name.
    pub name: ProviderName,
    /// The share it may get, in tenths.
    pub share_tenths: u8,
    /// Its circuit.
    pub circuit: Circuit,
    /// How an operator holds the circuit, if one does.
    pub by_hand: Option<ByHand>,
    /// Countries or mail domains it was asked to send to.
    pub destinations: usize,
    /// Those of them whose own circuit is open.
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

    /// Holds the circuit of the provider `name` open or closed, at most for a day, or gives it back
    /// to the outcomes of calls. `false` if there is no such provider.
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

    /// Takes over the circuits that an operator holds in `earlier`, by the providers' names: a
    /// reload does not end them.
    pub fn keep_held(&self, earlier: &Self, now: Timestamp) {
        for (place, provider) in earlier.providers().iter().enumerate() {
            if let Some(held) = earlier.health.by_hand(place, now) {
                self.hold(provider.name(), Some(held), now);
            }
        }
    }
}
