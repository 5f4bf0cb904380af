//! A simulation of the whole pipeline in one process: the product's own issuer, verifier, stepper,
//! workers and receipts over peers in memory and a simulated clock. It plays thousands of random
//! histories a minute: operations, crashes, lost answers, duplicates and clock steps. At the end of
//! a history everything heals, and the invariants of ARCHITECTURE.md are checked. A history that
//! breaks one is shortened as far as possible and printed with its trace.
//!
//! `WATCHWORD_SIMULATION_HISTORIES` sets the number of histories, `WATCHWORD_SIMULATION_SEED`
//! selects other ones. The stores are not covered: their conformance suites test the rules that are
//! simulated here.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says by a panic that it failed"
)]

mod broker;
mod caller;
mod codes;
mod fixtures;
mod gateway;
mod history;
mod kit;
mod ledger;
mod limits;
#[path = "../../../crates/verifier/tests/store_conformance/model.rs"]
mod model;
mod node;
mod play;
mod promises;
mod strategy;
mod world;

use std::cell::Cell;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use proptest::prop_assert_eq;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::history::{Gap, History};
use crate::kit::Kit;

/// Histories in one run of the suite.
const HISTORIES: u32 = 4_000;
/// Histories that are played twice.
const REPEATED: u32 = 100;
const SHRINKS: u32 = 20_000;

/// Plays `history` again with a trace, and panics with it.
fn fail(kit: &Arc<Kit>, history: &History) -> ! {
    let played = play::play(kit, history, true);
    let mut text = format!("{} operations\n{history}", history.steps.len());
    for line in played.trace {
        writeln!(text, "{line}").unwrap();
    }
    let broken = played.broken.unwrap_or("it holds when played again".into());
    panic!("\n{text}\nA promise does not hold: {broken}");
}

/// Shortens a failing history further than proptest does: proptest changes one step at a time and
/// stops where no single change still fails.
fn shortest(kit: &Arc<Kit>, mut history: History) -> History {
    loop {
        let fails = |shorter: &History| play::play(kit, shorter, false).broken.is_some();
        let Some(shorter) = simpler(&history).into_iter().find(fails) else {
            return history;
        };
        history = shorter;
    }
}

/// Returns every slightly simpler history: without one to three consecutive steps, with a gap
/// replaced by rest, or without a seed.
fn simpler(history: &History) -> Vec<History> {
    let mut all = Vec::new();
    let count = history.steps.len();
    for gone in (1..=3).rev() {
        for place in 0..(count + 1).saturating_sub(gone) {
            let mut shorter = history.clone();
            shorter.steps.drain(place..place + gone);
            all.extend((0..4).map(|seed| History {
                seed,
                ..shorter.clone()
            }));
            all.push(shorter);
        }
    }
    for place in 0..count {
        if history.steps[place].1 != Gap::Rest {
            let mut calmer = history.clone();
            calmer.steps[place].1 = Gap::Rest;
            all.push(calmer);
        }
    }
    if history.seed != 0 {
        let seed = 0;
        all.push(History {
            seed,
            ..history.clone()
        });
    }
    all
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn the_promises_hold_in_every_history() {
    let histories = variable("WATCHWORD_SIMULATION_HISTORIES");
    let seed = variable("WATCHWORD_SIMULATION_SEED").unwrap_or(0);
    let config = Config {
        cases: histories.map_or(HISTORIES, |count| u32::try_from(count).unwrap()),
        max_shrink_iters: SHRINKS,
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let chance = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let (kit, begun) = (Kit::new(), Instant::now());
    let (played, steps) = (Cell::new(0_u64), Cell::new(0_usize));
    let (takeovers, handovers) = (Cell::new(0_u64), Cell::new(0_u64));
    let outcome = TestRunner::new_with_rng(config, chance).run(&strategy::history(), |history| {
        let one = play::play(&kit, &history, false);
        played.set(played.get() + 1);
        steps.set(steps.get() + history.steps.len());
        takeovers.set(takeovers.get() + one.takeovers);
        handovers.set(handovers.get() + one.handovers);
        one.broken
            .map_or(Ok(()), |broken| Err(TestCaseError::fail(broken)))
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(_, history)) => fail(&kit, &shortest(&kit, history)),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
    let (seconds, played) = (begun.elapsed().as_secs_f64(), played.get());
    println!(
        "{played} histories of {} operations, {} hand-overs, {} takeovers in {seconds:.1} s",
        steps.get(),
        handovers.get(),
        takeovers.get(),
    );
    #[expect(clippy::cast_precision_loss, reason = "a count of a test")]
    let counted = takeovers.get() as f64;
    assert!(kit.counted("watchword_possible_duplicates_total") <= counted);
    none_counted_as_late(&kit);
}

/// Asserts that the workers counted no message past its deadline. Setting a clock must not change
/// that count.
fn none_counted_as_late(kit: &Kit) {
    let late = kit.counted("watchword_sends_past_deadline_total");
    assert!(late < 1.0, "{late} hand-overs are counted as late");
}

/// Failures could be neither shortened nor trusted if a history were not deterministic.
#[test]
fn a_history_is_the_same_each_time() {
    let kit = Kit::new();
    let config = Config {
        cases: REPEATED,
        failure_persistence: None,
        ..Config::default()
    };
    let chance = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let outcome = TestRunner::new_with_rng(config, chance).run(&strategy::history(), |history| {
        let [first, second] = [(); 2].map(|()| play::play(&kit, &history, true).trace);
        prop_assert_eq!(first, second);
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

/// If every gateway refuses an SMS, the fallback email follows at once instead of after ten
/// seconds, and only once.
#[test]
fn a_fallback_step_follows_a_refusal_at_once_and_once() {
    use history::{By, Gateway, Manner, Op, Person, Tenant};
    let kit = Kit::new();
    for manner in [Manner::Invalid, Manner::Rejects, Manner::Unroutable] {
        let refuses = |gateway| (Op::Gateway { gateway, manner }, Gap::Rest);
        let (person, by) = (Person::Ann, By::SmsThenMail);
        let tenant = Tenant::Shop;
        let pays = 0;
        let open = (
            Op::Open {
                person,
                tenant,
                by,
                pays,
            },
            Gap::Rest,
        );
        let history = History {
            seed: 0,
            steps: vec![refuses(Gateway::One), refuses(Gateway::Two), open],
        };
        let played = play::play(&kit, &history, true);
        assert_eq!(played.broken, None);
        let mails = |trace: &[String]| {
            let takes = |line: &&String| line.contains("Mail") && line.contains("takes ");
            trace.iter().filter(takes).count()
        };
        let healed = |line: &String| line.contains("everything heals");
        let healed = played.trace.iter().position(healed).unwrap();
        let trace = played.trace.join("\n");
        assert_eq!(mails(&played.trace[..healed]), 1, "{manner:?}\n{trace}");
        assert_eq!(mails(&played.trace), 1, "{manner:?}\n{trace}");
    }
}

#[test]
fn histories_that_once_broke_a_promise_keep_it() {
    let kit = Kit::new();
    for history in fixtures::all() {
        if play::play(&kit, &history, false).broken.is_some() {
            fail(&kit, &history);
        }
    }
    none_counted_as_late(&kit);
}
