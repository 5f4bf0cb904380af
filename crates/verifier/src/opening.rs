//! What a request for a message leads to, and the message that is to be published. Refuses to ask
//! the store: [`crate::verifier`] does.

use watchword_core::{Code, DeliveryId, Recipient, Timestamp};
use watchword_events::Order;

use crate::store::{Sent, StoredVerification};
use crate::vault::{FallbackStep, OrderDetails, VaultError};

/// The step to take if the code of a message was not used in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextStep {
    /// Which step, from 1.
    pub step: u8,
    /// How long after the message, in milliseconds.
    pub after_ms: u64,
}

/// What a request for a message led to, or what it waits for.
#[derive(Debug)]
pub enum Asked {
    /// All is decided.
    Decided(Opening),
    /// A further message is due, under a new code. Nothing has changed yet: the code before is good
    /// until [`crate::Verifier::renew`] draws that one.
    NeedsCode(Box<Further>),
}

/// What a request for a message led to.
#[derive(Debug)]
pub enum Opening {
    /// A message to publish.
    Send(Box<Message>),
    /// It ended while a message was asked for.
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
    /// When it was asked for.
    pub at: Timestamp,
    /// Which fallback step asks for it; 0: none.
    pub(crate) step: u8,
}

/// Who gets the message of fallback step `step`: before all steps `first`.
pub(crate) fn at_step(
    first: Recipient,
    fallback: Vec<FallbackStep>,
    step: u8,
) -> Result<Recipient, VaultError> {
    let Some(index) = step.checked_sub(1) else {
        return Ok(first);
    };
    let taken = fallback.into_iter().nth(usize::from(index));
    taken
        .map(|taken| taken.recipient)
        .ok_or(VaultError::Malformed)
}

/// The message of `sent`: to the recipient, or to that of fallback step `step`.
pub(crate) fn message(
    sent: Sent,
    (code, details): (Code, OrderDetails),
    at: Timestamp,
    step: u8,
) -> Result<Message, VaultError> {
    let Sent {
        verification,
        follows_approval,
        ..
    } = sent;
    let id = &verification.id;
    // A further message that someone asked for ends the workflow.
    let continues = step > 0 || verification.sends == 1;
    let next = details
        .fallback
        .get(usize::from(step))
        .filter(|_| continues);
    let next = next.map(|next| NextStep {
        step: step.saturating_add(1),
        after_ms: next.after_ms,
    });
    let order = Order {
        delivery_id: DeliveryId::new(id.clone(), verification.sends),
        service: verification.service.clone(),
        recipient: at_step(details.recipient, details.fallback, step)?,
        code,
        deadline: verification.expires_at,
        locale: details.locale,
        variables: details.variables,
        next_step: next.map(|next| next.step),
    };
    Ok(Message {
        verification,
        follows_approval,
        at,
        order,
        next,
    })
}
