//! What a request for a message leads to, and the message that is to be published. Refuses to ask
//! the store: [`crate::opener`] does.

use watchword_core::{Code, DeliveryId, Recipient, ShortTag, Timestamp, VerificationId};
use watchword_events::Order;

use crate::opener::Draft;
use crate::store::{Sent, StoredVerification};
use crate::vault::{FallbackStep, OrderDetails};

/// The step to take if the code of a message was not used in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextStep {
    /// Which step, from 1.
    pub step: u8,
    /// How long after the message, in milliseconds.
    pub after_ms: u64,
    /// Distinguishes the fallback it belongs to from one that replaces it.
    pub details: Option<ShortTag>,
}

/// What a request for a message led to, or what it waits for.
#[derive(Debug)]
pub enum Asked {
    /// All is decided.
    Decided(Opening),
    /// A further message is due, under a new code. Nothing has changed yet: the code before is good
    /// until [`crate::Opener::renew`] draws that one.
    NeedsCode(Box<Further>),
    /// The request differs from the live verification in the variables of its message, or in locale
    /// or fallback. Nothing has changed yet: the live verification stays as it is until
    /// [`crate::Opener::change`].
    Differs(Box<Change>),
}

/// What a request for a message led to.
#[derive(Debug)]
pub enum Opening {
    /// A message to publish.
    Send(Box<Message>),
    /// It ended while a message was asked for, or its fallback lacks the step that asks.
    Ended(StoredVerification),
    /// The live verification's message is young: there is nothing to publish.
    Cooling(StoredVerification),
    /// The live verification has used up its messages.
    Exhausted(StoredVerification),
    /// The subject may not guess until then, so it gets no code.
    Locked(Timestamp),
}

/// A message to publish, with its code in clear.
#[derive(Debug)]
pub struct Message {
    /// The verification as it is now.
    pub verification: StoredVerification,
    /// Whether its slot's last verification was approved.
    pub follows_approval: bool,
    /// Whether the message is for a subject of its own, not for its recipient as such.
    pub names_subject: bool,
    /// When it was decided on.
    pub at: Timestamp,
    /// What to seal and publish.
    pub order: Order,
    /// What is to follow it, if the workflow goes on.
    pub next: Option<NextStep>,
}

/// A message that is to have a code of its own.
#[derive(Debug)]
pub struct Further {
    /// The verification as it is now.
    pub verification: StoredVerification,
    /// Which message it would be.
    pub delivery_id: DeliveryId,
    /// Who would get it.
    pub recipient: Recipient,
    /// Whether the message is for a subject of its own, not for its recipient as such.
    pub names_subject: bool,
    /// When it was asked for.
    pub at: Timestamp,
    /// Which fallback step asks for it; 0: none.
    pub(crate) step: u8,
    /// The details that the step was planned for.
    pub(crate) details: Option<ShortTag>,
    /// Whether the request begins a fallback after the message.
    pub(crate) restarts: bool,
    /// Fallback steps of the verification.
    pub(crate) steps: u8,
    /// The step after the one that asks for it.
    pub(crate) next: Option<NextStep>,
}

impl Further {
    /// What is to follow the message before if a limit refuses this one: the step after the one that
    /// asks for it. `None` if a request asks for it.
    pub fn next_if_refused(&self) -> Option<NextStep> {
        self.next.filter(|_| self.step > 0)
    }
}

/// A request that differs from the live verification of its slot.
pub struct Change {
    /// The verification as it is now.
    pub verification: StoredVerification,
    /// Whether the live verification is withdrawn for the request: its message showed other
    /// variables.
    pub withdraws: bool,
    pub(crate) draft: Draft,
}

impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Change")
            .field("verification", &self.verification.id)
            .field("withdraws", &self.withdraws)
            .finish_non_exhaustive()
    }
}

impl Change {
    /// The id of the message it would be: the first of another verification.
    pub fn delivery_id(&self) -> DeliveryId {
        DeliveryId::new(self.draft.command.id.clone(), 1)
    }

    /// The recipient of the message.
    pub const fn recipient(&self) -> &Recipient {
        &self.draft.details.recipient
    }

    /// The time of the request.
    pub const fn at(&self) -> Timestamp {
        self.draft.command.now
    }

    /// The live verification, and the first step of the fallback that follows its newest message from
    /// now on, if the request names one.
    pub fn next(&self) -> Option<(&VerificationId, u8, NextStep)> {
        let first = self.draft.details.fallback.first()?;
        let next = NextStep {
            step: 1,
            after_ms: first.after_ms,
            details: self.draft.command.details,
        };
        Some((&self.verification.id, self.verification.sends, next))
    }
}

/// Who gets the message of fallback step `step`: before all steps `first`. `None`: the fallback has
/// no such step.
pub(crate) fn at_step(first: Recipient, fallback: &[FallbackStep], step: u8) -> Option<Recipient> {
    let Some(index) = step.checked_sub(1) else {
        return Some(first);
    };
    let taken = fallback.get(usize::from(index));
    taken.map(|taken| taken.recipient.clone())
}

/// The step that follows the one numbered `step` of a fallback whose details have this tag.
pub(crate) fn step_after(
    fallback: &[FallbackStep],
    step: u8,
    tag: Option<ShortTag>,
) -> Option<NextStep> {
    let next = fallback.get(usize::from(step))?;
    Some(NextStep {
        step: step.saturating_add(1),
        after_ms: next.after_ms,
        details: tag,
    })
}

/// The message of `sent`: to the recipient, or to that of fallback step `step`. `tag` is that of its
/// details; `restarts` begins the fallback whatever message it is. A step that the fallback does not
/// have, planned by an earlier build for another fallback, has ended.
pub(crate) fn message(
    sent: Sent,
    (code, details, tag): (Code, OrderDetails, Option<ShortTag>),
    names_subject: bool,
    at: Timestamp,
    step: u8,
    restarts: bool,
) -> Opening {
    let Sent {
        verification,
        follows_approval,
        ..
    } = sent;
    let id = &verification.id;
    // A further message that someone asked for ends the workflow.
    let continues = step > 0 || verification.sends == 1 || restarts;
    let next = step_after(&details.fallback, step, tag).filter(|_| continues);
    let Some(recipient) = at_step(details.recipient, &details.fallback, step) else {
        return Opening::Ended(verification);
    };
    let order = Order {
        delivery_id: DeliveryId::new(id.clone(), verification.sends),
        service: verification.service.clone(),
        recipient,
        code,
        deadline: verification.expires_at,
        locale: details.locale,
        variables: details.variables,
        next_step: next.map(|next| next.step),
        details: next.and_then(|next| next.details),
    };
    Opening::Send(Box::new(Message {
        verification,
        follows_approval,
        names_subject,
        at,
        order,
        next,
    }))
}
