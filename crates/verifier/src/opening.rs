//! The result of a request for a message, and the message to publish. [`crate::opener`] computes
//! them with the store.

use watchword_core::{Code, DeliveryId, Recipient, ShortTag, Timestamp, VerificationId};
use watchword_events::Order;

use crate::opener::Draft;
use crate::store::{Sent, StoredVerification};
use crate::vault::{FallbackStep, OrderDetails};

/// The fallback step to take if the code of a message is not used in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextStep {
    /// The step's number, from 1.
    pub step: u8,
    /// Delay after the message, in milliseconds.
    pub after_ms: u64,
    /// Distinguishes the step's fallback from one that replaces it.
    pub details: Option<ShortTag>,
}

/// The result of a request for a message, or the input that it still needs.
#[derive(Debug)]
pub enum Asked {
    /// The result is final.
    Decided(Opening),
    /// A further message is due, under a new code. Nothing has changed yet: the previous code stays
    /// valid until [`crate::Opener::renew`] draws the new one.
    NeedsCode(Box<Further>),
    /// The request differs from the live verification in the variables of its message, or in locale
    /// or fallback. Nothing has changed yet: the live verification stays as it is until
    /// [`crate::Opener::change`].
    Differs(Box<Change>),
}

/// The result of a request for a message.
#[derive(Debug)]
pub enum Opening {
    /// A message to publish.
    Send(Box<Message>),
    /// The verification ended meanwhile, or its fallback lacks the requested step.
    Ended(StoredVerification),
    /// The cooldown after the live verification's last message has not passed; nothing to publish.
    Cooling(StoredVerification),
    /// The live verification has reached its maximum of messages.
    Exhausted(StoredVerification),
    /// The subject is locked for wrong guesses until this time and gets no code.
    Locked(Timestamp),
}

/// A message to publish, with its code in clear.
#[derive(Debug)]
pub struct Message {
    /// The verification in its current state.
    pub verification: StoredVerification,
    /// Whether the previous verification of its slot was approved.
    pub follows_approval: bool,
    /// Whether the message is for a named subject; otherwise the recipient itself is the subject.
    pub names_subject: bool,
    /// The time of the decision.
    pub at: Timestamp,
    /// The order to seal and publish.
    pub order: Order,
    /// The fallback step to schedule after the message, if there is one.
    pub next: Option<NextStep>,
}

/// A further message that needs a new code.
#[derive(Debug)]
pub struct Further {
    /// The verification in its current state.
    pub verification: StoredVerification,
    /// The delivery id that the message would have.
    pub delivery_id: DeliveryId,
    /// The recipient of the message.
    pub recipient: Recipient,
    /// Whether the message is for a named subject; otherwise the recipient itself is the subject.
    pub names_subject: bool,
    /// The time of the request.
    pub at: Timestamp,
    /// The fallback step that asks for the message; 0 for a request.
    pub(crate) step: u8,
    /// The details for which the step was planned.
    pub(crate) details: Option<ShortTag>,
    /// Whether the request starts a fallback after the message.
    pub(crate) restarts: bool,
    /// Number of fallback steps of the verification.
    pub(crate) steps: u8,
    /// The step after the one that asks for the message.
    pub(crate) next: Option<NextStep>,
}

impl Further {
    /// Returns the fallback step to schedule if a send limit refuses this message: the step after
    /// the one that asked for it. `None` if a request asked for it.
    pub fn next_if_refused(&self) -> Option<NextStep> {
        self.next.filter(|_| self.step > 0)
    }
}

/// A request that differs from the live verification of its slot.
pub struct Change {
    /// The live verification in its current state.
    pub verification: StoredVerification,
    /// Whether the live verification is withdrawn for the request, because its message showed other
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
    /// Returns the id of the message, which would be the first of a new verification.
    pub fn delivery_id(&self) -> DeliveryId {
        DeliveryId::new(self.draft.command.id.clone(), 1)
    }

    /// Returns the recipient of the message.
    pub const fn recipient(&self) -> &Recipient {
        &self.draft.details.recipient
    }

    /// Returns the time of the request.
    pub const fn at(&self) -> Timestamp {
        self.draft.command.now
    }

    /// Returns the live verification's id and newest message, and the first step of the request's
    /// fallback, which from now on follows that message. `None` if the request has no fallback.
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

/// Returns the recipient of fallback step `step`; step 0 is the original message to `first`. `None`
/// if the fallback has no such step.
pub(crate) fn at_step(first: Recipient, fallback: &[FallbackStep], step: u8) -> Option<Recipient> {
    let Some(index) = step.checked_sub(1) else {
        return Some(first);
    };
    let taken = fallback.get(usize::from(index));
    taken.map(|taken| taken.recipient.clone())
}

/// Returns the step after `step` of a fallback whose details have the tag `tag`.
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

/// Builds the message of `sent` for fallback step `step`, or for the original recipient if `step`
/// is 0. `tag` is the tag of its details; `restarts` starts the fallback after any message. If the
/// fallback lacks the step, which an earlier build may have planned for another fallback, returns
/// `Ended`.
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
    // A further message on request ends the fallback.
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
