//! Random faults, two at a time, for a given number of minutes. The seed decides which, when and
//! for how long; the resulting timing still differs from run to run.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep_until};

use super::injection::{Fault, kill};
use super::row::{Report, close, report, settle};
use super::stand::{Kind, Stand};
use super::table::{Pace, rows};
use crate::load::{Window, now_ms};

/// Number of faults at once.
const AT_ONCE: usize = 2;
const SHORTEST_MS: u64 = 1_000;
const LONGEST_MS: u64 = 12_000;
/// Longest pause between two faults in one slot.
const REST_MS: u64 = 4_000;

/// A scheduled begin or end of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Event {
    at_ms: u64,
    fault: Fault,
    begins: bool,
}

/// Returns the schedule of a seed. It is a pure function: the same seed gives the same events.
fn schedule(minutes: u64, seed: u64) -> Vec<Event> {
    let mut random = StdRng::seed_from_u64(seed);
    let (choices, end_ms) = (choices(), minutes * 60_000);
    let mut events = Vec::new();
    // Per slot: its active fault, if any, and the time of its next change.
    let mut places: Vec<(Option<Fault>, u64)> = (0..AT_ONCE)
        .map(|_| (None, random.random_range(0..REST_MS)))
        .collect();
    loop {
        let next = (0..AT_ONCE)
            .min_by_key(|index| places[*index].1)
            .unwrap_or(0);
        let (there, at_ms) = places[next];
        if at_ms >= end_ms {
            break;
        }
        let (fault, begins, lasts_ms) = if let Some(fault) = there {
            (fault, false, random.random_range(0..REST_MS))
        } else {
            let taken: Vec<_> = places.iter().filter_map(|(fault, _)| *fault).collect();
            let fault = draw(&mut random, &choices, &taken);
            (fault, true, random.random_range(SHORTEST_MS..LONGEST_MS))
        };
        events.push(Event {
            at_ms,
            fault,
            begins,
        });
        places[next] = (begins.then_some(fault), at_ms + lasts_ms);
    }
    let left = places.into_iter().filter_map(|(fault, _)| fault);
    events.extend(left.map(|fault| Event {
        at_ms: end_ms,
        fault,
        begins: false,
    }));
    events
}

/// Runs for `minutes` and judges the whole. A step that takes long, such as starting a broker,
/// delays the following ones; their order stays.
pub async fn soak(minutes: u64, seed: u64, per_second: u32) -> Report {
    let mut stand = Stand::start(Kind::Distributed).await;
    let events = schedule(minutes, seed);
    let before = stand.running();
    let load = stand.load(per_second);
    let (begun, begun_ms) = (Instant::now(), now_ms());
    for event in &events {
        sleep_until(begun + Duration::from_millis(event.at_ms)).await;
        let seconds = begun.elapsed().as_secs_f64();
        let word = if event.begins { "begins" } else { "ends  " };
        eprintln!("{seconds:>8.1} s  {word}  {}", event.fault);
        if event.begins {
            begin(event.fault, &mut stand).await;
        } else {
            end(event.fault, &mut stand).await;
        }
    }
    for name in stand.names() {
        stand.pipeline.ready(name).await;
    }
    let window = Window {
        begun_ms,
        healed_ms: now_ms(),
        clocks_were_wrong: false,
        store_forgot: false,
    };
    let is_calm = settle(&stand, &load, window.healed_ms).await;
    let verdict = close(&mut stand, &load, window).await;
    let faults = events.iter().filter(|event| event.begins);
    let name = format!(
        "soak of {minutes} min, seed {seed}, {} faults",
        faults.clone().count()
    );
    let mut report = report(&name, per_second, &verdict, false);
    if !is_calm {
        report.wrong.push("did not return to normal".to_owned());
    }
    let restarts: Vec<_> = faults.filter_map(|event| event.fault.restarts()).collect();
    report.wrong.extend(stand.restarted(&before, &restarts));
    report
        .wrong
        .extend(stand.disagreements(&load, &verdict).await);
    report
}

/// Returns every fault of the table that a distributed installation can suffer.
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

/// Injects a fault without waiting for readiness or for the death at a failpoint, because the other
/// active fault may prevent both.
async fn begin(fault: Fault, stand: &mut Stand) {
    match fault {
        Fault::Die(name, point, times) => {
            kill(stand, name);
            stand.launch(name, Some(format!("{}:{times}", point.as_str())));
        }
        other => other.begin(stand).await,
    }
}

async fn end(fault: Fault, stand: &mut Stand) {
    match fault {
        Fault::Kill(name) | Fault::Die(name, ..) => {
            kill(stand, name);
            stand.launch(name, None);
        }
        other => other.end(stand).await,
    }
}

/// Draws a fault whose target is not taken: two faults of one target cannot be active at once.
fn draw(random: &mut StdRng, choices: &[Fault], taken: &[Fault]) -> Fault {
    loop {
        let fault = *choices.choose(random).expect("choices");
        if taken.iter().all(|other| fault.target() != other.target()) {
            return fault;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_its_events_and_no_target_two_faults() {
        let events = schedule(30, 7);
        assert_eq!(events, schedule(30, 7));
        assert_ne!(events, schedule(30, 8));
        assert!(events.is_sorted_by_key(|event| event.at_ms));
        let mut there: Vec<Fault> = Vec::new();
        for event in events {
            if event.begins {
                assert!(
                    there
                        .iter()
                        .all(|fault| fault.target() != event.fault.target())
                );
                there.push(event.fault);
                assert!(there.len() <= AT_ONCE);
            } else {
                let index = there.iter().position(|fault| *fault == event.fault);
                there.remove(index.expect("a fault that had begun"));
            }
        }
        assert!(there.is_empty(), "all is healed in the end");
    }
}
