//! The refusal of a request. The HTTP routes turn it into a problem document, the intake into the
//! answer's event.

use std::borrow::Cow;

use watchword_broker::PublishError;
use watchword_chassis::ProblemCode;
use watchword_core::{Malformed, NumberRefusal};
use watchword_verifier::VerifierError;

use crate::limits::Limit;

/// Refusal of a request, by what its caller does next. `Display` is the detail that the caller
/// gets; it contains nothing that the caller sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The caller corrects the field of the request.
    #[error("{detail}")]
    Invalid {
        /// States which rule the field broke.
        code: ProblemCode,
        /// The field, as the caller writes it.
        field: &'static str,
        /// The rule.
        detail: Cow<'static, str>,
    },
    /// The caller waits until the limit grants a message.
    #[error("{detail}")]
    Limited {
        /// The limit that refused the message.
        limit: Limit,
        /// The counted messages and the config key.
        detail: String,
        /// Seconds until the limit grants a message.
        wait_seconds: u64,
    },
    /// The caller waits until the verification expires.
    #[error("wait for the verification to expire")]
    TooManySends {
        /// Seconds until the verification expires.
        wait_seconds: u64,
    },
    /// The caller waits until the lock of the subject ends.
    #[error("too many wrong codes were given for this subject")]
    SubjectLocked {
        /// Seconds until the lock ends.
        wait_seconds: u64,
    },
    /// An operator unlocks the subject.
    #[error("the subject must be unlocked by an operator")]
    SubjectLockedForGood,
    /// The caller requests a new verification: this one is unknown, has ended or belongs to another
    /// service.
    #[error("the service has no live verification of this id")]
    Gone,
    /// The caller requests a new verification: the code of this request would have expired.
    #[error("the request waited longer than its code would have lived")]
    Expired,
    /// The caller repeats the request: the store did not answer, or the state changed meanwhile.
    #[error("{0}")]
    StoreUnavailable(&'static str),
    /// The caller repeats the request: the broker did not take the message.
    #[error("{}; it is safe to retry", broker_state(.0))]
    BrokerUnavailable(PublishError),
    /// The operator reads the log.
    #[error("{0}")]
    Internal(&'static str),
}

impl IssueError {
    /// Refuses the value of `field`.
    pub(crate) fn malformed(code: ProblemCode, field: &'static str, error: &Malformed) -> Self {
        Self::Invalid {
            code,
            field,
            detail: format!("{field}: {error}").into(),
        }
    }

    /// Refuses the number in `field`, to which the service does not send.
    pub(crate) fn number(field: &'static str, refusal: &NumberRefusal) -> Self {
        let code = match refusal {
            NumberRefusal::WrongLength => ProblemCode::InvalidPhone,
            _ => ProblemCode::DestinationBlocked,
        };
        Self::Invalid {
            code,
            field,
            detail: refusal.to_string().into(),
        }
    }

    /// Returns the stable code.
    pub const fn code(&self) -> ProblemCode {
        match self {
            Self::Invalid { code, .. } => *code,
            Self::Limited {
                limit: Limit::Cooldown,
                ..
            } => ProblemCode::Cooldown,
            Self::Limited { .. } => ProblemCode::RateLimited,
            Self::TooManySends { .. } => ProblemCode::TooManySends,
            Self::SubjectLocked { .. } | Self::SubjectLockedForGood => ProblemCode::SubjectLocked,
            Self::Gone => ProblemCode::NotFound,
            Self::Expired => ProblemCode::RequestExpired,
            Self::StoreUnavailable(_) => ProblemCode::StoreUnavailable,
            Self::BrokerUnavailable(_) => ProblemCode::BrokerUnavailable,
            Self::Internal(_) => ProblemCode::Internal,
        }
    }

    /// Returns the time after which a repeat may succeed, at least 1 s.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        match self {
            Self::Limited { wait_seconds, .. }
            | Self::TooManySends { wait_seconds }
            | Self::SubjectLocked { wait_seconds } => Some((*wait_seconds).max(1)),
            Self::StoreUnavailable(_) | Self::BrokerUnavailable(_) => Some(1),
            Self::Invalid { .. }
            | Self::SubjectLockedForGood
            | Self::Gone
            | Self::Expired
            | Self::Internal(_) => None,
        }
    }

    /// Whether a peer is away, so that the same request may succeed later.
    pub(crate) const fn is_unavailable(&self) -> bool {
        matches!(self, Self::StoreUnavailable(_) | Self::BrokerUnavailable(_))
    }

    /// Whether a limit refused the message for longer than a cooldown.
    pub(crate) fn is_rate_limited(&self) -> bool {
        matches!(self, Self::Limited { limit, .. } if *limit != Limit::Cooldown)
    }
}

impl From<VerifierError> for IssueError {
    fn from(error: VerifierError) -> Self {
        match error {
            VerifierError::Store(_) => {
                Self::StoreUnavailable("the store cannot be reached; repeat the request")
            }
            VerifierError::Vault(_) | VerifierError::Entropy(_) => {
                // The caller does not get the cause, so this is the only place that knows it.
                tracing::error!(%error, "a verification could not be processed");
                Self::Internal("the request could not be processed")
            }
        }
    }
}

impl From<PublishError> for IssueError {
    fn from(error: PublishError) -> Self {
        Self::BrokerUnavailable(error)
    }
}

const fn broker_state(error: &PublishError) -> &'static str {
    match error {
        PublishError::Unavailable => "the broker is not connected",
        PublishError::Blocked => "the broker accepts no messages for now",
        PublishError::Rejected => "the queue is full",
        PublishError::Unroutable => "the queue is being restored",
        PublishError::Unconfirmed => "the broker did not confirm in time",
    }
}

#[cfg(test)]
mod tests {
    use watchword_chassis::Problem;
    use watchword_events::Refusal;
    use watchword_verifier::store::StoreError;

    use super::*;

    /// A row per error: code, field, `Retry-After` and detail. The HTTP answer and the event
    /// carry the same values.
    #[test]
    fn http_and_event_give_the_same_answer() {
        let limited = |limit| IssueError::Limited {
            limit,
            detail: "too many".to_owned(),
            wait_seconds: 0,
        };
        let malformed = IssueError::malformed(
            ProblemCode::InvalidRequest,
            "to",
            &Malformed::new("must be set"),
        );
        let number = |refusal| IssueError::number("to", &refusal);
        let store = IssueError::from(VerifierError::Store(StoreError::Corrupt));
        #[rustfmt::skip]
        let rows = [
            (malformed, "invalid_request", Some("to"), None, "to: must be set"),
            (number(NumberRefusal::WrongLength), "invalid_phone", Some("to"), None, "the phone number has too few or too many digits for its numbering plan"),
            (number(NumberRefusal::Country("DE".into())), "destination_blocked", Some("to"), None, "the number belongs to DE, where the service sends no codes"),
            (limited(Limit::Cooldown), "cooldown", None, Some(1), "too many"),
            (limited(Limit::ServiceDay), "rate_limited", None, Some(1), "too many"),
            (IssueError::TooManySends { wait_seconds: 9 }, "too_many_sends", None, Some(9), "wait for the verification to expire"),
            (IssueError::SubjectLocked { wait_seconds: 9 }, "subject_locked", None, Some(9), "too many wrong codes were given for this subject"),
            (IssueError::SubjectLockedForGood, "subject_locked", None, None, "the subject must be unlocked by an operator"),
            (IssueError::Gone, "not_found", None, None, "the service has no live verification of this id"),
            (IssueError::Expired, "request_expired", None, None, "the request waited longer than its code would have lived"),
            (store, "store_unavailable", None, Some(1), "the store cannot be reached; repeat the request"),
            (PublishError::Rejected.into(), "broker_unavailable", None, Some(1), "the queue is full; it is safe to retry"),
            (IssueError::Internal("no"), "internal", None, None, "no"),
        ];
        for (error, code, field, retry_after_seconds, detail) in rows {
            let problem = Problem::from(error.clone());
            assert_eq!(problem.code.as_str(), code, "{error:?}");
            assert_eq!(problem.detail, detail);
            assert_eq!(problem.field.as_deref(), field, "{error:?}");
            assert_eq!(problem.retry_after_seconds, retry_after_seconds, "{code}");
            let refusal = Refusal::from(error);
            assert_eq!(refusal.code, code);
            assert_eq!(refusal.detail, detail);
            assert_eq!(refusal.retry_after_seconds, retry_after_seconds, "{code}");
        }
    }
}
