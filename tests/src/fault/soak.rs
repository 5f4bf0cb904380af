//! Random faults, two at a time, for as long as one likes. The seed decides which, when and for how
//! long; what the machine makes of it differs from run to run.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep_until};

use super::injection::Fault;
use super::row::{Report, close, report, settle};
use super::stand::{Kind, Stand};
use super::table::{Pace, rows};
use crate::load::{Window, now_ms};

/// Faults at once.
const AT_ONCE: usize = 2;
const SHORTEST_MS: u64 = 1_000;
const LONGEST_MS: u64 = 12_000;
/// From the end of one fault to the next in its place.
const REST_MS: u64 = 4_000;

/// One place of the schedule: what is there, and until when; or nothing, and until when.
struct Place {
    fault: Option<Fault>,
    until: Instant,
}

/// Runs for `minutes` and judges the whole.
pub async fn soak(minutes: u64, seed: u64, per_second: u32) -> Report {
    let mut stand = Stand::start(Kind::Distributed).await;
    let mut random = StdRng::seed_from_u64(seed);
    let choices = choices();
    let before = stand.running();
    let load = stand.load(per_second);
    let begun = Instant::now();
    let begun_ms = now_ms();
    let end = begun + Duration::from_secs(minutes * 60);
    let mut restarts = Vec::new();
    let mut done = BTreeMap::<String, u32>::new();
    let mut places: Vec<Place> = (0..AT_ONCE)
        .map(|_| Place {
            fault: None,
            until: begun + Duration::from_millis(random.random_range(0..REST_MS)),
        })
        .collect();
    loop {
        let next = (0..AT_ONCE)
            .min_by_key(|index| places[*index].until)
            .unwrap_or(0);
        if places[next].until >= end {
            break;
        }
        sleep_until(places[next].until).await;
        let lasts = match places[next].fault.take() {
            Some(fault) => {
                say(begun, "ends  ", fault);
                fault.end(&mut stand).await;
                random.random_range(0..REST_MS)
            }
            None => {
                let taken: Vec<_> = places.iter().filter_map(|place| place.fault).collect();
                let fault = draw(&mut random, &choices, &taken);
                say(begun, "begins", fault);
                *done.entry(format!("{fault}")).or_default() += 1;
                restarts.extend(fault.restarts());
                if let Fault::Die(..) = fault {
                    // Armed now; it dies when the load gets there.
                    fault.prepare(&mut stand).await;
                }
                fault.begin(&mut stand).await;
                places[next].fault = Some(fault);
                random.random_range(SHORTEST_MS..LONGEST_MS)
            }
        };
        // Counted from here: starting a broker again takes its time.
        places[next].until = Instant::now() + Duration::from_millis(lasts);
    }
    for place in &mut places {
        if let Some(fault) = place.fault.take() {
            say(begun, "ends  ", fault);
            fault.end(&mut stand).await;
        }
    }
    let window = Window {
        begun_ms,
        healed_ms: now_ms(),
        clocks_were_wrong: false,
    };
    let is_calm = settle(&stand, &load, window.healed_ms).await;
    let verdict = close(&mut stand, &load, window).await;
    let name = format!(
        "soak of {minutes} min, seed {seed}, {} faults",
        done.values().sum::<u32>()
    );
    let mut report = report(&name, per_second, &verdict, false);
    if !is_calm {
        report.wrong.push("it does not become normal".to_owned());
    }
    report.wrong.extend(stand.restarted(&before, &restarts));
    report
        .wrong
        .extend(stand.disagreements(&load, &verdict).await);
    report
}

fn say(begun: Instant, what: &str, fault: Fault) {
    eprintln!("{:>8.1} s  {what}  {fault}", begun.elapsed().as_secs_f64());
}

/// Every fault of the table that its installation can suffer.
fn choices() -> Vec<Fault> {
    let rows = rows(Pace::Quick);
    let distributed = rows.iter().filter(|row| row.kind == Kind::Distributed);
    let mut faults = Vec::new();
    for fault in distributed.flat_map(|row| row.faults.clone()) {
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
    faults
}

fn draw(random: &mut StdRng, choices: &[Fault], taken: &[Fault]) -> Fault {
    loop {
        let fault = *choices.choose(random).expect("choices");
        let is_free = taken.iter().all(|other| !collide(fault, *other));
        if is_free {
            return fault;
        }
    }
}

/// One of a kind at a time; and nobody dies at a place that the other keeps it from.
fn collide(one: Fault, other: Fault) -> bool {
    let needs_all = |fault: Fault| matches!(fault, Fault::Die(..));
    one.target() == other.target() || needs_all(one) || needs_all(other)
}
