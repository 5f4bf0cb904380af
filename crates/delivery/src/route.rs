//! Provider selection: the first route that matches the recipient, then by order or weight among
//! its providers, as far as their health admits them. This module calls no provider.

use std::sync::{Arc, Mutex};

use serde::Deserialize;
use watchword_chassis::config::ConfigError;
use watchword_core::{ProviderName, Recipient, Timestamp, is_country};

use crate::health::{Admission, Health, Region};
use crate::provider::Provider;

/// An entry of `[[sms.routes]]` or `[[email.routes]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// Countries (ISO 3166) that the route matches.
    #[serde(default)]
    pub countries: Vec<String>,
    /// Number prefixes that the route matches: `+4915`.
    #[serde(default)]
    pub prefixes: Vec<String>,
    /// Mail domains that the route matches, including subdomains.
    #[serde(default)]
    pub domains: Vec<String>,
    /// How the providers share the traffic.
    #[serde(default)]
    pub choose: Choose,
    /// Names of the providers; with `choose = "weighted"` a name may have a weight: `"acme:3"`.
    pub providers: Vec<String>,
}

/// How the providers of a route share the traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choose {
    /// The first healthy provider gets it.
    #[default]
    Ordered,
    /// In proportion to their weights.
    Weighted,
}

struct Route {
    config: RouteConfig,
    /// Indexes into the list of providers, with their weights.
    members: Vec<(usize, u32)>,
}

/// The providers of one channel, their routes and their health.
pub struct Router {
    providers: Vec<Arc<dyn Provider>>,
    routes: Vec<Route>,
    pub(crate) health: Health,
    /// Locked while an operator holds a circuit and while a reload replaces the router; the next
    /// router takes it over.
    pub(crate) changing: Arc<Mutex<()>>,
}

/// A provider that was picked for an attempt.
pub(crate) struct Pick {
    pub place: usize,
    pub region: Region,
    /// Whether the attempt is the half-open probe of the provider's circuit.
    pub is_probe: bool,
}

impl Router {
    /// Validates `routes` against `providers`. Without routes there must be exactly one provider,
    /// which gets all messages.
    pub fn new(
        providers: Vec<Arc<dyn Provider>>,
        routes: &[RouteConfig],
        now: Timestamp,
    ) -> Result<Self, ConfigError> {
        if providers.is_empty() {
            return Err(ConfigError::new("providers", "must name at least one"));
        }
        let everything = RouteConfig {
            countries: Vec::new(),
            prefixes: Vec::new(),
            domains: Vec::new(),
            choose: Choose::Ordered,
            providers: providers
                .iter()
                .map(|provider| provider.name().to_string())
                .collect(),
        };
        if routes.is_empty() && providers.len() > 1 {
            return Err(ConfigError::new(
                "routes",
                "is required if there are several providers",
            ));
        }
        let listed = if routes.is_empty() {
            std::slice::from_ref(&everything)
        } else {
            routes
        };
        let mut compiled: Vec<Route> = Vec::new();
        for (index, config) in listed.iter().enumerate() {
            let within = |error: ConfigError| error.within(&format!("routes[{index}]"));
            if compiled.last().is_some_and(|route| route.config.is_open()) {
                return Err(within(ConfigError::new(
                    "providers",
                    "is never reached: the route before it matches everything",
                )));
            }
            compiled.push(Route::compile(config, &providers).map_err(within)?);
        }
        if compiled.last().is_some_and(|route| !route.config.is_open()) {
            return Err(ConfigError::new(
                "routes",
                "must end with one for everything else (without countries, prefixes and domains)",
            ));
        }
        for (place, provider) in providers.iter().enumerate() {
            let used = |route: &Route| route.members.iter().any(|(member, _)| *member == place);
            if !compiled.iter().any(used) {
                let key = format!("providers.{}", provider.name());
                return Err(ConfigError::new(key, "is not used by any route"));
            }
        }
        let health = Health::new(providers.len(), now);
        Ok(Self {
            providers,
            routes: compiled,
            health,
            changing: Arc::default(),
        })
    }

    /// Creates a router that sends everything through one provider.
    pub fn single(provider: Arc<dyn Provider>, now: Timestamp) -> Self {
        let members = vec![(0, 1)];
        let config = RouteConfig {
            countries: Vec::new(),
            prefixes: Vec::new(),
            domains: Vec::new(),
            choose: Choose::Ordered,
            providers: Vec::new(),
        };
        Self {
            providers: vec![provider],
            routes: vec![Route { config, members }],
            health: Health::new(1, now),
            changing: Arc::default(),
        }
    }

    /// Returns the providers, in the order in which picks and health index them.
    pub fn providers(&self) -> &[Arc<dyn Provider>] {
        &self.providers
    }

    pub(crate) fn place(&self, name: &ProviderName) -> Option<usize> {
        self.providers
            .iter()
            .position(|provider| provider.name() == name)
    }

    /// Returns the indexes of the providers of each route.
    pub(crate) fn places_by_route(&self) -> Vec<Vec<usize>> {
        let routes = self.routes.iter();
        let places = |route: &Route| route.members.iter().map(|(place, _)| *place).collect();
        routes.map(places).collect()
    }

    /// Picks the provider for the next attempt, leaving out `tried`; `salt` decides between shares.
    /// If no provider is healthy, a provider whose circuit opened because calls failed is still
    /// used, but not one that refuses our account or asked to wait.
    pub(crate) fn pick(
        &self,
        recipient: &Recipient,
        tried: &[usize],
        salt: u64,
        now: Timestamp,
    ) -> Option<Pick> {
        let region = Region::of(recipient);
        let route = self.route(recipient, &region)?;
        let open: Vec<_> = route
            .members
            .iter()
            .filter(|(place, _)| !tried.contains(place))
            .map(|&(place, weight)| (place, weight, self.health.admission(place, &region, now)))
            .collect();
        let place = match route.config.choose {
            Choose::Ordered => ordered(&open, salt),
            Choose::Weighted => weighted(&open, salt),
        };
        let (place, is_probe) = match place {
            Some(place) => {
                let probe = (place, weight_in(&open, place), Admission::Probe);
                (place, open.contains(&probe))
            }
            None => open
                .iter()
                .find(|(_, _, admission)| *admission == Admission::LastResort)
                .map(|(place, ..)| (*place, false))?,
        };
        if is_probe {
            self.health.on_probe(place, &region, now);
        }
        Some(Pick {
            place,
            region,
            is_probe,
        })
    }

    /// Picks the provider at `place` again for a message that it may already have, unless its
    /// circuit is open. If no other provider may get the message, it is used even with an open
    /// circuit.
    pub(crate) fn again(
        &self,
        place: usize,
        recipient: &Recipient,
        is_bound: bool,
        now: Timestamp,
    ) -> Option<Pick> {
        let region = Region::of(recipient);
        let admission = self.health.admission(place, &region, now);
        let is_probe = admission == Admission::Probe;
        match admission {
            Admission::Barred => return None,
            Admission::LastResort if !is_bound => return None,
            Admission::Probe => self.health.on_probe(place, &region, now),
            Admission::LastResort | Admission::Share(_) => {}
        }
        Some(Pick {
            place,
            region,
            is_probe,
        })
    }

    /// Returns whether the picked provider could be called again.
    pub(crate) fn is_open(&self, pick: &Pick, now: Timestamp) -> bool {
        self.health.admission(pick.place, &pick.region, now) >= Admission::Probe
    }

    /// Returns whether a provider other than `tried` could be called now.
    pub(crate) fn has_another(
        &self,
        recipient: &Recipient,
        tried: &[usize],
        now: Timestamp,
    ) -> bool {
        let region = Region::of(recipient);
        self.route(recipient, &region).is_some_and(|route| {
            route.members.iter().any(|(place, _)| {
                !tried.contains(place)
                    && self.health.admission(*place, &region, now) >= Admission::Probe
            })
        })
    }

    /// Returns whether the recipient's route has a provider outside `refused`, whatever its health.
    pub(crate) fn has_left(&self, recipient: &Recipient, refused: &[usize]) -> bool {
        let region = Region::of(recipient);
        self.route(recipient, &region).is_some_and(|route| {
            let mut members = route.members.iter();
            members.any(|(place, _)| !refused.contains(place))
        })
    }

    fn route(&self, recipient: &Recipient, region: &Region) -> Option<&Route> {
        let mut routes = self.routes.iter();
        routes.find(|route| route.fits(recipient, region))
    }
}

type Candidate = (usize, u32, Admission);

fn weight_in(open: &[Candidate], wanted: usize) -> u32 {
    open.iter()
        .find(|(place, ..)| *place == wanted)
        .map_or(0, |(_, weight, _)| *weight)
}

/// Returns the provider that is due for a half-open probe. It goes first: it is one message, and
/// other providers can take it if the probe fails.
fn probe(open: &[Candidate]) -> Option<usize> {
    open.iter()
        .find(|(_, _, admission)| *admission == Admission::Probe)
        .map(|(place, ..)| *place)
}

/// Picks by order: the first provider gets as many tenths as its health score says, the next one
/// the same part of the rest.
fn ordered(open: &[Candidate], salt: u64) -> Option<usize> {
    let mut last = None;
    for (index, (place, _, admission)) in open.iter().enumerate() {
        match admission {
            Admission::Probe => return Some(*place),
            Admission::Barred | Admission::LastResort => {}
            Admission::Share(level) => {
                let dice = mix(salt.wrapping_add(index as u64)) % 10;
                if dice < u64::from(*level) {
                    return Some(*place);
                }
                last = last.or(Some(*place));
            }
        }
    }
    last
}

fn weighted(open: &[Candidate], salt: u64) -> Option<usize> {
    if let Some(place) = probe(open) {
        return Some(place);
    }
    let share = |(_, weight, admission): &Candidate| match admission {
        Admission::Share(level) => u64::from(*weight) * u64::from(*level),
        _ => 0,
    };
    let sum: u64 = open.iter().map(share).sum();
    let mut dice = mix(salt).checked_rem(sum)?;
    open.iter()
        .find(|candidate| {
            let share = share(candidate);
            let hit = dice < share;
            dice = dice.saturating_sub(share);
            hit
        })
        .map(|(place, ..)| *place)
}

/// Mixes the bits of `salt` (`SplitMix64`'s finalizer). Not for secrets.
const fn mix(salt: u64) -> u64 {
    let z = salt.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl RouteConfig {
    fn is_open(&self) -> bool {
        self.countries.is_empty() && self.prefixes.is_empty() && self.domains.is_empty()
    }
}

/// Says which entry of a route's list is not a configured provider, and which providers there are.
/// The entry is not quoted, because a secret may have been pasted there.
fn not_configured(entry: usize, providers: &[Arc<dyn Provider>]) -> String {
    let known: Vec<_> = providers.iter().map(|one| one.name().as_str()).collect();
    let number = entry + 1;
    format!(
        "entry {number} of the list is not a configured provider; configured are: {}",
        known.join(", ")
    )
}

impl Route {
    fn compile(config: &RouteConfig, providers: &[Arc<dyn Provider>]) -> Result<Self, ConfigError> {
        if !config.countries.iter().all(|code| is_country(code)) {
            return Err(ConfigError::new(
                "countries",
                "must be countries of ISO 3166, two capital letters each: GB, not UK",
            ));
        }
        let prefix = |text: &String| {
            text.strip_prefix('+')
                .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
        };
        if !config.prefixes.iter().all(prefix) {
            return Err(ConfigError::new("prefixes", "must be + and digits: +4915"));
        }
        if config.providers.is_empty() {
            return Err(ConfigError::new("providers", "must name at least one"));
        }
        let mut members: Vec<(usize, u32)> = Vec::new();
        for (entry, text) in config.providers.iter().enumerate() {
            let (name, weight) = text.split_once(':').unwrap_or((text, "1"));
            let place = providers
                .iter()
                .position(|provider| provider.name().as_str() == name)
                .ok_or_else(|| ConfigError::new("providers", not_configured(entry, providers)))?;
            let weight = weight
                .parse()
                .ok()
                .filter(|weight| (1..=1_000).contains(weight));
            let weight = weight.ok_or_else(|| {
                ConfigError::new("providers", "has a weight that is not 1 to 1000")
            })?;
            if members.iter().any(|(member, _)| *member == place) {
                return Err(ConfigError::new("providers", "names a provider twice"));
            }
            members.push((place, weight));
        }
        Ok(Self {
            config: config.clone(),
            members,
        })
    }

    fn fits(&self, recipient: &Recipient, region: &Region) -> bool {
        if self.config.is_open() {
            return true;
        }
        match recipient {
            Recipient::Sms(number) => {
                self.config
                    .countries
                    .iter()
                    .any(|country| country == region.country())
                    || self
                        .config
                        .prefixes
                        .iter()
                        .any(|prefix| number.expose().starts_with(prefix))
            }
            Recipient::Email(address) => {
                let domain = address.domain().to_ascii_lowercase();
                self.config.domains.iter().any(|listed| {
                    domain
                        .strip_suffix(listed.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
                })
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
