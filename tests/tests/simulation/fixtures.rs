//! Histories that once broke a promise, in the form in which the simulation prints them.

use crate::history::{
    self, By, Fault, Gap::*, History, Manner, Node::*, Op, Op::*, Peer, Person, Tenant,
};

/// Returns all of them.
pub fn all() -> Vec<History> {
    vec![
        died_holding_past_the_deadline(),
        died_before_the_outcome_was_told(),
        stood_still_between_claim_and_attempt(),
        clock_set_in_an_attempt(),
        claim_forgotten_in_an_attempt(),
    ]
}

fn history(steps: &[(Op, crate::history::Gap)]) -> History {
    History {
        seed: 0,
        steps: steps.to_vec(),
    }
}

/// A worker died while it held a delivery, and its claim outlasted the deadline: the other worker
/// dropped the message, and the delivery stayed `sending` forever.
fn died_holding_past_the_deadline() -> History {
    history(&[
        (
            Strike {
                node: WorkerA,
                peer: Peer::Ledger,
                after: 0,
                fault: Fault::CrashAfter,
            },
            Rest,
        ),
        (
            Open {
                person: Person::Ann,
                tenant: Tenant::Bank,
                by: By::Mail,
                pays: 0,
            },
            Rest,
        ),
    ])
}

/// A worker died after it had recorded the outcome, and its message was redelivered only after the
/// deadline: the outcome was never published.
fn died_before_the_outcome_was_told() -> History {
    history(&[
        (
            Clock {
                node: WorkerB,
                ahead_s: 60,
            },
            Rest,
        ),
        (
            Strike {
                node: WorkerA,
                peer: Peer::Ledger,
                after: 1,
                fault: Fault::CrashAfter,
            },
            Rest,
        ),
        (
            Open {
                person: Person::Ann,
                tenant: Tenant::Bank,
                by: By::Mail,
                pays: 0,
            },
            Rest,
        ),
    ])
}

/// A worker was suspended while it claimed the delivery, and handed it over after the deadline.
fn stood_still_between_claim_and_attempt() -> History {
    history(&[
        (
            Strike {
                node: WorkerA,
                peer: Peer::Ledger,
                after: 0,
                fault: Fault::Stopped(30),
            },
            Rest,
        ),
        (
            Open {
                person: Person::Ann,
                tenant: Tenant::Bank,
                by: By::Mail,
                pays: 0,
            },
            Rest,
        ),
    ])
}

/// The clocks were set an hour forward while the relay accepted a message in time: it was counted
/// as handed over past its deadline.
fn clock_set_in_an_attempt() -> History {
    let ahead_s = 3_600;
    history(&[
        (
            Op::Gateway {
                gateway: history::Gateway::Mail,
                manner: Manner::Takes(5_000),
            },
            Rest,
        ),
        (
            Open {
                person: Person::Ann,
                tenant: Tenant::Bank,
                by: By::Mail,
                pays: 0,
            },
            Ms(1_000),
        ),
        (
            Clock {
                node: WorkerA,
                ahead_s,
            },
            Race,
        ),
        (
            Clock {
                node: WorkerB,
                ahead_s,
            },
            Ms(10_000),
        ),
    ])
}

/// The store forgot a claim during an attempt, and the relay answered that it was busy: the worker
/// took the lost claim for another worker's, and dropped the only copy.
fn claim_forgotten_in_an_attempt() -> History {
    let slow = |node| Strike {
        node,
        peer: Peer::Gateway,
        after: 0,
        fault: Fault::Slow(900),
    };
    history(&[
        (
            Gateway {
                gateway: history::Gateway::Mail,
                manner: Manner::Busy(0),
            },
            Rest,
        ),
        (slow(WorkerA), Rest),
        (slow(WorkerB), Rest),
        (
            Open {
                person: Person::Ann,
                tenant: Tenant::Shop,
                by: By::Mail,
                pays: 0,
            },
            Ms(300),
        ),
        (Forget, Rest),
    ])
}
