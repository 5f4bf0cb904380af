//! Which provider gets a message: the first route that fits the recipient, then by order or by
//! weight among its providers, each as far as its health admits it. Refuses to wait and to call.

use std::sync::Arc;

use serde::Deserialize;
use watchword_chassis::config::ConfigError;
use watchword_core::{ProviderName, Recipient, Timestamp};

use crate::health::{Admission, Health, Region};
use crate::provider::Provider;

/// One entry of `[[sms.routes]]` or `[[email.routes]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// Countries (ISO 3166) it is for.
    #[serde(default)]
    pub countries: Vec<String>,
    /// Starts of numbers it is for: `+4915`.
    #[serde(default)]
    pub prefixes: Vec<String>,
    /// Mail domains it is for; subdomains included.
    #[serde(default)]
    pub domains: Vec<String>,
    /// How its providers share the work.
    #[serde(default)]
    pub choose: Choose,
    /// Its providers; with `choose = "weighted"` a name may carry its weight: `"acme:3"`.
    pub providers: Vec<String>,
}

/// How the providers of a route share the work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choose {
    /// The first that is healthy.
    #[default]
    Ordered,
    /// By their weights.
    Weighted,
}

struct Route {
    config: RouteConfig,
    /// Places in the list of providers, with their weights.
    members: Vec<(usize, u32)>,
}

/// The providers of one channel, their routes and their health.
pub struct Router {
    providers: Vec<Arc<dyn Provider>>,
    routes: Vec<Route>,
    pub(crate) health: Health,
}

/// A provider that was picked for an attempt.
pub(crate) struct Pick {
    pub place: usize,
    pub region: Region,
}

impl Router {
    /// Checks `routes` against `providers`; without routes there must be one provider, which gets
    /// everything.
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
                "is needed to say which of several providers gets what",
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
                    "is never reached: the route before it takes everything",
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
                return Err(ConfigError::new(key, "stands in no route"));
            }
        }
        let health = Health::new(providers.len(), now);
        Ok(Self {
            providers,
            routes: compiled,
            health,
        })
    }

    /// A router that gives everything to one provider.
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
        }
    }

    /// The providers.
    pub fn providers(&self) -> &[Arc<dyn Provider>] {
        &self.providers
    }

    pub(crate) fn place(&self, name: &ProviderName) -> Option<usize> {
        self.providers
            .iter()
            .position(|provider| provider.name() == name)
    }

    /// The provider for the next attempt, `tried` ones left out; `salt` decides between shares.
    /// With nobody tried yet, a provider that only failed is better than none; one that has a
    /// fault or asked for rest is not.
    pub(crate) fn pick(
        &self,
        recipient: &Recipient,
        tried: &[usize],
        salt: u64,
        now: Timestamp,
    ) -> Option<Pick> {
        let region = region_of(recipient);
        let route = self
            .routes
            .iter()
            .find(|route| route.fits(recipient, &region))?;
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
        let place = match place {
            Some(place) => {
                if open.contains(&(place, weight_in(&open, place), Admission::Trial)) {
                    self.health.on_trial(place, &region, now);
                }
                place
            }
            None if tried.is_empty() => route
                .members
                .iter()
                .map(|(place, _)| *place)
                .find(|place| !self.health.is_shut(*place, now))?,
            None => return None,
        };
        Some(Pick { place, region })
    }

    /// Whether another provider than `tried` could be asked now.
    pub(crate) fn has_another(
        &self,
        recipient: &Recipient,
        tried: &[usize],
        now: Timestamp,
    ) -> bool {
        let region = region_of(recipient);
        self.routes
            .iter()
            .find(|route| route.fits(recipient, &region))
            .is_some_and(|route| {
                route.members.iter().any(|(place, _)| {
                    !tried.contains(place)
                        && self.health.admission(*place, &region, now) != Admission::Closed
                })
            })
    }
}

type Candidate = (usize, u32, Admission);

fn weight_in(open: &[Candidate], wanted: usize) -> u32 {
    open.iter()
        .find(|(place, ..)| *place == wanted)
        .map_or(0, |(_, weight, _)| *weight)
}

/// A trial goes first: it is one message, and it has others to fall back to.
fn trial(open: &[Candidate]) -> Option<usize> {
    open.iter()
        .find(|(_, _, admission)| *admission == Admission::Trial)
        .map(|(place, ..)| *place)
}

/// The first in order gets as many tenths as its level says, the next the same of what is left.
fn ordered(open: &[Candidate], salt: u64) -> Option<usize> {
    let mut last = None;
    for (index, (place, _, admission)) in open.iter().enumerate() {
        match admission {
            Admission::Trial => return Some(*place),
            Admission::Closed => {}
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
    if let Some(place) = trial(open) {
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

/// Spreads the bits of a counter (`SplitMix64`'s finaliser): no secret depends on it.
const fn mix(salt: u64) -> u64 {
    let z = salt.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn region_of(recipient: &Recipient) -> Region {
    match recipient {
        Recipient::Sms(number) => number.country().unwrap_or_default(),
        Recipient::Email(_) => String::new(),
    }
}

impl RouteConfig {
    fn is_open(&self) -> bool {
        self.countries.is_empty() && self.prefixes.is_empty() && self.domains.is_empty()
    }
}

impl Route {
    fn compile(config: &RouteConfig, providers: &[Arc<dyn Provider>]) -> Result<Self, ConfigError> {
        let country =
            |code: &String| code.len() == 2 && code.bytes().all(|b| b.is_ascii_uppercase());
        if !config.countries.iter().all(country) {
            return Err(ConfigError::new(
                "countries",
                "are two capital letters each: DE",
            ));
        }
        let prefix = |text: &String| {
            text.strip_prefix('+')
                .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
        };
        if !config.prefixes.iter().all(prefix) {
            return Err(ConfigError::new("prefixes", "are + and digits each: +4915"));
        }
        if config.providers.is_empty() {
            return Err(ConfigError::new("providers", "must name at least one"));
        }
        let mut members: Vec<(usize, u32)> = Vec::new();
        for text in &config.providers {
            let (name, weight) = text.split_once(':').unwrap_or((text, "1"));
            let place = providers
                .iter()
                .position(|provider| provider.name().as_str() == name)
                .ok_or_else(|| ConfigError::new("providers", "names one that is not configured"))?;
            let weight = weight
                .parse()
                .ok()
                .filter(|weight| (1..=1_000).contains(weight));
            let weight = weight.ok_or_else(|| {
                ConfigError::new("providers", "has a weight that is not 1 to 1000")
            })?;
            if members.iter().any(|(member, _)| *member == place) {
                return Err(ConfigError::new("providers", "names one twice"));
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
                self.config.countries.contains(region)
                    || self
                        .config
                        .prefixes
                        .iter()
                        .any(|prefix| number.expose().starts_with(prefix))
            }
            Recipient::Email(address) => {
                let domain = address.expose().rsplit('@').next().unwrap_or_default();
                let domain = domain.to_ascii_lowercase();
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
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;
    use watchword_core::{AttemptClass, Channel};

    use super::*;
    use crate::health::Seen;
    use crate::{Attempted, Dispatch};

    struct Named(ProviderName);

    #[async_trait]
    impl Provider for Named {
        fn name(&self) -> &ProviderName {
            &self.0
        }

        fn attempt_limit(&self) -> Duration {
            Duration::from_secs(1)
        }

        async fn attempt(&self, _: &Dispatch) -> Attempted {
            Attempted::new(AttemptClass::Accepted, "250")
        }
    }

    fn providers(names: &[&str]) -> Vec<Arc<dyn Provider>> {
        let named = |name: &&str| Arc::new(Named(name.parse().unwrap())) as Arc<dyn Provider>;
        names.iter().map(named).collect()
    }

    fn route(text: &str) -> Vec<RouteConfig> {
        #[derive(Deserialize)]
        struct Routes {
            routes: Vec<RouteConfig>,
        }
        toml::from_str::<Routes>(text).unwrap().routes
    }

    fn sms(number: &str) -> Recipient {
        Recipient::parse(Channel::Sms, number).unwrap()
    }

    const NOW: Timestamp = Timestamp::from_millis(0);

    #[test]
    fn the_first_route_that_fits_decides() {
        let routes = route(
            "routes = [{ countries = [\"AT\"], providers = [\"a\"] }, { prefixes = [\"+4915\"], providers = [\"b\"] },
             { providers = [\"c\"] }]",
        );
        let router = Router::new(providers(&["a", "b", "c"]), &routes, NOW).unwrap();
        let to = |number: &str| router.pick(&sms(number), &[], 0, NOW).unwrap().place;
        assert_eq!(to("+436601234567"), 0);
        assert_eq!(to("+4915112345678"), 1);
        assert_eq!(to("+4917612345678"), 2);
        let domains = route(
            "routes = [{ domains = [\"example.com\"], providers = [\"a\"] }, { providers = [\"b\"] }]",
        );
        let router = Router::new(providers(&["a", "b"]), &domains, NOW).unwrap();
        for (address, place) in [
            ("x@example.com", 0),
            ("x@m.EXAMPLE.com", 0),
            ("x@badexample.com", 1),
        ] {
            let to = Recipient::parse(Channel::Email, address).unwrap();
            assert_eq!(
                router.pick(&to, &[], 0, NOW).unwrap().place,
                place,
                "{address}"
            );
        }
    }

    #[test]
    fn wrong_routes_are_refused_by_key() {
        for (text, key) in [
            ("routes = [{ providers = [] }]", "routes[0].providers"),
            ("routes = [{ providers = [\"x\"] }]", "routes[0].providers"),
            (
                "routes = [{ providers = [\"a\", \"a\"] }]",
                "routes[0].providers",
            ),
            (
                "routes = [{ providers = [\"a:0\", \"b\"] }]",
                "routes[0].providers",
            ),
            (
                "routes = [{ countries = [\"de\"], providers = [\"a\"] }]",
                "routes[0].countries",
            ),
            (
                "routes = [{ prefixes = [\"49\"], providers = [\"a\"] }]",
                "routes[0].prefixes",
            ),
            (
                "routes = [{ providers = [\"a\", \"b\"] }, { providers = [\"b\"] }]",
                "routes[1].providers",
            ),
            (
                "routes = [{ countries = [\"DE\"], providers = [\"a\", \"b\"] }]",
                "routes",
            ),
            ("routes = [{ providers = [\"a\"] }]", "providers.b"),
            ("routes = []", "routes"),
        ] {
            let refused = Router::new(providers(&["a", "b"]), &route(text), NOW)
                .err()
                .unwrap();
            assert_eq!(refused.key, key, "{text}");
        }
    }

    /// A month of traffic through two providers of a route, with bad days of each kind.
    struct Month {
        router: Router,
        salt: u64,
        steps_of_first: Vec<(u64, u8)>,
    }

    impl Month {
        fn new(choose: &str) -> Self {
            let text =
                format!("routes = [{{ choose = \"{choose}\", providers = [\"a\", \"b\"] }}]");
            Self {
                router: Router::new(providers(&["a", "b"]), &route(&text), NOW).unwrap(),
                salt: 0,
                steps_of_first: vec![(0, 10)],
            }
        }

        /// One message at `second`; `bad` is the permille of bad ends of each provider. Gives who
        /// took it.
        fn send(&mut self, second: u64, bad: [u64; 2]) -> Option<usize> {
            let to = Recipient::parse(Channel::Email, "a@example.org").unwrap();
            let now = NOW.plus_millis(second * 1_000);
            let mut tried = Vec::new();
            self.salt += 1;
            let taken = loop {
                let Some(pick) = self.router.pick(&to, &tried, self.salt, now) else {
                    break None;
                };
                let dice = mix(self.salt * 2 + pick.place as u64 + 7) % 1_000;
                let class = if dice < bad[pick.place] {
                    AttemptClass::Transient
                } else {
                    AttemptClass::Accepted
                };
                self.router.health.seen(&Seen {
                    provider: pick.place,
                    region: &pick.region,
                    class,
                    took: Duration::from_millis(100),
                    retry_after: None,
                    now,
                });
                if class == AttemptClass::Accepted {
                    break Some(pick.place);
                }
                tried.push(pick.place);
            };
            let level = self.router.health.level(0);
            if self.steps_of_first.last().map(|(_, level)| *level) != Some(level) {
                self.steps_of_first.push((second, level));
            }
            taken
        }
    }

    /// The balance settles: a month in which the first provider is sound, poor, broken and sound
    /// again. It never flaps: its share changes a bounded number of times, and while nothing
    /// changes at the provider it stays where it is.
    #[test]
    fn a_simulated_month_settles_and_does_not_flap() {
        const DAY: u64 = 86_400;
        for choose in ["ordered", "weighted"] {
            let mut month = Month::new(choose);
            let (mut lost, mut sent) = (0, 0);
            for second in 0..30 * DAY {
                let bad = match second / DAY {
                    0..=4 => 20,      // sound: 2 % transient
                    5..=9 => 80,      // between the bounds: nothing is to change
                    10..=14 => 300,   // poor: it keeps the smallest share
                    15..=19 => 1_000, // dead
                    _ => 10,
                };
                sent += 1;
                lost += u32::from(month.send(second, [bad, 10]).is_none());
            }
            let steps = &month.steps_of_first;
            let within = |from: u64, to: u64| {
                steps
                    .iter()
                    .filter(|(at, _)| (from * DAY..to * DAY).contains(at))
                    .count()
            };
            println!(
                "{choose}: {} steps in a month, {lost} of {sent} waited; by days {:?}",
                steps.len(),
                [
                    within(0, 10),
                    within(10, 15),
                    within(15, 20),
                    within(20, 30)
                ]
            );
            assert_eq!(
                within(0, 10),
                1,
                "{choose}: sound and middling, nothing changes"
            );
            assert!(
                within(10, 15) <= 60,
                "{choose}: poor for five days: {}",
                within(10, 15)
            );
            assert!(
                within(15, 20) <= 20,
                "{choose}: dead for five days: {}",
                within(15, 20)
            );
            // Healed: back in steps of one, and then quiet.
            let healed: Vec<_> = steps.iter().filter(|(at, _)| *at >= 20 * DAY).collect();
            assert!(healed.len() <= 12, "{choose}: {healed:?}");
            assert_eq!(month.router.health.level(0), 10);
            for pair in healed.windows(2) {
                assert!(pair[1].1 == pair[0].1 + 1, "{choose}: {healed:?}");
                assert!(pair[1].0 - pair[0].0 >= 30, "{choose}: {healed:?}");
            }
            // What waits is what both refused at once: a fraction of what one refuses.
            assert!(lost * 100 < sent, "{choose}: {lost} of {sent}");
        }
    }

    #[test]
    fn shares_follow_weights_and_levels() {
        let routes = route("routes = [{ choose = \"weighted\", providers = [\"a:3\", \"b\"] }]");
        let router = Router::new(providers(&["a", "b"]), &routes, NOW).unwrap();
        let to = sms("+4915112345678");
        let first =
            (0..10_000).filter(|salt| router.pick(&to, &[], *salt, NOW).unwrap().place == 0);
        let first = first.count();
        assert!((7_300..7_700).contains(&first), "{first}");
        assert_eq!(router.pick(&to, &[0], 1, NOW).unwrap().place, 1);
        assert!(router.pick(&to, &[0, 1], 1, NOW).is_none());
    }

    /// With a fault nobody is asked; with mere failures somebody is.
    #[test]
    fn a_lone_provider_is_asked_again_unless_it_has_a_fault() {
        let router = Router::single(providers(&["a"]).remove(0), NOW);
        let to = sms("+4915112345678");
        let see = |class| {
            router.health.seen(&Seen {
                provider: 0,
                region: &"DE".to_owned(),
                class,
                took: Duration::ZERO,
                retry_after: None,
                now: NOW,
            });
        };
        (0..50).for_each(|_| see(AttemptClass::Transient));
        assert!(router.pick(&to, &[], 0, NOW).is_some());
        router.health.seen(&Seen {
            provider: 0,
            region: &"DE".to_owned(),
            class: AttemptClass::Transient,
            took: Duration::ZERO,
            retry_after: Some(Duration::from_secs(2)),
            now: NOW,
        });
        assert!(router.pick(&to, &[], 0, NOW).is_none(), "it asked for rest");
        assert!(router.pick(&to, &[], 0, NOW.plus_millis(2_000)).is_some());
        see(AttemptClass::ConfigFault);
        assert!(router.pick(&to, &[], 0, NOW).is_none());
        assert!(
            router.pick(&to, &[], 0, NOW.plus_millis(5_000)).is_some(),
            "a trial"
        );
    }
}
