//! Tests of which circuit each outcome affects: a single destination does not open that of the
//! whole provider.

use watchword_core::{Channel, Recipient};

use super::*;
use AttemptClass as Class;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(0).plus_millis(ms)
}

fn country(code: &str) -> Region {
    Region::Country(code.into())
}

/// The health of one provider under test.
struct Watched {
    health: Health,
    now_ms: u64,
    recipients: u64,
}

impl Watched {
    fn new() -> Self {
        Self {
            health: Health::new(1, at(0)),
            now_ms: 0,
            recipients: 0,
        }
    }

    /// Creates a provider that accepted messages for `regions`.
    fn worked(regions: &[Region]) -> Self {
        let mut watched = Self::new();
        for region in regions {
            watched.see(region, Class::Accepted);
        }
        watched
    }

    fn see(&mut self, region: &Region, class: Class) {
        self.saw(region, &crate::Attempted::new(class, ""));
    }

    /// Applies an outcome, each time for another recipient.
    fn saw(&mut self, region: &Region, attempted: &crate::Attempted) {
        self.recipients += 1;
        self.saw_of(self.recipients, region, attempted);
    }

    fn saw_of(&self, recipient: u64, region: &Region, attempted: &crate::Attempted) {
        self.saw_as(true, recipient, region, attempted);
    }

    fn saw_as(
        &self,
        is_probe: bool,
        recipient: u64,
        region: &Region,
        attempted: &crate::Attempted,
    ) {
        self.health.see(&Seen {
            provider: 0,
            region,
            is_probe,
            recipient,
            class: attempted.class,
            scope: attempted.scope,
            took: Duration::ZERO,
            retry_after: attempted.retry_after,
            now: at(self.now_ms),
        });
    }

    fn admission(&self, region: &Region) -> Admission {
        self.health.admission(0, region, at(self.now_ms))
    }

    /// Asks for admission and starts the probe if one is due.
    fn ask(&self, region: &Region) -> Admission {
        let admission = self.admission(region);
        if admission == Admission::Probe {
            self.health.on_probe(0, region, at(self.now_ms));
        }
        admission
    }
}

const FULL: Admission = Admission::Share(10);

fn asks_to_wait(seconds: u64) -> crate::Attempted {
    let mut attempted = crate::Attempted::new(Class::Transient, "429");
    attempted.retry_after = Some(Duration::from_secs(seconds));
    attempted
}

/// A single destination leaves other countries their full share, however often it fails, whether
/// the answer is a refusal, a fault of our account or a failure.
#[test]
fn no_outcome_of_one_destination_touches_another() {
    let (sound, hostile) = (country("DE"), country("CU"));
    let by_status = crate::Attempted::new(Class::ConfigFault, "403").about(Scope::Destination);
    let outcomes = [
        crate::Attempted::new(Class::DestinationRefused, "403"),
        crate::Attempted::new(Class::ConfigFault, "403"),
        by_status,
        by_rule(),
        crate::Attempted::new(Class::Transient, "503"),
        crate::Attempted::new(Class::UnknownOutcome, "timeout"),
        crate::Attempted::new(Class::RecipientInvalid, "400"),
        asks_to_wait(900),
    ];
    for outcome in outcomes {
        let mut watched = Watched::worked(std::slice::from_ref(&sound));
        for _ in 0..1_000 {
            watched.now_ms += 250;
            watched.saw(&hostile, &outcome);
            assert_eq!(watched.admission(&sound), FULL, "{outcome:?}");
        }
        assert_eq!(
            watched.health.level(0, at(watched.now_ms)),
            10,
            "{outcome:?}"
        );
    }
}

/// Users choose the domains: a thousand domains that never worked are no evidence about a relay
/// that works elsewhere.
#[test]
fn destinations_that_never_worked_do_not_count_while_others_do() {
    let sound = Region::Domain("example.org".into());
    for class in [
        Class::DestinationRefused,
        Class::Transient,
        Class::ConfigFault,
    ] {
        let mut watched = Watched::worked(std::slice::from_ref(&sound));
        for number in 0..1_000 {
            let hostile = Region::Domain(format!("d{number}.example.net").into());
            watched.see(&hostile, class);
            assert_eq!(watched.admission(&sound), FULL, "{class}");
        }
        assert_eq!(watched.health.level(0, at(watched.now_ms)), 10, "{class}");
    }
}

#[test]
fn refusals_of_several_countries_that_worked_open_the_circuit() {
    let regions = ["DE", "AT", "FR"].map(country);
    let mut watched = Watched::worked(&regions);
    // Failures do not add up while a message is accepted in between.
    for _ in 0..10 {
        watched.see(&regions[0], Class::DestinationRefused);
        watched.see(&regions[1], Class::DestinationRefused);
        watched.see(&regions[2], Class::Accepted);
    }
    assert_eq!(watched.admission(&regions[2]), FULL);
    watched = Watched::worked(&regions);
    for region in &regions {
        assert_eq!(watched.admission(region), FULL);
        watched.see(region, Class::DestinationRefused);
    }
    // The same for a fourth region, but a lone provider is still called.
    assert_eq!(watched.admission(&country("ES")), Admission::LastResort);
    assert_eq!(watched.health.level(0, at(watched.now_ms)), 0);
}

#[test]
fn failures_in_a_row_of_several_destinations_open_the_circuit() {
    let domains = ["a", "b", "c", "d"].map(|name| Region::Domain(format!("{name}.example").into()));
    let mut watched = Watched::worked(&domains);
    for call in 0..9 {
        watched.see(&domains[call % 3], Class::Transient);
    }
    assert_eq!(watched.admission(&domains[3]), FULL);
    watched.see(&domains[0], Class::Transient);
    assert_eq!(watched.admission(&domains[3]), Admission::LastResort);
    // A connection that fails concerns all destinations at once.
    let mut watched = Watched::worked(&domains);
    let connect = crate::Attempted::new(Class::Transient, "connect").about(Scope::Provider);
    (0..10).for_each(|_| watched.saw(&domains[0], &connect));
    assert_eq!(watched.admission(&domains[3]), Admission::LastResort);
}

#[test]
fn a_fault_of_the_account_bars_the_provider_and_is_probed_every_five_seconds() {
    let (known, other) = (country("DE"), country("AT"));
    let mut watched = Watched::worked(std::slice::from_ref(&known));
    // At a destination that never worked, the fault is attributed to that country.
    watched.see(&other, Class::ConfigFault);
    assert_eq!(watched.admission(&other), Admission::Barred);
    assert_eq!(watched.admission(&known), FULL);
    watched.see(&known, Class::ConfigFault);
    for _ in 0..10 {
        assert_eq!(watched.admission(&known), Admission::Barred);
        watched.now_ms += 5_000;
        assert_eq!(watched.ask(&known), Admission::Probe);
        assert_eq!(watched.ask(&known), Admission::Barred, "one at a time");
        watched.see(&known, Class::ConfigFault);
    }
    watched.now_ms += 5_000;
    for _ in 0..3 {
        assert_eq!(watched.ask(&known), Admission::Probe);
        watched.see(&known, Class::Accepted);
    }
    assert_eq!(watched.admission(&known), Admission::Share(1));
    // If no message was ever accepted, the first fault counts.
    let mut watched = Watched::new();
    watched.see(&other, Class::ConfigFault);
    assert_eq!(watched.admission(&known), Admission::Barred);
}

/// A fault at only one country opens the whole provider's circuit once, not again after each
/// recovery.
#[test]
fn a_fault_that_one_country_keeps_stays_with_it() {
    let (sound, faulty) = (country("DE"), country("US"));
    let mut watched = Watched::worked(&[sound.clone(), faulty.clone()]);
    watched.see(&faulty, Class::ConfigFault);
    assert_eq!(watched.admission(&sound), Admission::Barred);
    watched.now_ms = 5_000;
    for _ in 0..3 {
        assert_eq!(watched.ask(&sound), Admission::Probe);
        watched.see(&sound, Class::Accepted);
    }
    for _ in 0..10 {
        assert_eq!(watched.ask(&faulty), Admission::Probe);
        watched.see(&faulty, Class::ConfigFault);
        assert_eq!(watched.admission(&faulty), Admission::Barred);
        assert_eq!(watched.admission(&sound), Admission::Share(1));
        watched.now_ms += 5_000;
    }
    watched.see(&sound, Class::ConfigFault);
    assert_eq!(watched.admission(&country("FR")), Admission::Barred);
}

fn by_rule() -> crate::Attempted {
    crate::Attempted::new(Class::ConfigFault, "400").about(Scope::Account)
}

/// A rule classifies an answer as a fault of our account, and only one country gets it: the others
/// keep their share, however often it happens.
#[test]
fn a_fault_by_rule_that_one_country_sees_bars_no_other() {
    let (sound, faulty) = (country("DE"), country("US"));
    let mut watched = Watched::worked(&[sound.clone(), faulty.clone()]);
    for _ in 0..20 {
        watched.saw(&faulty, &by_rule());
        assert_eq!(watched.admission(&faulty), Admission::Barred);
        assert_eq!(watched.admission(&sound), FULL);
        watched.see(&sound, Class::Accepted);
        watched.now_ms += 5_000;
        assert_eq!(watched.ask(&faulty), Admission::Probe);
    }
    // Now the account is refused: the first other country to get the answer proves it.
    watched.saw(&sound, &by_rule());
    watched.saw(&faulty, &by_rule());
    assert_eq!(watched.admission(&country("FR")), Admission::Barred);
}

#[test]
fn a_fault_by_rule_of_two_countries_in_a_row_bars_the_provider() {
    let regions = ["DE", "US"].map(country);
    let mut watched = Watched::worked(&regions);
    watched.saw(&regions[0], &by_rule());
    watched.see(&regions[1], Class::Accepted);
    watched.saw(&regions[1], &by_rule());
    assert_eq!(watched.admission(&country("FR")), FULL);
    let mut watched = Watched::worked(&regions);
    watched.saw(&regions[0], &by_rule());
    watched.saw(&regions[1], &by_rule());
    assert_eq!(watched.admission(&country("FR")), Admission::Barred);
    // A single country is enough if the provider never worked for another.
    for worked in [&regions[..1], &[]] {
        let mut watched = Watched::worked(worked);
        watched.saw(&regions[0], &by_rule());
        assert_eq!(watched.admission(&regions[1]), Admission::Barred);
    }
}

/// A receipt names no region: messages that are not delivered at one destination shrink no share.
#[test]
fn receipts_of_messages_that_did_not_arrive_do_not_shrink_the_share() {
    let region = country("DE");
    let watched = Watched::worked(std::slice::from_ref(&region));
    for second in 0..1_000 {
        let now = at(second * 1_000);
        watched.health.receipt(0, ReceiptState::Failed, now);
        watched.health.receipt(0, ReceiptState::Expired, now);
    }
    assert_eq!(watched.admission(&region), FULL);
}

/// A status that can also concern the recipient alone does not bar: a lone provider is still
/// called.
#[test]
fn a_guessed_fault_does_not_bar() {
    let regions = ["DE", "AT", "FR"].map(country);
    let guessed = crate::Attempted::new(Class::ConfigFault, "403").about(Scope::Destination);
    let mut watched = Watched::worked(&regions);
    for _ in 0..20 {
        watched.saw(&regions[0], &guessed);
    }
    assert_eq!(watched.admission(&regions[0]), Admission::LastResort);
    assert_eq!(watched.admission(&regions[1]), FULL);
    for region in &regions {
        watched.saw(region, &guessed);
    }
    assert_eq!(watched.admission(&country("ES")), Admission::LastResort);
}

#[test]
fn an_attempt_that_is_no_probe_frees_no_probe() {
    let region = country("DE");
    let mut watched = Watched::worked(std::slice::from_ref(&region));
    watched.see(&region, Class::ConfigFault);
    watched.now_ms = 5_000;
    assert_eq!(watched.ask(&region), Admission::Probe);
    for class in [Class::RecipientInvalid, Class::MessageRejected] {
        watched.saw_as(false, 1, &region, &crate::Attempted::new(class, "400"));
        assert_eq!(watched.admission(&region), Admission::Barred);
    }
    watched.see(&region, Class::RecipientInvalid);
    assert_eq!(watched.admission(&region), Admission::Probe);
}

#[test]
fn probes_are_for_countries_that_worked_before() {
    let (known, hostile) = (country("DE"), country("CU"));
    let mut watched = Watched::worked(std::slice::from_ref(&known));
    watched.see(&known, Class::ConfigFault);
    watched.now_ms = 5_000;
    assert_eq!(watched.ask(&hostile), Admission::Barred);
    assert_eq!(watched.admission(&known), Admission::Probe);
    // If no message to a country that worked comes, others may probe; their refusal is no evidence.
    watched.now_ms = 10_000;
    assert_eq!(watched.ask(&hostile), Admission::Probe);
    watched.see(&hostile, Class::DestinationRefused);
    assert_eq!(watched.ask(&hostile), Admission::Barred);
    assert_eq!(watched.admission(&known), Admission::Probe);
    watched.now_ms = 14_999;
    assert_eq!(watched.admission(&hostile), Admission::Barred);
    watched.now_ms = 15_000;
    assert_eq!(watched.ask(&hostile), Admission::Probe);
    watched.see(&hostile, Class::Accepted);
    assert_eq!(watched.admission(&hostile), Admission::Probe);
}

#[test]
fn a_wish_to_wait_is_of_one_recipient_then_of_its_country_then_of_all() {
    let regions = ["DE", "AT", "FR"].map(country);
    let watched = Watched::worked(&regions);
    for _ in 0..100 {
        watched.saw_of(7, &regions[0], &asks_to_wait(900));
    }
    assert_eq!(watched.admission(&regions[0]), FULL);
    let mut watched = Watched::worked(&regions);
    for _ in 0..3 {
        watched.saw(&regions[0], &asks_to_wait(900));
    }
    assert_eq!(watched.admission(&regions[0]), Admission::Barred);
    assert_eq!(watched.admission(&regions[1]), FULL);
    // A single country does not wait as long as one answer asks for.
    watched.now_ms = 60_000;
    assert_eq!(watched.admission(&regions[0]), FULL);
    watched.see(&regions[0], Class::Accepted);
    for region in &regions {
        watched.saw(region, &asks_to_wait(900));
    }
    assert_eq!(watched.admission(&country("ES")), Admission::Barred);
    watched.now_ms += 899_999;
    assert_eq!(watched.admission(&country("ES")), Admission::Barred);
    watched.now_ms += 1;
    assert_eq!(watched.admission(&country("ES")), FULL);
}

#[test]
fn failures_with_a_wish_to_wait_open_the_circuit_in_the_end() {
    let region = country("DE");
    // A wait of zero is no request to wait.
    let mut watched = Watched::worked(std::slice::from_ref(&region));
    (0..10).for_each(|_| watched.saw(&region, &asks_to_wait(0)));
    assert_eq!(watched.admission(&region), Admission::LastResort);
    // After each wait the provider fails again.
    let mut watched = Watched::worked(std::slice::from_ref(&region));
    (0..3).for_each(|_| watched.saw(&region, &asks_to_wait(10)));
    for _ in 0..10 {
        assert_eq!(watched.admission(&region), Admission::Barred);
        watched.now_ms += 10_000;
        watched.saw(&region, &asks_to_wait(10));
        if watched.health.level(0, at(watched.now_ms)) == 0 {
            break;
        }
    }
    assert_eq!(watched.admission(&region), Admission::LastResort);
    // A provider that waits and then works keeps its circuit closed.
    let mut watched = Watched::worked(std::slice::from_ref(&region));
    for _ in 0..10 {
        (0..3).for_each(|_| watched.saw(&region, &asks_to_wait(10)));
        watched.now_ms += 10_000;
        watched.see(&region, Class::Accepted);
    }
    assert_eq!(watched.admission(&region), FULL);
}

/// A provider that refuses every recipient is called after the others.
#[test]
fn answers_that_every_destination_gets_open_the_circuit() {
    let regions = ["DE", "AT", "FR"].map(country);
    for class in [Class::RecipientInvalid, Class::MessageRejected] {
        let mut watched = Watched::worked(&regions);
        for call in 0..9 {
            watched.see(&regions[call % 3], class);
        }
        assert_eq!(watched.admission(&regions[0]), FULL);
        watched.see(&regions[0], class);
        assert_eq!(watched.admission(&regions[0]), Admission::LastResort);
        // An acceptance in between shows that the recipients are the cause.
        let mut watched = Watched::worked(&regions);
        for call in 0..100 {
            watched.see(&regions[call % 3], class);
            if call % 9 == 8 {
                watched.see(&regions[0], Class::Accepted);
            }
        }
        assert_eq!(watched.admission(&regions[0]), FULL);
    }
}

/// An attempt without a call, and an answer that refuses the recipient, neither lower a provider's
/// score nor close its circuit.
#[test]
fn an_attempt_without_a_call_is_no_observation() {
    let region = country("DE");
    let outcomes = [
        crate::Attempted::not_called(Class::TextFault, "template"),
        crate::Attempted::not_called(Class::ConfigFault, "request"),
        crate::Attempted::new(Class::RecipientInvalid, "400"),
        crate::Attempted::new(Class::MessageRejected, "400"),
    ];
    for outcome in outcomes {
        let mut watched = Watched::worked(std::slice::from_ref(&region));
        (0..100).for_each(|_| watched.saw(&region, &outcome));
        assert_eq!(watched.admission(&region), FULL, "{outcome:?}");
        watched.see(&region, Class::ConfigFault);
        watched.now_ms = 5_000;
        for _ in 0..10 {
            assert_eq!(watched.ask(&region), Admission::Probe, "{outcome:?}");
            watched.saw(&region, &outcome);
        }
        assert_eq!(
            watched.health.level(0, at(watched.now_ms)),
            0,
            "{outcome:?}"
        );
    }
}

#[test]
fn a_receipt_of_an_earlier_message_is_no_probe() {
    let mut watched = Watched::new();
    let region = Region::of(&Recipient::parse(Channel::Email, "a@example.org").unwrap());
    watched.see(&region, Class::ConfigFault);
    watched.now_ms = 6_000;
    for _ in 0..3 {
        watched
            .health
            .receipt(0, ReceiptState::Delivered, at(6_000));
    }
    watched.health.receipt(0, ReceiptState::Failed, at(6_000));
    assert_eq!(watched.health.level(0, at(watched.now_ms)), 0);
    assert_eq!(watched.admission(&region), Admission::Probe);
}

/// A single bad country or domain is not displayed as a failure of the provider.
#[test]
fn the_level_shown_is_that_of_the_best_region() {
    let domains = ["a.example", "b.example"].map(|name| Region::Domain(name.into()));
    for regions in [domains, ["DE", "AT"].map(country)] {
        let mut watched = Watched::worked(&regions);
        (0..10).for_each(|_| watched.see(&regions[0], Class::Transient));
        assert_eq!(watched.health.level(0, at(watched.now_ms)), 10);
        let here = watched
            .health
            .country_level(0, &regions[0], at(watched.now_ms));
        assert_eq!(here, if regions[0].is_domain() { 10 } else { 0 });
        (0..10).for_each(|_| watched.see(&regions[1], Class::Transient));
        assert_eq!(watched.health.level(0, at(watched.now_ms)), 0);
    }
}

#[test]
fn an_operator_holds_a_circuit_until_the_end_and_no_longer() {
    let (german, french) = (country("DE"), country("FR"));
    let held = |is_open, until_ms| {
        Some(ByHand {
            is_open,
            until: at(until_ms),
        })
    };
    let watched = Watched::worked(std::slice::from_ref(&german));
    let health = &watched.health;
    health.hold(0, held(true, 60_000));
    for (ms, admission, level, circuit) in [
        (0, Admission::Barred, 0, Circuit::Open),
        (59_999, Admission::Barred, 0, Circuit::Open),
        (60_000, Admission::Share(10), 10, Circuit::Closed),
    ] {
        assert_eq!(health.admission(0, &german, at(ms)), admission, "{ms}");
        assert_eq!(health.level(0, at(ms)), level, "{ms}");
        assert_eq!(health.country_level(0, &german, at(ms)), level, "{ms}");
        assert_eq!(health.circuit(0, at(ms)).0, circuit, "{ms}");
    }

    // With the circuit forced closed, a provider gets its share although its calls fail. The
    // failures count again afterwards.
    let mut watched = Watched::worked(std::slice::from_ref(&german));
    watched.see(&german, Class::ConfigFault);
    watched.health.hold(0, held(false, 60_000));
    for region in [&german, &french] {
        let admission = watched.health.admission(0, region, at(1));
        assert_eq!(admission, Admission::Share(10));
    }
    assert_eq!(watched.health.circuit(0, at(1)).0, Circuit::Closed);
    assert_eq!(watched.health.level(0, at(60_000)), 0);
    assert_ne!(watched.health.circuit(0, at(60_000)).0, Circuit::Closed);
    watched.health.hold(0, held(false, 120_000));
    watched.health.hold(0, None);
    assert_eq!(watched.health.level(0, at(60_001)), 0);

    // An override that was set before the clock was set back by a week does not last a week.
    watched.health.hold(0, held(true, 7 * 86_400_000));
    assert_eq!(watched.health.by_hand(0, at(0)), None);
}
