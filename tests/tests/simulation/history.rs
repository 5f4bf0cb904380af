//! What happens in one history: operations with names, no bytes. Printed one operation a line, in
//! the form in which `fixtures.rs` keeps those that once broke a promise. Refuses to act.

use std::fmt;

use watchword_core::ReceiptState;

/// Operations, and the seed of everything that is drawn while they run.
#[derive(Debug, Clone)]
pub struct History {
    /// Decides in which order what is ready at the same moment goes on; 0: in the order of arrival.
    pub seed: u16,
    /// What happens, each with the time that passes after it.
    pub steps: Vec<(Op, Gap)>,
}

/// What follows an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// Everybody goes on until nobody can without time passing.
    Rest,
    /// The next operation, at once: the two race.
    Race,
    /// So much time, in milliseconds.
    Ms(u32),
}

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// Two that issue, verify and take fallback steps.
    IssuerA,
    /// The other.
    IssuerB,
    /// Two that carry out orders of both channels and hear receipts.
    WorkerA,
    /// The other.
    WorkerB,
}

impl Node {
    pub const ALL: [Self; 4] = [Self::IssuerA, Self::IssuerB, Self::WorkerA, Self::WorkerB];
    pub const ISSUERS: [Self; 2] = [Self::IssuerA, Self::IssuerB];
    pub const WORKERS: [Self; 2] = [Self::WorkerA, Self::WorkerB];
}

/// Whom a process waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Code state.
    Codes,
    /// The ledger.
    Ledger,
    /// The send limits.
    Limits,
    /// The broker, publishing.
    Publish,
    /// The broker, settling.
    Settle,
    /// A gateway or relay.
    Gateway,
}

/// What goes wrong in one call of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The caller dies before it took effect.
    CrashBefore,
    /// The caller dies after it took effect, before it hears the answer.
    CrashAfter,
    /// The peer refuses; nothing happened.
    Refused,
    /// The peer gives the message back: it reached no queue. Elsewhere: refused.
    Returned,
    /// No answer, and nothing happened.
    Lost,
    /// No answer, though it took effect.
    Unheard,
    /// It takes effect after so many milliseconds.
    Slow(u16),
    /// It takes effect, and the caller stands still for so many seconds, as a process does that is
    /// stopped or moved.
    Stopped(u8),
}

/// A service with its policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tenant {
    /// The defaults: 5 checks in 300 s, a resend repeats the code.
    Shop,
    /// 3 checks in 30 s, a cooldown of 5 s, a resend makes a new code.
    Bank,
}

/// Who gets a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Person {
    Ann,
    Bob,
}

/// By which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Sms,
    Mail,
    /// SMS, then mail after 10 s.
    SmsThenMail,
}

/// What a person types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Typed {
    /// The code of the newest message that arrived.
    Newest,
    /// The code of the first one.
    First,
    /// A guess that is wrong.
    Wrong,
    /// The newest code of another verification.
    OfAnother,
}

/// How the service asks for the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// With a check id of its own.
    WithId,
    /// Without one.
    Plainly,
    /// For the wrong purpose.
    OtherPurpose,
    /// As another service.
    OtherService,
    /// For the content that was asked for.
    OwnContent,
    /// For an amount that was never requested.
    OtherContent,
    /// For a number that was never requested.
    OtherRecipient,
}

/// A way to the recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gateway {
    /// SMS, first in order; does not recognise a repeat.
    One,
    /// SMS, second; recognises a repeat, and names messages by its own id alone.
    Two,
    /// The relay.
    Mail,
}

/// How a gateway behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Takes the message after so many milliseconds and says so.
    Takes(u16),
    /// Takes it; the answer is lost.
    TakesUnheard,
    /// Never answers, and takes it after so many milliseconds, whoever listens.
    TakesLate(u16),
    /// Breaks the connection before it took anything.
    Breaks,
    /// Is busy, and asks for so many seconds of rest if more than none.
    Busy(u8),
    Invalid,
    Blocked,
    Rejects,
    /// Does not deliver to this destination.
    Unroutable,
    /// Refuses our account.
    Misconfigured,
}

/// One operation. `nth` counts what there is so far, modulo its number, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Open {
        person: Person,
        tenant: Tenant,
        by: By,
        /// The amount that the message shows; 0: none.
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
    /// The last check of that verification once more, word for word.
    CheckAgain {
        nth: u8,
    },
    Cancel {
        nth: u8,
        as_other: bool,
    },
    /// A receipt about a hand-over, told by its gateway or by the one that is wrong.
    Receipt {
        nth: u8,
        says: ReceiptState,
        forged: bool,
    },
    /// The broker delivers a queued or held message once more.
    Duplicate {
        nth: u8,
    },
    /// From now on: call number `after` + 1 of this peer by this process goes wrong.
    Strike {
        node: Node,
        peer: Peer,
        after: u8,
        fault: Fault,
    },
    Crash {
        node: Node,
    },
    /// The ledger forgets its newest write if that was a claim, as a store does that fails over.
    Forget,
    Gateway {
        gateway: Gateway,
        manner: Manner,
    },
    /// The clock of a process is so many seconds ahead of true time from now on.
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
