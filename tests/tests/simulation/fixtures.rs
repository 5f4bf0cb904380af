//! Histories that once broke a promise, as they were printed.

use crate::history::{
    self, By, Fault, Gap::*, History, Manner, Node::*, Op, Op::*, Peer, Person, Tenant,
};

/// All of them.
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

/// A worker died with the delivery in its hands, and its claim outlasted the deadline: the other
/// let go of the message, and the delivery was `sending` for ever.
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

/// A worker died after it had written the outcome, and its message was looked at again only past
/// the deadline: nobody was ever told.
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

/// A worker stood still while it claimed the delivery, and handed it over past the deadline.
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

/// The clocks were set an hour forward while the relay took a message in time: it was counted as
/// handed over past its deadline.
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

/// The store forgot a claim while the relay was asked, and the relay was busy: the worker took the
/// lost claim for another worker's, and let go of the only copy.
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
