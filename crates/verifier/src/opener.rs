//! The opening half of the crate: it draws and seals codes, asks the store for one decision, and
//! opens the sealed values that a further message repeats. The caller publishes.

use std::sync::Arc;

use watchword_core::{
    Code, DeliveryId, Live, Locale, Purpose, Recipient, Sealer, Service, ServiceName, ShortTag,
    Subject, Timestamp, Variables, VerificationId, VerificationStatus,
};

use crate::index::digest;
use crate::opening::{Asked, Change, Further, Message, Opening, at_step, message, step_after};
use crate::store::{OpenCommand, Opened, SealedCode, Sent, StepOf, StoredVerification};
use crate::vault::{
    FallbackStep, OrderDetails, VaultError, open_code, open_order, seal_code, seal_order,
};
use crate::{Verifier, VerifierError};

/// A parsed request for a code.
#[derive(Debug, Clone)]
pub struct OpenRequest {
    /// The number or address that gets the code.
    pub recipient: Recipient,
    /// The account that the code is for; `None` makes the recipient itself the subject.
    pub subject: Option<Subject>,
    /// The purpose that a check must match.
    pub purpose: Purpose,
    /// The requested language of the message.
    pub locale: Option<Locale>,
    /// The values for the templates.
    pub variables: Variables,
    /// The steps to take if the code is not used in time.
    pub fallback: Vec<FallbackStep>,
}

/// A request as the store receives it, with the values that the store does not see.
pub(crate) struct Draft {
    pub(crate) command: OpenCommand,
    pub(crate) details: OrderDetails,
    code: Code,
    subject: Option<Subject>,
}

/// The request or step that asks for a message, and its time.
#[derive(Clone, Copy)]
struct Turn {
    at: Timestamp,
    /// The fallback step; 0 for a request.
    step: u8,
    /// The details for which the step was planned, or those of the request.
    details: Option<ShortTag>,
    /// Whether a fallback starts after the message.
    restarts: bool,
}

impl Turn {
    const fn of_request(at: Timestamp) -> Self {
        Self {
            at,
            step: 0,
            details: None,
            restarts: false,
        }
    }
}

/// Opens verifications and requests further messages: a [`Verifier`] with the sealing keys.
pub struct Opener {
    verifier: Arc<Verifier>,
    sealer: Live<Sealer>,
}

impl Opener {
    /// Creates an opener on top of `verifier`; `sealer` seals codes and orders in the store.
    pub const fn new(verifier: Arc<Verifier>, sealer: Live<Sealer>) -> Self {
        Self { verifier, sealer }
    }

    /// Returns the checking half.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Opens a verification, or continues the live one of the same service, subject, recipient and
    /// purpose.
    pub async fn open(
        &self,
        service: &Service,
        request: OpenRequest,
    ) -> Result<Asked, VerifierError> {
        let draft = self.draft(service, request)?;
        self.ask(service, draft).await
    }

    /// Applies the request of `change`. If the live verification's message showed other variables,
    /// the verification is withdrawn in the same step that opens the new one. If only locale or
    /// fallback differ, the live verification gets the new ones.
    pub async fn change(&self, service: &Service, change: Change) -> Result<Asked, VerifierError> {
        let Change {
            verification: live,
            withdraws,
            mut draft,
        } = change;
        if !withdraws {
            let sealer = self.sealer.get();
            draft.command.sealed_order = seal_order(&sealer, &live.id, &draft.details)?;
            sealer
                .key_id()
                .clone_into(&mut draft.command.sealing_key_id);
        }
        draft.command.over = Some(live.id);
        self.ask(service, draft).await
    }

    fn draft(&self, service: &Service, request: OpenRequest) -> Result<Draft, VerifierError> {
        let Verifier {
            index,
            entropy,
            clock,
            ..
        } = self.verifier.as_ref();
        let subject = request.subject.as_ref();
        let subject = subject.map_or_else(|| request.recipient.canonical(), Subject::as_str);
        let slot = index.slot(&service.name, subject, &request.recipient, &request.purpose);
        let tag = index.subject_tag(&service.name, subject);
        let id = VerificationId::draw(tag, entropy.as_ref())?;
        let details = OrderDetails {
            recipient: request.recipient,
            locale: request.locale,
            variables: request.variables,
            fallback: request.fallback,
        };
        let sealer = self.sealer.get();
        // Drawn before the store is asked, so that opening takes a single call; dropped if the slot
        // has a live verification.
        let (code, sealed_code) = self.mint(service, &id)?;
        let command = OpenCommand {
            service: service.name.clone(),
            slot,
            channel: details.recipient.channel(),
            purpose: request.purpose,
            masked_to: details.recipient.masked(),
            recipient: index.recipient_short(&service.name, &details.recipient),
            variables: index.variables(&service.name, id.tag(), &details.variables),
            details: self.details_tag(&service.name, &id, &details),
            steps: u8::try_from(details.fallback.len()).unwrap_or(u8::MAX),
            over: None,
            sealed_order: seal_order(&sealer, &id, &details)?,
            sealing_key_id: sealer.key_id().to_owned(),
            code: sealed_code,
            policy: service.policy,
            budget: service.budget,
            now: clock.now(),
            id,
        };
        Ok(Draft {
            command,
            code,
            details,
            subject: request.subject,
        })
    }

    async fn ask(&self, service: &Service, draft: Draft) -> Result<Asked, VerifierError> {
        let Draft {
            command,
            code,
            details,
            subject,
        } = draft;
        let (purpose, tag, at) = (command.purpose.clone(), command.details, command.now);
        let restarts = command.over.is_some();
        let (live, withdraws) = match self.verifier.store.open(command).await? {
            // The values were sealed in this call, so there is no need to open them.
            Opened::Send(sent) if sent.is_new => {
                if sent.withdrew {
                    let metrics = &self.verifier.metrics;
                    metrics.canceled(VerificationStatus::Canceled);
                }
                let names_subject = self.names_subject(&sent.verification, &details);
                let plain = (code, details, tag);
                let opening = message(sent, plain, names_subject, at, 0, false);
                return Ok(Asked::Decided(opening));
            }
            Opened::OtherContent(live) => (live, true),
            Opened::OtherDetails(live) => (live, false),
            opened => {
                let turn = Turn {
                    at,
                    step: 0,
                    details: tag,
                    restarts,
                };
                return self.asked(&service.name, opened, turn);
            }
        };
        let request = OpenRequest {
            recipient: details.recipient,
            subject,
            purpose,
            locale: details.locale,
            variables: details.variables,
            fallback: details.fallback,
        };
        Ok(Asked::Differs(Box::new(Change {
            verification: live,
            withdraws,
            draft: self.draft(service, request)?,
        })))
    }

    /// Requests another message of the verification `id`. Returns `None` if there is no such live
    /// verification.
    pub async fn resend(
        &self,
        service: &Service,
        id: &VerificationId,
    ) -> Result<Option<Asked>, VerifierError> {
        let (name, now) = (&service.name, self.verifier.clock.now());
        let asked = self
            .verifier
            .store
            .resend(id, name, None, 0, service.budget, now);
        let opened = asked.await?;
        let turn = Turn::of_request(now);
        opened
            .map(|opened| self.asked(name, opened, turn))
            .transpose()
    }

    /// Draws the code of `further`; the previous code becomes invalid.
    pub async fn renew(
        &self,
        service: &Service,
        further: Further,
    ) -> Result<Opening, VerifierError> {
        let live = further.verification;
        let (id, name, now) = (&live.id, &service.name, self.verifier.clock.now());
        let (code, budget) = (Some(self.mint(service, id)?.1), service.budget);
        let store = &self.verifier.store;
        let opened = if further.step == 0 {
            let steps = if further.restarts { further.steps } else { 0 };
            store.resend(id, name, code, steps, budget, now).await
        } else {
            let step = StepOf {
                after: live.sends,
                details: further.details,
            };
            store.step(id, name, step, code, budget, now).await
        };
        let turn = Turn {
            at: now,
            step: further.step,
            details: further.details,
            restarts: further.restarts,
        };
        let asked = opened?.map(|opened| self.asked(name, opened, turn));
        Ok(match asked.transpose()? {
            Some(Asked::Decided(opening)) => opening,
            // Unreachable: a store does not ask for a code that it was given, and a resend brings
            // no values to compare.
            Some(Asked::NeedsCode(_) | Asked::Differs(_)) => Opening::Cooling(live),
            None => Opening::Ended(live),
        })
    }

    /// Takes fallback step `step` of `id`, planned as `of` says. Returns `None` if the code was
    /// used, withdrawn or sent again, has expired, or the fallback was replaced.
    pub async fn step(
        &self,
        service: &Service,
        id: &VerificationId,
        step: u8,
        of: StepOf,
    ) -> Result<Option<Asked>, VerifierError> {
        let (name, now) = (&service.name, self.verifier.clock.now());
        let asked = (self.verifier.store).step(id, name, of, None, service.budget, now);
        let opened = asked.await?;
        let turn = Turn {
            at: now,
            step,
            details: of.details,
            restarts: false,
        };
        opened
            .map(|opened| self.asked(name, opened, turn))
            .transpose()
    }

    /// Records that the broker confirmed this message: its cooldown is counted from now on. The
    /// first message counts its verification as opened.
    pub async fn confirm(&self, message: &Message) -> Result<(), VerifierError> {
        let delivery = &message.order.delivery_id;
        let (id, send) = (delivery.verification(), delivery.send());
        let is_new = self.verifier.store.confirm(id, send).await?;
        if is_new && send == 1 {
            self.verifier.metrics.opened(&message.order.recipient);
        }
        Ok(())
    }

    /// The limit of this name refused the message, which is not sent: an operator sees it.
    pub async fn refuse(&self, delivery: &DeliveryId, limit: &str) -> Result<(), VerifierError> {
        let store = &self.verifier.store;
        Ok(store
            .refuse(delivery.verification(), delivery.send(), limit)
            .await?)
    }

    fn mint(
        &self,
        service: &Service,
        id: &VerificationId,
    ) -> Result<(Code, SealedCode), VerifierError> {
        let code = Code::draw(service.policy.code_length, self.verifier.entropy.as_ref())?;
        let (keys, sealer) = (self.verifier.digest_keys.get(), self.sealer.get());
        let sealed = SealedCode {
            digest: digest(keys.first(), &service.name, id, code.expose()),
            sealed: seal_code(&sealer, id, &code)?,
            sealing_key_id: sealer.key_id().to_owned(),
        };
        Ok((code, sealed))
    }

    fn details_tag(
        &self,
        service: &ServiceName,
        id: &VerificationId,
        details: &OrderDetails,
    ) -> Option<ShortTag> {
        let (locale, fallback) = (details.locale.as_ref(), &details.fallback);
        self.verifier
            .index
            .details(service, id.tag(), locale, fallback)
    }

    fn asked(
        &self,
        service: &ServiceName,
        opened: Opened,
        turn: Turn,
    ) -> Result<Asked, VerifierError> {
        let Turn { at, step, .. } = turn;
        Ok(Asked::Decided(match opened {
            Opened::Send(sent) => {
                let (code, details) = self.unsealed(&sent)?;
                let names_subject = self.names_subject(&sent.verification, &details);
                let tag = self.details_tag(service, &sent.verification.id, &details);
                let plain = (code, details, tag);
                message(sent, plain, names_subject, at, step, turn.restarts)
            }
            Opened::NeedsCode(sent) => {
                let details = self.details(&sent)?;
                let names_subject = self.names_subject(&sent.verification, &details);
                let live = sent.verification;
                let tag = self.details_tag(service, &live.id, &details);
                let next = step_after(&details.fallback, step, tag);
                let steps = u8::try_from(details.fallback.len()).unwrap_or(u8::MAX);
                let Some(recipient) = at_step(details.recipient, &details.fallback, step) else {
                    return Ok(Asked::Decided(Opening::Ended(live)));
                };
                return Ok(Asked::NeedsCode(Box::new(Further {
                    delivery_id: DeliveryId::new(live.id.clone(), live.sends.saturating_add(1)),
                    verification: live,
                    recipient,
                    names_subject,
                    at,
                    step,
                    details: turn.details,
                    restarts: turn.restarts,
                    steps,
                    next,
                })));
            }
            // Only requests with content are compared, and [`Opener::ask`] handles those.
            Opened::OtherContent(live) | Opened::OtherDetails(live) | Opened::Cooling(live) => {
                Opening::Cooling(live)
            }
            Opened::Exhausted(live) => Opening::Exhausted(live),
            Opened::Locked(until) => Opening::Locked(until),
        }))
    }

    fn names_subject(&self, verification: &StoredVerification, details: &OrderDetails) -> bool {
        let (service, subject) = (&verification.service, verification.id.subject_tag());
        let index = &self.verifier.index;
        index.names_subject(service, subject, &details.recipient)
    }

    fn unsealed(&self, sent: &Sent) -> Result<(Code, OrderDetails), VerifierError> {
        let code = open_code(
            &self.sealer.get(),
            &sent.verification.id,
            &sent.code_key_id,
            &sent.sealed_code,
        )?;
        Ok((code, self.details(sent)?))
    }

    fn details(&self, sent: &Sent) -> Result<OrderDetails, VaultError> {
        open_order(
            &self.sealer.get(),
            &sent.verification.id,
            sent.verification.channel,
            &sent.order_key_id,
            &sent.sealed_order,
        )
    }
}
