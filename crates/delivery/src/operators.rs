//! The operator's view of a channel's providers, and circuits that an operator forced open or
//! closed.

use std::sync::{Arc, PoisonError};

use watchword_core::{Channel, Live, ProviderName, Timestamp};

use crate::health::{ByHand, Circuit, LONGEST_BY_HAND_MS, Stopped};
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

/// A route, or the whole channel, whose providers are all stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standstill {
    /// Which route, from 0; `None` if no provider of the channel gets messages.
    pub route: Option<usize>,
    /// The providers, and why each is stopped.
    pub providers: Vec<(ProviderName, Stopped)>,
}

impl Standstill {
    /// Says in one sentence, without its end, which providers of `channel` are stopped and why.
    pub fn sentence(&self, channel: Channel) -> String {
        let reasons = self.providers.iter();
        let reasons: Vec<_> = reasons.map(|(name, why)| format!("{name} {why}")).collect();
        let reasons = reasons.join(", ");
        let of = match self.route {
            Some(route) => format!("{channel}.routes[{route}]"),
            None => channel.to_string(),
        };
        let mut all = self.providers.iter();
        if all.any(|(_, why)| *why == Stopped::Failures) {
            format!("no provider of {of} works: {reasons}")
        } else {
            format!("no provider of {of} is called: {reasons}")
        }
    }
}

/// Holds the circuit of the provider `name` of the router that is in use, as [`Router::hold`] does.
/// A reload at the same time loses nothing. Returns the router, or `None` if it has no such provider.
pub fn hold_circuit(
    live: &Live<Router>,
    name: &ProviderName,
    by_hand: Option<ByHand>,
    now: Timestamp,
) -> Option<Arc<Router>> {
    let changing = live.get().changing.clone();
    let _one = changing.lock().unwrap_or_else(PoisonError::into_inner);
    let router = live.get();
    router.hold(name, by_hand, now).then_some(router)
}

/// Puts `next` in place of the router that is in use. Circuits that an operator holds stay held, by
/// the providers' names.
pub fn replace_router(live: &Live<Router>, mut next: Router, now: Timestamp) {
    let changing = live.get().changing.clone();
    let _one = changing.lock().unwrap_or_else(PoisonError::into_inner);
    next.keep_held(&live.get(), now);
    next.changing = changing.clone();
    live.replace(next);
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

    /// Returns the routes whose providers are all stopped at `now`, or the channel if all of them
    /// are.
    pub fn standstills(&self, now: Timestamp) -> Vec<Standstill> {
        let providers = self.providers().iter();
        let stopped: Vec<_> = providers
            .enumerate()
            .map(|(place, provider)| {
                let why = self.health.stopped(place, now)?;
                Some((provider.name().clone(), why))
            })
            .collect();
        if let Some(providers) = stopped.iter().cloned().collect() {
            return vec![Standstill {
                route: None,
                providers,
            }];
        }
        let standstill = |(route, places): (usize, Vec<usize>)| {
            let providers = places.into_iter().map(|place| stopped[place].clone());
            Some(Standstill {
                route: Some(route),
                providers: providers.collect::<Option<_>>()?,
            })
        };
        let routes = self.places_by_route().into_iter().enumerate();
        routes.filter_map(standstill).collect()
    }

    /// Forces the circuit of the provider `name` open or closed, for at most a day, or (`None`)
    /// returns it to the outcomes of calls. Returns `false` if there is no such provider.
    pub(crate) fn hold(
        &self,
        name: &ProviderName,
        by_hand: Option<ByHand>,
        now: Timestamp,
    ) -> bool {
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
    pub(crate) fn keep_held(&self, earlier: &Self, now: Timestamp) {
        for (place, provider) in earlier.providers().iter().enumerate() {
            if let Some(held) = earlier.health.by_hand(place, now) {
                self.hold(provider.name(), Some(held), now);
            }
        }
    }
}
