//! A history: operations with names, without bytes. It prints one operation per line, in the form
//! in which `fixtures.rs` keeps histories that once broke a promise.

use std::fmt;

use watchword_core::ReceiptState;

/// The operations, and the seed of everything random while they run.
#[derive(Debug, Clone)]
pub struct History {
    /// Decides the order in which tasks that are ready at the same moment run; 0 means order of
    /// arrival.
    pub seed: u16,
    /// The operations, each with the time that passes after it.
    pub steps: Vec<(Op, Gap)>,
}

/// The time after an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// Until no task can continue without time passing.
    Rest,
    /// None: the next operation races this one.
    Race,
    /// Milliseconds.
    Ms(u32),
}

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// The first process of issuer, verifier and stepper.
    IssuerA,
    /// The second process of issuer, verifier and stepper.
    IssuerB,
    /// The first worker process, for both channels and for receipts.
    WorkerA,
    /// The second worker process.
    WorkerB,
}

impl Node {
    pub const ALL: [Self; 4] = [Self::IssuerA, Self::IssuerB, Self::WorkerA, Self::WorkerB];
    pub const ISSUERS: [Self; 2] = [Self::IssuerA, Self::IssuerB];
    pub const WORKERS: [Self; 2] = [Self::WorkerA, Self::WorkerB];
}

/// The peer of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The code state.
    Codes,
    /// The ledger.
    Ledger,
    /// The send limits.
    Limits,
    /// The broker, for publishing.
    Publish,
    /// The broker, for settling.
    Settle,
    /// A gateway or the relay.
    Gateway,
}

/// A fault in one call of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The caller dies before the call takes effect.
    CrashBefore,
    /// The caller dies after the call took effect, before it gets the answer.
    CrashAfter,
    /// The peer refuses the call, without effect.
    Refused,
    /// The broker returns the message as unroutable. The same as `Refused` for other peers.
    Returned,
    /// The call has neither effect nor answer.
    Lost,
    /// The call takes effect, but its answer is lost.
    Unheard,
    /// The call takes effect after so many milliseconds.
    Slow(u16),
    /// The call takes effect, and the caller is suspended for so many seconds, as a process is that
    /// receives SIGSTOP or whose machine migrates.
    Stopped(u8),
}

/// A service with its policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tenant {
    /// The defaults: 5 checks in 300 s; a resend repeats the code.
    Shop,
    /// 3 checks in 30 s, a cooldown of 5 s; a resend makes a new code.
    Bank,
}

/// A recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Person {
    Ann,
    Bob,
}

/// The channels of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Sms,
    Mail,
    /// SMS, then email after 10 s.
    SmsThenMail,
}

/// The code that a person enters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Typed {
    /// The code of the newest message that arrived.
    Newest,
    /// The code of the first message.
    First,
    /// A wrong code.
    Wrong,
    /// The newest code of another verification.
    OfAnother,
}

/// The parameters of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// With a check id.
    WithId,
    /// Without a check id.
    Plainly,
    /// With the wrong purpose.
    OtherPurpose,
    /// As another service.
    OtherService,
    /// With the requested content.
    OwnContent,
    /// With an amount that was never requested.
    OtherContent,
    /// With a number that was never requested.
    OtherRecipient,
}

/// A provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gateway {
    /// SMS, first in order; does not recognize repeats.
    One,
    /// SMS, second in order; recognizes repeats, and names messages in receipts by its own id only.
    Two,
    /// The email relay.
    Mail,
}

/// The behavior of a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Accepts the message after so many milliseconds.
    Takes(u16),
    /// Accepts the message; the answer is lost.
    TakesUnheard,
    /// Never answers, and accepts the message after so many milliseconds even if the caller is
    /// gone.
    TakesLate(u16),
    /// Breaks the connection before it accepts anything.
    Breaks,
    /// Is busy, with a `Retry-After` of so many seconds if that is not 0.
    Busy(u8),
    Invalid,
    Blocked,
    Rejects,
    /// Does not deliver to this destination.
    Unroutable,
    /// Refuses the account.
    Misconfigured,
}

/// An operation. `nth` selects from the existing items, newest first, modulo their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Open {
        person: Person,
        tenant: Tenant,
        by: By,
        /// The amount that the message shows; 0 for none.
        pays: u8,
    },
    Resend {
        nth: u8,
    },
    Check {
        nth: u8,
        typed: Typed,
        asks: Asks,
    },
    /// Repeats the last check of that verification unchanged.
    CheckAgain {
        nth: u8,
    },
    Cancel {
        nth: u8,
        as_other: bool,
    },
    /// A receipt about a hand-over, from its gateway or, forged, from another.
    Receipt {
        nth: u8,
        says: ReceiptState,
        forged: bool,
    },
    /// The broker delivers a queued or held message once more.
    Duplicate {
        nth: u8,
    },
    /// From now on, call number `after` + 1 of this peer by this process fails.
    Strike {
        node: Node,
        peer: Peer,
        after: u8,
        fault: Fault,
    },
    Crash {
        node: Node,
    },
    /// The ledger loses its newest write if that was a claim, as a store does in a failover.
    Forget,
    Gateway {
        gateway: Gateway,
        manner: Manner,
    },
    /// From now on the clock of a process is so many seconds ahead of true time.
    Clock {
        node: Node,
        ahead_s: i16,
    },
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        for (op, gap) in &self.steps {
            writeln!(f, "  ({op:?}, {gap:?}),")?;
        }
        Ok(())
    }
}
