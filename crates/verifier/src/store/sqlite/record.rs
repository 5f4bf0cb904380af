//! A verification as stored in its row: one JSON record, read and written as a whole.

use serde::{Deserialize, Serialize};
use watchword_core::{
    Channel, CheckId, CheckVerdict, CodeLength, Pending, Policy, Purpose, ResendCode, ServiceName,
    ShortTag, Timestamp, VerificationId, VerificationStatus,
};

use super::super::AFTERLIFE_MS;
use super::super::model::{
    Approval, Digest, Expected, Inspected, OpenCommand, SealedCode, Sends, Sent, StoredVerification,
};

/// The stored fields of a verification except its id and slot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) service: ServiceName,
    status: VerificationStatus,
    pub(super) channel: Channel,
    pub(super) purpose: Purpose,
    masked_to: String,
    opened_at_ms: i64,
    expires_at_ms: i64,
    resend_after_ms: i64,
    sends: u8,
    confirmed: bool,
    #[serde(default)]
    by_step: bool,
    checks_left: u8,
    max_sends: u8,
    cooldown_ms: u64,
    rotates: bool,
    code: Option<CodeRecord>,
    order: Option<String>,
    order_key: String,
    /// Records of an earlier build lack it, so their recipient cannot be compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) recipient: Option<ShortTag>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) variables: Option<ShortTag>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) details: Option<ShortTag>,
    /// The last message that a fallback step may send.
    #[serde(default)]
    last_step: u8,
    /// The send limit that refused the current message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused_by: Option<String>,
    /// At most one entry for each check that was compared.
    answers: Vec<AnswerRecord>,
    /// The epoch of the clock in which it was opened.
    #[serde(default)]
    epoch: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct CodeRecord {
    digest_key: String,
    digest: String,
    sealed: String,
    sealing_key: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct AnswerRecord {
    check_id: CheckId,
    verdict: Answered,
    /// The first characters of the typed code's digests, which distinguish one code from another.
    typed: Vec<String>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answered {
    Approved,
    Wrong,
    LastWrong,
}

/// Relation of a check to an earlier one with the same id.
pub(super) enum Repeat {
    /// It is the same check, and this is its verdict.
    Same(CheckVerdict),
    /// The id was used for another check.
    Other,
    /// The id is new.
    No,
}

impl Record {
    pub(super) fn new(command: OpenCommand, epoch: u32) -> Self {
        let pending = Pending::open(command.policy, command.now);
        Self {
            service: command.service,
            status: VerificationStatus::Pending,
            channel: command.channel,
            purpose: command.purpose,
            masked_to: command.masked_to,
            opened_at_ms: command.now.as_millis(),
            expires_at_ms: pending.expires_at.as_millis(),
            resend_after_ms: pending.resend_after.as_millis(),
            sends: pending.sends,
            confirmed: pending.confirmed,
            by_step: pending.by_step,
            checks_left: pending.checks_left,
            max_sends: command.policy.max_sends,
            cooldown_ms: command.policy.cooldown_ms,
            rotates: command.policy.resend == ResendCode::Rotate,
            code: Some(CodeRecord::from(command.code)),
            order: Some(command.sealed_order),
            order_key: command.sealing_key_id,
            recipient: Some(command.recipient),
            variables: command.variables,
            details: command.details,
            last_step: command
                .steps
                .saturating_add(1)
                .min(command.policy.max_sends),
            refused_by: None,
            answers: Vec::new(),
            epoch,
        }
    }

    pub(super) fn expires_at_ms(&self) -> i64 {
        self.expires_at_ms
    }

    /// Returns whether the record is past its retention.
    pub(super) fn is_forgotten(&self, now: Timestamp) -> bool {
        Timestamp::from_millis(self.expires_at_ms).plus_millis(AFTERLIFE_MS) <= now
    }

    /// Returns the state for core's rules. Fields that the rules do not use have their defaults.
    pub(super) fn pending(&self) -> Pending {
        Pending {
            policy: Policy {
                code_length: CodeLength::default(),
                max_sends: self.max_sends,
                cooldown_ms: self.cooldown_ms,
                resend: if self.rotates {
                    ResendCode::Rotate
                } else {
                    ResendCode::Same
                },
                ..Policy::default()
            },
            opened_at: Timestamp::from_millis(self.opened_at_ms),
            expires_at: Timestamp::from_millis(self.expires_at_ms),
            checks_left: self.checks_left,
            sends: self.sends,
            confirmed: self.confirmed,
            by_step: self.by_step,
            refused: self.refused_by.is_some(),
            resend_after: Timestamp::from_millis(self.resend_after_ms),
        }
    }

    pub(super) fn sends(&self, id: VerificationId) -> Sends {
        Sends {
            id,
            sends: self.sends,
            confirmed: self.confirmed,
            expires_at: Timestamp::from_millis(self.expires_at_ms),
        }
    }

    pub(super) fn advance(&mut self, pending: Pending) {
        self.checks_left = pending.checks_left;
        if !pending.refused {
            self.refused_by = None;
        }
        self.opened_at_ms = pending.opened_at.as_millis();
        self.expires_at_ms = pending.expires_at.as_millis();
        self.sends = pending.sends;
        self.confirmed = pending.confirmed;
        self.by_step = pending.by_step;
        self.resend_after_ms = pending.resend_after.as_millis();
    }

    /// Records that a limit refused message number `send`. A queued or ended message stays as it is.
    pub(super) fn refuse(&mut self, send: u8, limit: &str) {
        if self.is_pending() && self.pending().refuse(send).refused {
            self.refused_by = Some(limit.to_owned());
        }
    }

    /// Plans `steps` fallback steps after the newest message; 0 ends the fallback.
    pub(super) fn plan(&mut self, steps: u8) {
        self.last_step = self.sends.saturating_add(steps).min(self.max_sends);
    }

    /// Replaces the order by one with another locale or fallback.
    pub(super) fn replace_details(&mut self, command: OpenCommand) {
        self.details = command.details;
        self.order = Some(command.sealed_order);
        self.order_key = command.sealing_key_id;
        self.plan(command.steps);
    }

    pub(super) fn is_pending(&self) -> bool {
        self.status == VerificationStatus::Pending
    }

    pub(super) fn is_approved(&self) -> bool {
        self.status == VerificationStatus::Approved
    }

    pub(super) fn status_at(&self, now: Timestamp) -> VerificationStatus {
        match self.status {
            VerificationStatus::Pending if !self.pending().is_live(now) => {
                VerificationStatus::Expired
            }
            status => status,
        }
    }

    /// Ends the verification and erases everything that could still be checked, sent or compared.
    pub(super) fn end(&mut self, status: VerificationStatus) {
        self.status = status;
        self.code = None;
        self.order = None;
        (self.recipient, self.variables, self.details) = (None, None, None);
    }

    /// Ends a live verification that was opened before this epoch of the clock: its age is unknown.
    pub(super) fn end_if_before(&mut self, epoch: u32) {
        if self.is_pending() && self.epoch < epoch {
            self.end(VerificationStatus::Expired);
        }
    }

    /// Returns whether this live verification, with the id `id`, meets the expectations of a check.
    pub(super) fn fits(&self, expected: &Expected, id: &VerificationId) -> bool {
        let Expected {
            purpose,
            channel,
            recipient,
            variables,
            subject,
        } = expected;
        purpose.as_ref().is_none_or(|one| *one == self.purpose)
            && channel.is_none_or(|one| one == self.channel)
            && recipient.is_none_or(|one| Some(one) == self.recipient)
            && variables.is_none_or(|one| one == self.variables)
            && subject.is_none_or(|one| one.to_string() == id.tag())
    }

    pub(super) fn approval(&self) -> Approval {
        Approval {
            channel: self.channel,
            purpose: self.purpose.clone(),
            masked_to: self.masked_to.clone(),
        }
    }

    pub(super) fn replace_code(&mut self, code: SealedCode) {
        self.code = Some(CodeRecord::from(code));
    }

    pub(super) fn digest(&self) -> Option<Digest> {
        self.code.as_ref().map(|code| Digest {
            key_id: code.digest_key.clone(),
            hex: code.digest.clone(),
        })
    }

    /// Compares a check with an earlier one of the same id. The same id with another code or other
    /// expectations is another check.
    pub(super) fn repeat(&self, check_id: &CheckId, typed: &[String]) -> Repeat {
        let earlier = self
            .answers
            .iter()
            .find(|answer| answer.check_id == *check_id);
        let Some(answer) = earlier else {
            return Repeat::No;
        };
        if !answer.typed.iter().any(|digest| typed.contains(digest)) {
            return Repeat::Other;
        }
        match answer.verdict {
            Answered::Approved => Repeat::Same(CheckVerdict::Approved),
            Answered::Wrong => Repeat::Same(CheckVerdict::Wrong),
            Answered::LastWrong => Repeat::Same(CheckVerdict::LastWrong),
        }
    }

    pub(super) fn remember(
        &mut self,
        check_id: CheckId,
        verdict: CheckVerdict,
        typed: Vec<String>,
    ) {
        let verdict = match verdict {
            CheckVerdict::Approved => Answered::Approved,
            CheckVerdict::Wrong => Answered::Wrong,
            CheckVerdict::LastWrong => Answered::LastWrong,
            CheckVerdict::Refused => return,
        };
        self.answers.push(AnswerRecord {
            check_id,
            verdict,
            typed,
        });
    }

    pub(super) fn inspected(&self, id: &VerificationId, now: Timestamp) -> Inspected {
        Inspected {
            verification: self.at(id, now),
            confirmed: self.confirmed,
            refused_by: self.refused_by.clone(),
            recipient: self.recipient,
        }
    }

    pub(super) fn at(&self, id: &VerificationId, now: Timestamp) -> StoredVerification {
        StoredVerification {
            id: id.clone(),
            service: self.service.clone(),
            status: self.status_at(now),
            channel: self.channel,
            purpose: self.purpose.clone(),
            masked_to: self.masked_to.clone(),
            opened_at: Timestamp::from_millis(self.opened_at_ms),
            expires_at: Timestamp::from_millis(self.expires_at_ms),
            resend_after: self.pending().resend_after(now),
            sends: self.sends,
            checks_left: self.checks_left,
            awaits_step: self.sends < self.last_step,
        }
    }

    /// Returns the message to publish; `None` if there is no code or order, a state that this
    /// program never writes.
    pub(super) fn sent(
        &self,
        id: &VerificationId,
        now: Timestamp,
        is_new: bool,
        follows_approval: bool,
    ) -> Option<Sent> {
        let code = self.code.as_ref()?;
        Some(Sent {
            verification: self.at(id, now),
            is_new,
            withdrew: false,
            follows_approval,
            sealed_code: code.sealed.clone(),
            code_key_id: code.sealing_key.clone(),
            sealed_order: self.order.clone()?,
            order_key_id: self.order_key.clone(),
        })
    }
}

impl From<SealedCode> for CodeRecord {
    fn from(code: SealedCode) -> Self {
        Self {
            digest_key: code.digest.key_id,
            digest: code.digest.hex,
            sealed: code.sealed,
            sealing_key: code.sealing_key_id,
        }
    }
}
