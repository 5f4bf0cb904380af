//! The checking half of the crate: it digests a typed code, asks the store for one decision, and
//! converts the reply into values. It holds no sealing key and cannot read a stored code or
//! recipient.

use std::sync::Arc;
use std::time::Instant;

use data_encoding::HEXLOWER;
use watchword_core::{
    Channel, CheckId, Clock, Entropy, EntropyError, KeyRing, Live, Purpose, Recipient, Service,
    ServiceName, Subject, TypedCode, Variables, VerificationId,
};
use watchword_failpoint::{Point, reach};

use crate::index::{Index, digests};
use crate::store::{
    CheckCommand, Checked, Expected, StoreError, StoredVerification, VerificationStore,
};
use crate::telemetry::VerifierMetrics;
use crate::vault::VaultError;

/// An error of the verifier. The caller must fail closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifierError {
    /// The store did not reply.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Sealed state could not be created or read.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The random generator failed.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// A parsed check: the typed code and the caller's expectations about it. An expectation that is
/// not met makes the code wrong.
#[derive(Debug, Clone)]
pub struct CheckRequest {
    /// The code as the user typed it.
    pub code: TypedCode,
    /// Idempotency key: a repeat of the same check gets the stored result.
    pub check_id: Option<CheckId>,
    /// The purpose of the request.
    pub purpose: Option<Purpose>,
    /// The subject that the request named.
    pub subject: Option<Subject>,
    /// The channel of the request.
    pub channel: Option<Channel>,
    /// The recipient of the request; not that of a fallback step.
    pub recipient: Option<Recipient>,
    /// The variables that the message showed; an empty map expects a message without variables.
    pub variables: Option<Variables>,
}

impl CheckRequest {
    /// Creates a check of `code` without expectations.
    pub const fn of(code: TypedCode) -> Self {
        Self {
            code,
            check_id: None,
            purpose: None,
            subject: None,
            channel: None,
            recipient: None,
            variables: None,
        }
    }
}

/// Checks, cancels and shows verifications.
pub struct Verifier {
    pub(crate) store: Arc<dyn VerificationStore>,
    pub(crate) index: Index,
    pub(crate) digest_keys: Live<KeyRing>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) metrics: VerifierMetrics,
}

/// The parts of a [`Verifier`].
pub struct VerifierParts {
    /// The store of code state.
    pub store: Arc<dyn VerificationStore>,
    /// Computes the keyed hashes of subjects and recipients.
    pub index: Index,
    /// Keys that digest codes. New codes use the first key; checks try all.
    pub digest_keys: Live<KeyRing>,
    /// The caller-side clock; the store also uses its own.
    pub clock: Arc<dyn Clock>,
    /// The source of verification ids, codes and check ids.
    pub entropy: Arc<dyn Entropy>,
    /// Counts checks and verifications.
    pub metrics: VerifierMetrics,
}

impl Verifier {
    /// Creates a verifier.
    pub fn new(parts: VerifierParts) -> Self {
        let VerifierParts {
            store,
            index,
            digest_keys,
            clock,
            entropy,
            metrics,
        } = parts;
        Self {
            store,
            index,
            digest_keys,
            clock,
            entropy,
            metrics,
        }
    }

    /// Returns the keyed hashes of this installation, for callers that count by recipient.
    pub const fn index(&self) -> &Index {
        &self.index
    }

    /// Checks a typed code. The verdict reveals neither why nothing was compared nor which
    /// expectation was not met.
    pub async fn check(
        &self,
        service: &Service,
        id: &VerificationId,
        request: CheckRequest,
    ) -> Result<Checked, VerifierError> {
        let check_id = match request.check_id {
            Some(check_id) => check_id,
            None => self.draw_check_id()?,
        };
        let (name, index) = (&service.name, &self.index);
        let (subject, to) = (request.subject.as_ref(), request.recipient.as_ref());
        let variables = request.variables.as_ref();
        let expected = Expected {
            purpose: request.purpose,
            channel: request.channel,
            recipient: to.map(|to| index.recipient_short(name, to)),
            variables: variables.map(|variables| index.variables(name, id.tag(), variables)),
            subject: subject.map(|subject| index.subject_tag(name, subject.as_str())),
        };
        let command = CheckCommand {
            id: id.clone(),
            service: name.clone(),
            expected,
            candidates: digests(&self.digest_keys.get(), name, id, request.code.expose()),
            check_id,
            now: self.clock.now(),
        };
        let begun = Instant::now();
        let checked = self.store.check(command, service.budget).await;
        self.metrics.checked(&checked, begun.elapsed());
        reach(Point::VerifierChecked);
        Ok(checked?)
    }

    /// Withdraws a pending verification. Returns `None` if it is unknown or belongs to another
    /// service.
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

    /// Returns the verification in its current state, or `None` if it is unknown or belongs to
    /// another service.
    pub async fn get(
        &self,
        service: &ServiceName,
        id: &VerificationId,
    ) -> Result<Option<StoredVerification>, VerifierError> {
        Ok(self.store.get(id, service, self.clock.now()).await?)
    }

    /// Clears the wrong guesses of a subject, because an operator unlocks it or its authenticator
    /// was bound again. Returns whether there were any.
    pub async fn unlock(
        &self,
        service: &ServiceName,
        subject: &Subject,
    ) -> Result<bool, VerifierError> {
        let mut found = false;
        for tag in self.index.subject_tags(service, subject) {
            found |= self.store.forget_guesses(tag).await?;
        }
        Ok(found)
    }

    fn draw_check_id(&self) -> Result<CheckId, VerifierError> {
        let mut bytes = [0; 16];
        self.entropy.fill(&mut bytes)?;
        HEXLOWER
            .encode(&bytes)
            .parse()
            .map_err(|_| VaultError::Malformed.into())
    }
}
