//! The proptest strategies for histories: which operations are likely, which are rare, and how a
//! failure shrinks.

use proptest::prelude::*;
use proptest::sample::select;
use watchword_core::ReceiptState;

use crate::history::{
    Asks, By, Fault, Gap, Gateway, History, Manner, Node, Op, Peer, Person, Tenant, Typed,
};

/// Maximum number of steps; longer histories find little that two short ones do not.
const MOST_STEPS: usize = 14;

/// Generates histories, including short and quiet ones.
pub fn history() -> impl Strategy<Value = History> {
    let step = (op(), gap());
    (0..64_u16, prop::collection::vec(step, 1..=MOST_STEPS))
        .prop_map(|(seed, steps)| History { seed, steps })
}

fn gap() -> impl Strategy<Value = Gap> {
    prop_oneof![
        8 => Just(Gap::Rest),
        4 => Just(Gap::Race),
        3 => (1..60_u32).prop_map(|seconds| Gap::Ms(seconds * 1_000)),
        1 => (60..320_u32).prop_map(|seconds| Gap::Ms(seconds * 1_000)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let nth = || 0..3_u8;
    let typed = select(&[Typed::Newest, Typed::First, Typed::Wrong, Typed::OfAnother][..]);
    let asks = prop_oneof![
        3 => Just(Asks::WithId),
        2 => Just(Asks::Plainly),
        1 => Just(Asks::OtherPurpose),
        1 => Just(Asks::OtherService),
        1 => Just(Asks::OwnContent),
        1 => Just(Asks::OtherContent),
        1 => Just(Asks::OtherRecipient),
    ];
    prop_oneof![
        8 => open(),
        3 => nth().prop_map(|nth| Op::Resend { nth }),
        6 => (nth(), typed, asks).prop_map(|(nth, typed, asks)| Op::Check { nth, typed, asks }),
        2 => nth().prop_map(|nth| Op::CheckAgain { nth }),
        1 => (nth(), any::<bool>()).prop_map(|(nth, as_other)| Op::Cancel { nth, as_other }),
        3 => (nth(), select(ReceiptState::ALL), any::<bool>())
            .prop_map(|(nth, says, forged)| Op::Receipt { nth, says, forged }),
        2 => nth().prop_map(|nth| Op::Duplicate { nth }),
        6 => strike(),
        2 => node().prop_map(|node| Op::Crash { node }),
        2 => Just(Op::Forget),
        4 => gateway(),
        2 => (node(), select(&[0, 2, -2, 60, -60, 310, -310, 3_600, -3_600][..]))
            .prop_map(|(node, ahead_s)| Op::Clock { node, ahead_s }),
    ]
}

fn node() -> impl Strategy<Value = Node> {
    select(&Node::ALL[..])
}

fn open() -> impl Strategy<Value = Op> {
    let person = select(&[Person::Ann, Person::Bob][..]);
    let tenant = select(&[Tenant::Shop, Tenant::Bank][..]);
    let by = select(&[By::Mail, By::Sms, By::SmsThenMail][..]);
    let pays = prop_oneof![3 => Just(0), 2 => 1..3_u8];
    (person, tenant, by, pays).prop_map(|(person, tenant, by, pays)| Op::Open {
        person,
        tenant,
        by,
        pays,
    })
}

fn strike() -> impl Strategy<Value = Op> {
    let front = (
        select(&Node::ISSUERS[..]),
        select(
            &[
                Peer::Codes,
                Peer::Limits,
                Peer::Publish,
                Peer::Settle,
                Peer::Ledger,
            ][..],
        ),
    );
    let back = (
        select(&Node::WORKERS[..]),
        select(&[Peer::Ledger, Peer::Publish, Peer::Settle, Peer::Gateway][..]),
    );
    let fault = prop_oneof![
        2 => Just(Fault::CrashBefore),
        2 => Just(Fault::CrashAfter),
        1 => Just(Fault::Refused),
        1 => Just(Fault::Returned),
        1 => Just(Fault::Lost),
        1 => Just(Fault::Unheard),
        1 => (1..1_000_u16).prop_map(Fault::Slow),
        1 => (1..60_u8).prop_map(Fault::Stopped),
    ];
    (prop_oneof![2 => front, 3 => back], 0..4_u8, fault).prop_map(|((node, peer), after, fault)| {
        Op::Strike {
            node,
            peer,
            after,
            fault,
        }
    })
}

fn gateway() -> impl Strategy<Value = Op> {
    let gateway = select(&[Gateway::One, Gateway::Two, Gateway::Mail][..]);
    let manner = prop_oneof![
        2 => (0..9_000_u16).prop_map(Manner::Takes),
        2 => Just(Manner::TakesUnheard),
        1 => (0..30_000_u16).prop_map(Manner::TakesLate),
        1 => Just(Manner::Breaks),
        2 => prop_oneof![Just(0), 0..60_u8].prop_map(Manner::Busy),
        1 => select(&[Manner::Invalid, Manner::Blocked, Manner::Rejects][..]),
        1 => select(&[Manner::Misconfigured, Manner::Unroutable][..]),
    ];
    (gateway, manner).prop_map(|(gateway, manner)| Op::Gateway { gateway, manner })
}
