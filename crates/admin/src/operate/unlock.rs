//! Unlocks a subject or a recipient, and reports which counts were reset.

use serde::{Deserialize, Serialize};
use watchword_chassis::Problem;
use watchword_core::{Recipient, ServiceName, Subject};
use watchword_issuer::limits::Counter;

use super::{Operator, fields, limits_problem, no_service};

/// The subject, recipient or both whose counts are reset. The type does not implement `Serialize`
/// or `Debug`, because it holds a recipient in clear.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnlockRequest {
    service: String,
    subject: Option<String>,
    recipient: Option<String>,
    /// The operator's reason, for the audit trail.
    pub reason: String,
}

/// The counts that an unlock reset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnlockReport {
    /// The counts that were above zero.
    pub forgotten: Vec<Forgotten>,
    /// The result in one sentence.
    pub summary: String,
}

/// A count that an unlock resets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forgotten {
    /// Wrong codes that were entered for the subject.
    WrongCodes,
    /// Messages for the subject.
    SubjectMessages,
    /// Messages to the recipient.
    RecipientMessages,
    /// Messages to the recipient's number block.
    NumberBlockMessages,
}

impl Forgotten {
    const fn words(self) -> &'static str {
        match self {
            Self::WrongCodes => "wrong codes of the subject",
            Self::SubjectMessages => "messages for the subject",
            Self::RecipientMessages => "messages to the recipient",
            Self::NumberBlockMessages => "messages to the block of numbers",
        }
    }
}

impl Operator {
    /// Resets the counts of wrong codes and messages of a subject, and those of messages to a
    /// recipient and its number block.
    pub async fn unlock(&self, request: &UnlockRequest) -> Result<UnlockReport, Problem> {
        let (service, subject, recipient) = self.unlock_parts(request)?;
        let verifier = self.verifier()?;
        let index = verifier.index();
        let mut forgotten = Vec::new();
        if let Some(subject) = &subject {
            if verifier.unlock(&service, subject).await? {
                forgotten.push(Forgotten::WrongCodes);
            }
            let mut has_messages = false;
            for tag in index.subject_tags(&service, subject) {
                let counter = Counter::Subject(tag);
                let found = self.limiter.forget(&counter).await;
                has_messages |= found.map_err(limits_problem)?;
            }
            if has_messages {
                forgotten.push(Forgotten::SubjectMessages);
            }
        }
        if let Some(recipient) = &recipient {
            let tag = index.recipient_tag(&service, recipient);
            let found = self.limiter.forget_recipient(tag).await;
            if found.map_err(limits_problem)? {
                forgotten.push(Forgotten::RecipientMessages);
            }
        }
        if let Some(Recipient::Sms(number)) = &recipient {
            let block = Counter::NumberBlock(index.number_block_tag(&service, number));
            let found = self.limiter.forget(&block).await;
            if found.map_err(limits_problem)? {
                forgotten.push(Forgotten::NumberBlockMessages);
            }
        }
        let summary = summary(&forgotten, subject.is_some(), recipient.is_some());
        Ok(UnlockReport { forgotten, summary })
    }

    /// Returns the subject and recipient of `request` as the audit trail records them: by keyed
    /// hash. The hash of a subject is the first half of the ids of its verifications.
    pub fn unlock_target(&self, request: &UnlockRequest) -> Result<String, Problem> {
        let (service, subject, recipient) = self.unlock_parts(request)?;
        let index = self.index()?;
        let mut targets = Vec::new();
        if let Some(subject) = subject {
            targets.push(format!(
                "subject {}",
                index.subject_tag(&service, subject.as_str())
            ));
        }
        if let Some(recipient) = recipient {
            targets.push(format!(
                "recipient {}",
                index.recipient_tag(&service, &recipient)
            ));
        }
        Ok(targets.join(", "))
    }

    fn unlock_parts(
        &self,
        request: &UnlockRequest,
    ) -> Result<(ServiceName, Option<Subject>, Option<Recipient>), Problem> {
        let service = self.known_service(&request.service)?;
        let subject = request.subject.as_deref();
        let subject = subject
            .map(|text| fields::parsed("subject", text))
            .transpose()?;
        let recipient = request.recipient.as_deref();
        let recipient = recipient.map(fields::recipient).transpose()?;
        if subject.is_none() && recipient.is_none() {
            return Err(fields::invalid("subject", "give a subject or a recipient"));
        }
        Ok((service, subject, recipient))
    }

    /// Parses `name` and checks that a service of this name is configured.
    pub(super) fn known_service(&self, name: &str) -> Result<ServiceName, Problem> {
        let name: ServiceName = fields::parsed("service", name)?;
        let services = self.services.get();
        services.by_name(&name).ok_or_else(no_service)?;
        Ok(name)
    }
}

fn summary(forgotten: &[Forgotten], has_subject: bool, has_recipient: bool) -> String {
    if !forgotten.is_empty() {
        let words: Vec<_> = forgotten.iter().map(|count| count.words()).collect();
        return format!("Unlocked. Forgotten: {}.", words.join(", "));
    }
    let asked = match (has_subject, has_recipient) {
        (true, true) => "this subject or recipient",
        (true, false) => "this subject",
        _ => "this recipient",
    };
    format!(
        "Nothing was counted for {asked}, so it was not locked. Where a request names no subject, \
         the recipient is the subject."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_what_was_found() {
        use Forgotten::{RecipientMessages, WrongCodes};
        for (forgotten, expected) in [
            (&[WrongCodes][..], "Forgotten: wrong codes of the subject."),
            (
                &[WrongCodes, RecipientMessages],
                "Forgotten: wrong codes of the subject, messages to the recipient.",
            ),
            (&[], "it was not locked"),
        ] {
            let text = summary(forgotten, true, true);
            assert!(text.contains(expected), "{text}");
        }
    }
}
