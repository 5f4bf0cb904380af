//! Tests of routes and shares, and a simulated month in which the shares must settle.

use std::time::Duration;

use async_trait::async_trait;
use watchword_core::{AttemptClass, Channel, Live};

use super::*;
use crate::health::{ByHand, Seen, witness};
use crate::operators::{hold_circuit, replace_router};
use crate::{Attempted, Dispatch, Scope};

/// Recognizes a repeat if its name says so.
struct Named(ProviderName);

#[async_trait]
impl Provider for Named {
    fn name(&self) -> &ProviderName {
        &self.0
    }

    fn attempt_limit(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn is_idempotent(&self) -> bool {
        self.0.as_str() == "knows"
    }

    async fn attempt(&self, _: &Dispatch) -> Attempted {
        Attempted::new(AttemptClass::Accepted, "250")
    }
}

pub fn providers(names: &[&str]) -> Vec<Arc<dyn Provider>> {
    let named = |name: &&str| Arc::new(Named(name.parse().unwrap())) as Arc<dyn Provider>;
    names.iter().map(named).collect()
}

pub fn route(text: &str) -> Vec<RouteConfig> {
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
            "routes = [{ countries = [\"UK\"], providers = [\"a\"] }]",
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
        let text = format!("routes = [{{ choose = \"{choose}\", providers = [\"a\", \"b\"] }}]");
        Self {
            router: Router::new(providers(&["a", "b"]), &route(&text), NOW).unwrap(),
            salt: 0,
            steps_of_first: vec![(0, 10)],
        }
    }

    /// Sends one message at `second`; `bad` is each provider's rate of failures in permille.
    /// Returns the provider that accepted it.
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
            self.router.health.see(&Seen {
                provider: pick.place,
                region: &pick.region,
                is_probe: pick.is_probe,
                recipient: self.salt,
                class,
                scope: Scope::Destination,
                took: Duration::from_millis(100),
                retry_after: None,
                now,
            });
            if class == AttemptClass::Accepted {
                break Some(pick.place);
            }
            tried.push(pick.place);
        };
        let level = self.router.health.level(0, now);
        if self.steps_of_first.last().map(|(_, level)| *level) != Some(level) {
            self.steps_of_first.push((second, level));
        }
        taken
    }
}

/// The shares settle over a month in which the first provider is sound, poor, dead and sound again.
/// Its share changes a bounded number of times, and stays constant while the provider's quality is
/// constant.
#[test]
fn a_simulated_month_settles_and_does_not_flap() {
    const DAY: u64 = 86_400;
    for choose in ["ordered", "weighted"] {
        let mut month = Month::new(choose);
        let (mut lost, mut sent) = (0, 0);
        for second in 0..30 * DAY {
            let bad = match second / DAY {
                0..=4 => 20,      // sound: 2 % transient
                5..=9 => 80,      // between the thresholds: no change
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
        // Recovered: the share returns in steps of one and then stays.
        let healed: Vec<_> = steps.iter().filter(|(at, _)| *at >= 20 * DAY).collect();
        assert!(healed.len() <= 12, "{choose}: {healed:?}");
        let end = NOW.plus_millis(30 * DAY * 1_000);
        assert_eq!(month.router.health.level(0, end), 10);
        for pair in healed.windows(2) {
            assert!(pair[1].1 == pair[0].1 + 1, "{choose}: {healed:?}");
            assert!(pair[1].0 - pair[0].0 >= 30, "{choose}: {healed:?}");
        }
        // Only messages that both refused at once wait: a fraction of those that one refuses.
        assert!(lost * 100 < sent, "{choose}: {lost} of {sent}");
    }
}

#[test]
fn shares_follow_weights_and_levels() {
    let routes = route("routes = [{ choose = \"weighted\", providers = [\"a:3\", \"b\"] }]");
    let router = Router::new(providers(&["a", "b"]), &routes, NOW).unwrap();
    let to = sms("+4915112345678");
    let first = (0..10_000).filter(|salt| router.pick(&to, &[], *salt, NOW).unwrap().place == 0);
    let first = first.count();
    assert!((7_300..7_700).contains(&first), "{first}");
    assert_eq!(router.pick(&to, &[0], 1, NOW).unwrap().place, 1);
    assert!(router.pick(&to, &[0, 1], 1, NOW).is_none());
}

/// Records an outcome of `provider` for `to`.
fn see(router: &Router, provider: usize, to: &Recipient, attempted: &Attempted, now: Timestamp) {
    router.health.see(&Seen {
        provider,
        region: &Region::of(to),
        is_probe: true,
        recipient: witness(to),
        class: attempted.class,
        scope: attempted.scope,
        took: Duration::ZERO,
        retry_after: attempted.retry_after,
        now,
    });
}

/// With a fault of the account no provider is called; after plain failures one still is.
#[test]
fn a_lone_provider_is_asked_again_unless_it_has_a_fault() {
    let router = Router::single(providers(&["a"]).remove(0), NOW);
    let to = sms("+4915112345678");
    let numbers = ["+4915112345678", "+4915112345679", "+4915112345670"].map(sms);
    let failed = Attempted::new(AttemptClass::Transient, "500");
    (0..50).for_each(|_| see(&router, 0, &to, &failed, NOW));
    assert!(router.pick(&to, &[], 0, NOW).is_some());
    let router = Router::single(providers(&["a"]).remove(0), NOW);
    let mut waits = failed;
    waits.retry_after = Some(Duration::from_secs(2));
    for number in &numbers {
        assert!(router.pick(&to, &[], 0, NOW).is_some());
        see(&router, 0, number, &waits, NOW);
    }
    assert!(router.pick(&to, &[], 0, NOW).is_none(), "it asked to wait");
    assert!(router.pick(&to, &[], 0, NOW.plus_millis(2_000)).is_some());
    let fault = Attempted::new(AttemptClass::ConfigFault, "401");
    see(&router, 0, &to, &fault, NOW);
    assert!(router.pick(&to, &[], 0, NOW).is_none());
    assert!(
        router.pick(&to, &[], 0, NOW.plus_millis(5_000)).is_some(),
        "a probe"
    );
}

/// Sends to `to` as a worker does: tries each provider once until one accepts. Returns whether one
/// accepted, and how many were called.
fn deliver(
    router: &Router,
    to: &Recipient,
    salt: u64,
    now: Timestamp,
    outcome: impl Fn(usize) -> Attempted,
) -> (bool, usize) {
    let mut tried = Vec::new();
    while let Some(pick) = router.pick(to, &tried, salt, now) {
        let attempted = outcome(pick.place);
        see(router, pick.place, to, &attempted, now);
        tried.push(pick.place);
        if attempted.class == AttemptClass::Accepted {
            return (true, tried.len());
        }
        if !router.has_another(to, &tried, now) {
            break;
        }
    }
    (false, tried.len())
}

/// Four requests a second to destinations that every provider refuses, among thirty valid ones:
/// each valid message is accepted at once, by the first provider called.
#[test]
fn refused_destinations_hold_up_no_sound_message() {
    let numbers = |salt: u64| sms(&format!("+5351{:06}", salt % 1_000_000));
    let addresses = |salt: u64| {
        let address = format!("a@d{salt}.example.net");
        Recipient::parse(Channel::Email, &address).unwrap()
    };
    let sound_mail = Recipient::parse(Channel::Email, "jane@example.org").unwrap();
    let german = sms("+4915112345678");
    let by_rule = Attempted::new(AttemptClass::DestinationRefused, "403");
    // The same, if the tables still classify the answer as a fault of the account.
    let as_fault = Attempted::new(AttemptClass::ConfigFault, "403");
    let cases: [(&dyn Fn(u64) -> Recipient, &Recipient); 2] =
        [(&numbers, &german), (&addresses, &sound_mail)];
    for (hostile, sound) in cases {
        for refusal in [&by_rule, &as_fault] {
            for names in [&["a"][..], &["a", "b"], &["a", "b", "c"]] {
                let routes = RouteConfig {
                    countries: Vec::new(),
                    prefixes: Vec::new(),
                    domains: Vec::new(),
                    choose: Choose::Ordered,
                    providers: names.iter().map(ToString::to_string).collect(),
                };
                let router = Router::new(providers(names), &[routes], NOW).unwrap();
                let accepted = |_| Attempted::new(AttemptClass::Accepted, "202");
                assert!(deliver(&router, sound, 0, NOW, accepted).0);
                for quarter in 1..=240_u64 {
                    let now = NOW.plus_millis(quarter * 250);
                    deliver(&router, &hostile(quarter), quarter, now, |_| {
                        refusal.clone()
                    });
                    if quarter.is_multiple_of(8) {
                        let sent = deliver(&router, sound, quarter, now, accepted);
                        assert_eq!(sent, (true, 1), "{names:?} {refusal:?} {quarter}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_provider_is_left_until_all_of_the_route_have_refused() {
    let routes = route(
        "routes = [{ countries = [\"DE\"], providers = [\"a\", \"b\"] }, { providers = [\"c\"] }]",
    );
    let router = Router::new(providers(&["a", "b", "c"]), &routes, NOW).unwrap();
    let to = sms("+4915112345678");
    assert!(router.has_left(&to, &[0]));
    assert!(!router.has_left(&to, &[0, 1]), "c is of another route");
    assert!(!router.has_left(&sms("+436601234567"), &[2]));
}

#[test]
fn a_route_whose_providers_are_all_stopped_says_why() {
    let routes =
        route("routes = [{ countries = [\"DE\"], providers = [\"a\"] }, { providers = [\"b\"] }]");
    let router = Router::new(providers(&["a", "b"]), &routes, NOW).unwrap();
    let sentences = |now| {
        let found = router.standstills(now).into_iter();
        found
            .map(|one| one.sentence(Channel::Sms))
            .collect::<Vec<_>>()
    };
    let held = Some(ByHand {
        is_open: true,
        until: NOW.plus_millis(60_000),
    });
    assert!(sentences(NOW).is_empty());
    router.hold(&"a".parse().unwrap(), held, NOW);
    let a = format!(
        "a is held open by an operator until {}",
        NOW.plus_millis(60_000)
    );
    let of_route = format!("no provider of sms.routes[0] is called: {a}");
    assert_eq!(sentences(NOW), [of_route]);
    let to = sms("+4915112345678");
    let region = Region::of(&to);
    for _ in 0..10 {
        router.health.see(&Seen {
            provider: 1,
            region: &region,
            is_probe: false,
            recipient: witness(&to),
            class: AttemptClass::Transient,
            scope: Scope::Provider,
            took: Duration::ZERO,
            retry_after: None,
            now: NOW,
        });
    }
    let b = "b has an open circuit after failed calls";
    assert_eq!(
        sentences(NOW),
        [format!("no provider of sms works: {a}, {b}")]
    );
    // The half-open circuit of `b` gets probes only; `a` is given back.
    let later = NOW.plus_millis(60_000);
    assert_eq!(
        sentences(later),
        [format!("no provider of sms.routes[1] works: {b}")]
    );
}

#[test]
fn a_circuit_opened_by_hand_gives_the_messages_to_the_next_provider_through_a_reload() {
    let routes = route("routes = [{ providers = [\"a\", \"b\"] }]");
    let router = || Router::new(providers(&["a", "b"]), &routes, NOW).unwrap();
    let (first, second) = (router(), router());
    let to = sms("+4915112345678");
    let (name, nobody) = ("a".parse().unwrap(), "z".parse().unwrap());
    let held = |seconds: u64| {
        Some(ByHand {
            is_open: true,
            until: NOW.plus_millis(seconds * 1_000),
        })
    };
    assert!(first.hold(&name, held(60), NOW));
    assert!(!first.hold(&nobody, held(60), NOW));
    second.keep_held(&first, NOW);
    for router in [&first, &second] {
        let picked = |tried: &[usize], ms| {
            let pick = router.pick(&to, tried, 0, NOW.plus_millis(ms));
            pick.map(|pick| pick.place)
        };
        assert_eq!(picked(&[], 59_999), Some(1));
        assert_eq!(picked(&[1], 59_999), None, "it is no last resort");
        assert_eq!(picked(&[], 60_000), Some(0));
        let view = &router.views(NOW)[0];
        assert_eq!((view.share_tenths, view.by_hand), (0, held(60)));
    }
    // A circuit that is held while a reload replaces the router stays held, and one that is given
    // back stays given back.
    let live = Live::new(router());
    let reloads = live.clone();
    let reloader = std::thread::spawn({
        let routes = routes.clone();
        move || {
            for _ in 0..3_000 {
                let next = Router::new(providers(&["a", "b"]), &routes, NOW).unwrap();
                replace_router(&reloads, next, NOW);
            }
        }
    });
    for change in (0..20_000).cycle() {
        if reloader.is_finished() {
            break;
        }
        let by_hand = held(60).filter(|_| change % 2 == 0);
        hold_circuit(&live, &name, by_hand, NOW).unwrap();
        assert_eq!(live.get().views(NOW)[0].by_hand, by_hand, "{change}");
    }
    reloader.join().unwrap();
    // No override of a circuit lasts longer than a day.
    first.hold(&name, held(1_000_000), NOW);
    assert_eq!(first.views(NOW)[0].by_hand, held(86_400));
}
