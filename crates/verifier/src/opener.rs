//! The half of the verifier that opens: it mints and seals codes, asks the store for one decision,
//! and unseals what a further message repeats. It does not publish.

use std::sync::Arc;

use watchword_chassis::Service;
use watchword_core::{
    Code, DeliveryId, Live, Locale, Purpose, Recipient, Subject, Timestamp, Variables,
    VerificationId,
};
use watchword_events::Sealer;

use crate::index::{digest, same_for_all_spellings};
use crate::opening::{Asked, Further, Opening, at_step, message};
use crate::store::{OpenCommand, Opened, SealedCode, Sent};
use crate::vault::{
    FallbackStep, OrderDetails, VaultError, open_code, open_order, seal_code, seal_order,
};
use crate::{Verifier, VerifierError};

/// A request for a code, parsed.
#[derive(Debug, Clone)]
pub struct OpenRequest {
    /// Who gets it.
    pub recipient: Recipient,
    /// For which account; the recipient when `None`.
    pub subject: Option<Subject>,
    /// What for.
    pub purpose: Purpose,
    /// In which language.
    pub locale: Option<Locale>,
    /// With which values.
    pub variables: Variables,
    /// What is tried when the code was not used in time.
    pub fallback: Vec<FallbackStep>,
}

/// Opens verifications and asks for further messages: a [`Verifier`] with the sealing keys.
pub struct Opener {
    verifier: Arc<Verifier>,
    sealer: Live<Sealer>,
}

impl Opener {
    /// An opener of what `verifier` checks; `sealer` seals codes and orders in the store.
    pub const fn new(verifier: Arc<Verifier>, sealer: Live<Sealer>) -> Self {
        Self { verifier, sealer }
    }

    /// The half that checks.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Opens a verification, or continues the live one of the same service, subject, recipient
    /// and purpose.
    pub async fn open(
        &self,
        service: &Service,
        request: OpenRequest,
    ) -> Result<Asked, VerifierError> {
        let recipient = same_for_all_spellings(&request.recipient);
        let subject = request.subject.as_ref();
        let subject = subject.map_or(recipient.as_str(), Subject::as_str);
        let slot =
            self.verifier
                .index
                .slot(&service.name, subject, &request.recipient, &request.purpose);
        let tag = self.verifier.index.subject_tag(&service.name, subject);
        let id = VerificationId::draw(tag, self.verifier.entropy.as_ref())?;
        let now = self.verifier.clock.now();
        let details = OrderDetails {
            recipient: request.recipient,
            locale: request.locale,
            variables: request.variables,
            fallback: request.fallback,
        };
        let sealer = self.sealer.get();
        let (code, sealed_code) = self.mint(service, &id)?;
        let command = OpenCommand {
            service: service.name.clone(),
            slot,
            channel: details.recipient.channel(),
            purpose: request.purpose,
            masked_to: details.recipient.masked(),
            sealed_order: seal_order(&sealer, &id, &details)?,
            sealing_key_id: sealer.key_id().to_owned(),
            code: sealed_code,
            policy: service.policy,
            budget: service.budget,
            now,
            id,
        };
        match self.verifier.store.open(command).await? {
            // What was just sealed need not be opened.
            Opened::Send(sent) if sent.is_new => {
                self.verifier.metrics.opened(&details.recipient);
                let message = message(sent, (code, details), now, 0)?;
                Ok(Asked::Decided(Opening::Send(Box::new(message))))
            }
            opened => self.asked(opened, now, 0),
        }
    }

    /// Asks for another message of the verification `id`. `None`: there is no such live one.
    pub async fn resend(
        &self,
        service: &Service,
        id: &VerificationId,
    ) -> Result<Option<Asked>, VerifierError> {
        let (name, now) = (&service.name, self.verifier.clock.now());
        let asked = self
            .verifier
            .store
            .resend(id, name, None, service.budget, now);
        let opened = asked.await?;
        opened.map(|opened| self.asked(opened, now, 0)).transpose()
    }

    /// Draws the code of `further`; the one before is good for nothing from now on.
    pub async fn renew(
        &self,
        service: &Service,
        further: Further,
    ) -> Result<Opening, VerifierError> {
        let live = further.verification;
        let (id, name, now) = (&live.id, &service.name, self.verifier.clock.now());
        let code = Some(self.mint(service, id)?.1);
        let opened = if further.step == 0 {
            let asked = (self.verifier.store).resend(id, name, code, service.budget, now);
            asked.await
        } else {
            let after = live.sends;
            let asked = (self.verifier.store).step(id, name, after, code, service.budget, now);
            asked.await
        };
        let asked = opened?.map(|opened| self.asked(opened, now, further.step));
        Ok(match asked.transpose()? {
            Some(Asked::Decided(opening)) => opening,
            // No store asks for a code that it was given.
            Some(Asked::NeedsCode(_)) => Opening::Cooling(live),
            None => Opening::Ended(live),
        })
    }

    /// Takes fallback step `step` of `id`, which follows message number `after`. `None`: the code
    /// was used, withdrawn, sent again or has expired.
    pub async fn step(
        &self,
        service: &Service,
        id: &VerificationId,
        step: u8,
        after: u8,
    ) -> Result<Option<Asked>, VerifierError> {
        let (name, now) = (&service.name, self.verifier.clock.now());
        let asked = (self.verifier.store).step(id, name, after, None, service.budget, now);
        let opened = asked.await?;
        opened
            .map(|opened| self.asked(opened, now, step))
            .transpose()
    }

    /// The broker has confirmed this message: its cooldown counts from now on.
    pub async fn confirm(&self, delivery: &DeliveryId) -> Result<(), VerifierError> {
        Ok(self
            .verifier
            .store
            .confirm(delivery.verification(), delivery.send())
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

    fn asked(&self, opened: Opened, at: Timestamp, step: u8) -> Result<Asked, VerifierError> {
        Ok(Asked::Decided(match opened {
            Opened::Send(sent) => {
                let plain = self.unsealed(&sent)?;
                Opening::Send(Box::new(message(sent, plain, at, step)?))
            }
            Opened::NeedsCode(sent) => {
                let details = self.details(&sent)?;
                let recipient = at_step(details.recipient, details.fallback, step)?;
                let live = sent.verification;
                return Ok(Asked::NeedsCode(Box::new(Further {
                    delivery_id: DeliveryId::new(live.id.clone(), live.sends.saturating_add(1)),
                    verification: live,
                    recipient,
                    at,
                    step,
                })));
            }
            Opened::Cooling(live) => Opening::Cooling(live),
            Opened::Exhausted(live) => Opening::Exhausted(live),
            Opened::Locked(until) => Opening::Locked(until),
        }))
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
