//! The verifier as others use it: it mints, seals and digests, asks the store for one decision,
//! and turns the answer back into values. Refuses to publish, and to say why a check failed.

use std::sync::Arc;
use std::time::Instant;

use data_encoding::HEXLOWER;
use watchword_chassis::Service;
use watchword_core::{
    CheckId, CheckVerdict, Clock, Code, DeliveryId, Entropy, EntropyError, KeyRing, Live, Locale,
    Purpose, Recipient, ServiceName, Subject, Timestamp, TypedCode, Variables, VerificationId,
};
use watchword_events::Sealer;
use watchword_failpoint::{Point, reach};

use crate::index::{Index, digest, digests, same_for_all_spellings};
use crate::opening::{Asked, Further, Opening, at_step, message};
use crate::store::{
    CheckCommand, OpenCommand, Opened, SealedCode, Sent, StoreError, StoredVerification,
    VerificationStore,
};
use crate::telemetry::VerifierMetrics;
use crate::vault::{
    FallbackStep, OrderDetails, VaultError, open_code, open_order, seal_code, seal_order,
};

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

/// Why there is no answer. Whoever asked fails closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifierError {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Sealed state could not be made or read.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The random generator failed.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// Owner of code state.
pub struct Verifier {
    store: Arc<dyn VerificationStore>,
    index: Index,
    digest_keys: Live<KeyRing>,
    sealer: Live<Sealer>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    metrics: VerifierMetrics,
}

/// What a [`Verifier`] is made of.
pub struct VerifierParts {
    /// Where code state lives.
    pub store: Arc<dyn VerificationStore>,
    /// Hashes subjects and recipients.
    pub index: Index,
    /// Digest codes; the first digests, all verify.
    pub digest_keys: Live<KeyRing>,
    /// Seals codes and orders in the store.
    pub sealer: Live<Sealer>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The random source.
    pub entropy: Arc<dyn Entropy>,
    /// Where it counts.
    pub metrics: VerifierMetrics,
}

impl Verifier {
    /// A verifier of these parts.
    pub fn new(parts: VerifierParts) -> Self {
        let VerifierParts {
            store,
            index,
            digest_keys,
            sealer,
            clock,
            entropy,
            metrics,
        } = parts;
        Self {
            store,
            index,
            digest_keys,
            sealer,
            clock,
            entropy,
            metrics,
        }
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
        let slot = self
            .index
            .slot(&service.name, subject, &request.recipient, &request.purpose);
        let tag = self.index.subject_tag(&service.name, subject);
        let id = VerificationId::draw(tag, self.entropy.as_ref())?;
        let now = self.clock.now();
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
        match self.store.open(command).await? {
            // What was just sealed need not be opened.
            Opened::Send(sent) if sent.is_new => {
                self.metrics.opened(&details.recipient);
                let names_subject = self.names_subject(&sent.verification, &details);
                let message = message(sent, (code, details), names_subject, now, 0)?;
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
        let (name, now) = (&service.name, self.clock.now());
        let asked = self.store.resend(id, name, None, service.budget, now);
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
        let (id, name, now) = (&live.id, &service.name, self.clock.now());
        let code = Some(self.mint(service, id)?.1);
        let opened = if further.step == 0 {
            let asked = (self.store).resend(id, name, code, service.budget, now);
            asked.await
        } else {
            let after = live.sends;
            let asked = (self.store).step(id, name, after, code, service.budget, now);
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
        let (name, now) = (&service.name, self.clock.now());
        let asked = (self.store).step(id, name, after, None, service.budget, now);
        let opened = asked.await?;
        opened
            .map(|opened| self.asked(opened, now, step))
            .transpose()
    }

    /// The broker has confirmed this message: its cooldown counts from now on.
    pub async fn confirm(&self, delivery: &DeliveryId) -> Result<(), VerifierError> {
        Ok(self
            .store
            .confirm(delivery.verification(), delivery.send())
            .await?)
    }

    /// The hashes of this installation, for those who count by recipient.
    pub const fn index(&self) -> &Index {
        &self.index
    }

    /// Checks what a person typed. The verdict does not tell why nothing was compared.
    pub async fn check(
        &self,
        service: &Service,
        id: &VerificationId,
        typed: &TypedCode,
        check_id: Option<CheckId>,
        purpose: Option<Purpose>,
    ) -> Result<CheckVerdict, VerifierError> {
        let check_id = match check_id {
            Some(check_id) => check_id,
            None => self.draw_check_id()?,
        };
        let command = CheckCommand {
            id: id.clone(),
            service: service.name.clone(),
            purpose,
            candidates: digests(&self.digest_keys.get(), &service.name, id, typed.expose()),
            check_id,
            now: self.clock.now(),
        };
        let begun = Instant::now();
        let checked = self.store.check(command, service.budget).await;
        self.metrics.checked(&checked, begun.elapsed());
        reach(Point::VerifierChecked);
        Ok(checked?.verdict)
    }

    /// Withdraws a pending verification. `None`: unknown or another service's.
    pub async fn cancel(
        &self,
        service: &ServiceName,
        id: &VerificationId,
    ) -> Result<Option<StoredVerification>, VerifierError> {
        let canceled = self.store.cancel(id, service, self.clock.now()).await?;
        if let Some(verification) = &canceled {
            self.metrics.canceled(verification.status);
        }
        Ok(canceled)
    }

    /// The verification as it is now. `None`: unknown or another service's.
    pub async fn get(
        &self,
        service: &ServiceName,
        id: &VerificationId,
    ) -> Result<Option<StoredVerification>, VerifierError> {
        Ok(self.store.get(id, service, self.clock.now()).await?)
    }

    /// Forgets the wrong guesses of a subject: an operator unlocks it, or it was bound anew.
    pub async fn unlock(
        &self,
        service: &ServiceName,
        subject: &Subject,
    ) -> Result<(), VerifierError> {
        let subject = subject.as_str();
        // It may be a mailbox that no request named a subject for.
        for subject in [subject, &subject.to_ascii_lowercase()] {
            let tag = self.index.subject_tag(service, subject);
            self.store.forget_guesses(tag).await?;
        }
        Ok(())
    }

    fn mint(
        &self,
        service: &Service,
        id: &VerificationId,
    ) -> Result<(Code, SealedCode), VerifierError> {
        let code = Code::draw(service.policy.code_length, self.entropy.as_ref())?;
        let (keys, sealer) = (self.digest_keys.get(), self.sealer.get());
        let sealed = SealedCode {
            digest: digest(keys.first(), &service.name, id, code.expose()),
            sealed: seal_code(&sealer, id, &code)?,
            sealing_key_id: sealer.key_id().to_owned(),
        };
        Ok((code, sealed))
    }

    fn draw_check_id(&self) -> Result<CheckId, VerifierError> {
        let mut bytes = [0; 16];
        self.entropy.fill(&mut bytes)?;
        HEXLOWER
            .encode(&bytes)
            .parse()
            .map_err(|_| VaultError::Malformed.into())
    }

    fn asked(&self, opened: Opened, at: Timestamp, step: u8) -> Result<Asked, VerifierError> {
        Ok(Asked::Decided(match opened {
            Opened::Send(sent) => {
                let plain = self.unsealed(&sent)?;
                let names_subject = self.names_subject(&sent.verification, &plain.1);
                Opening::Send(Box::new(message(sent, plain, names_subject, at, step)?))
            }
            Opened::NeedsCode(sent) => {
                let details = self.details(&sent)?;
                let names_subject = self.names_subject(&sent.verification, &details);
                let recipient = at_step(details.recipient, details.fallback, step)?;
                let live = sent.verification;
                return Ok(Asked::NeedsCode(Box::new(Further {
                    delivery_id: DeliveryId::new(live.id.clone(), live.sends.saturating_add(1)),
                    verification: live,
                    recipient,
                    names_subject,
                    at,
                    step,
                })));
            }
            Opened::Cooling(live) => Opening::Cooling(live),
            Opened::Exhausted(live) => Opening::Exhausted(live),
            Opened::Locked(until) => Opening::Locked(until),
        }))
    }

    fn names_subject(&self, verification: &StoredVerification, details: &OrderDetails) -> bool {
        let (service, subject) = (&verification.service, verification.id.subject_tag());
        let index = &self.index;
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
