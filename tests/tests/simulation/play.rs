//! Plays a history from the first operation to the last, heals everything, waits until the queues
//! are empty, and checks the invariants.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use watchword_core::ReceiptState;
use watchword_events::{CloudEvent, Lane, ReceiptReceived};

use crate::history::{Gap, Gateway, History, Manner, Node, Op};
use crate::kit::Kit;
use crate::world::{Strike, World};
use crate::{caller, ledger, node, promises};

/// Interval between two looks at the queues.
const LOOK: Duration = Duration::from_secs(60);
/// Maximum number of looks: long enough for leases written by a clock an hour ahead to end.
const MOST_LOOKS: u32 = 100;

/// The result of a history.
pub struct Played {
    /// The first invariant that did not hold.
    pub broken: Option<String>,
    /// The trace, if it was requested.
    pub trace: Vec<String>,
    /// Number of takeovers, for the sums over all histories.
    pub takeovers: u64,
    pub handovers: u64,
}

/// Plays `history` in its own runtime.
pub fn play(kit: &Arc<Kit>, history: &History, traced: bool) -> Played {
    // The product draws the jitter of its retries from `fastrand`.
    fastrand::seed(history.seed.into());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let world = World::new(kit.clone(), history.seed, traced);
        for node in Node::ALL {
            node::start(&world, node);
        }
        for (op, gap) in &history.steps {
            world.lock().say("---", || format!("{op:?}"));
            act(&world, *op);
            match gap {
                Gap::Race => {}
                // The clock moves only when every task waits for it, so this returns once all are
                // idle.
                Gap::Rest => sleep(Duration::from_millis(1)).await,
                Gap::Ms(ms) => sleep(Duration::from_millis((*ms).into())).await,
            }
            if world.lock().has_broken() {
                break;
            }
        }
        heal(&world);
        for _ in 0..MOST_LOOKS {
            sleep(LOOK).await;
            let state = world.lock();
            if state.queues.len() == 0 || state.has_broken() {
                break;
            }
        }
        let mut state = world.lock();
        promises::check(&mut state);
        let (broken, trace) = state.verdict();
        Played {
            broken,
            trace,
            takeovers: state
                .ledger
                .takeovers
                .values()
                .copied()
                .map(u64::from)
                .sum(),
            handovers: state.gateways.handovers.len() as u64,
        }
    })
}

fn heal(world: &World) {
    let mut state = world.lock();
    state.say("---", || "everything heals");
    state.strikes.clear();
    state.ahead_ms = [0; 4];
    state.gateways.manners = [Manner::Takes(0); 3];
}

fn act(world: &Arc<World>, op: Op) {
    match op {
        Op::Open {
            person,
            tenant,
            by,
            pays,
        } => caller::open(world, (person, tenant), by, pays),
        Op::Resend { nth } => caller::resend(world, nth),
        Op::Check { nth, typed, asks } => caller::check(world, nth, typed, asks),
        Op::CheckAgain { nth } => caller::check_again(world, nth),
        Op::Cancel { nth, as_other } => caller::cancel(world, nth, as_other),
        Op::Receipt { nth, says, forged } => receipt(world, nth, says, forged),
        Op::Duplicate { nth } => {
            let mut state = world.lock();
            if let Some((lane, id)) = state.queues.duplicate(nth) {
                state.say("broker", || format!("delivers {id} once more"));
                drop(state);
                world.arrived(lane).notify_waiters();
            }
        }
        Op::Strike {
            node,
            peer,
            after,
            fault,
        } => world.lock().strikes.push(Strike {
            node,
            peer,
            after,
            fault,
        }),
        Op::Crash { node } => world.crash(node),
        Op::Forget => ledger::forget(&mut world.lock()),
        Op::Gateway { gateway, manner } => world.lock().gateways.manners[gateway as usize] = manner,
        Op::Clock { node, ahead_s } => {
            let mut state = world.lock();
            state.disturbed.clock = true;
            state.ahead_ms[node as usize] = i64::from(ahead_s) * 1_000;
        }
    }
}

/// Publishes a receipt about hand-over `nth`.
fn receipt(world: &World, nth: u8, says: ReceiptState, forged: bool) {
    let mut state = world.lock();
    let count = state.gateways.handovers.len();
    let Some(place) = count.checked_sub(1 + usize::from(nth) % count.max(1)) else {
        return;
    };
    let about = state.gateways.handovers[place].clone();
    let by_us = about.gateway != Gateway::Two || forged;
    let teller = match (forged, about.gateway) {
        (false, gateway) => gateway,
        (true, Gateway::One) => Gateway::Two,
        (true, _) => Gateway::One,
    };
    if !forged {
        promises::owe(&mut state, &about, says);
    }
    let number = state.now().as_millis();
    let event = CloudEvent {
        id: format!("receipt.{number}.{nth}"),
        source: "/watchword/sms-worker".to_owned(),
        time: state.now(),
        data: ReceiptReceived {
            provider: teller.name(),
            delivery_id: by_us.then(|| about.delivery.clone()),
            message_id: (!forged).then_some(about.message_id),
            state: says,
            error: None,
        },
    };
    let body = Bytes::from(event.encode().unwrap());
    state.queues.put(Lane::Receipts, event.id, body, None);
    drop(state);
    world.arrived(Lane::Receipts).notify_waiters();
}
