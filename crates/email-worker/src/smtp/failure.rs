//! How a mail was not taken: at which step and why, and what class that is. The one table for
//! SMTP replies. Refuses to keep a reply's text, which can name the recipient.

use lettre::transport::smtp::Error;
use watchword_core::AttemptClass;
use watchword_delivery::Scope;

/// The step of the dialogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Connect,
    StartTls,
    Auth,
    Mail,
    Rcpt,
    Data,
    Body,
}

/// Why it ended there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A reply; `policy` if its enhanced code is 5.7.x.
    Reply { code: u16, policy: bool },
    /// No reply in time.
    Timeout,
    /// The connection broke, or what came was no reply.
    Broken,
    /// The certificate was not accepted, or TLS failed.
    Tls,
    /// STARTTLS or a way to log in is not offered.
    NotOffered,
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reply { code, .. } => write!(f, "{code}"),
            Self::Timeout => f.write_str("timeout"),
            Self::Broken => f.write_str("broken"),
            Self::Tls => f.write_str("tls"),
            Self::NotOffered => f.write_str("not_offered"),
        }
    }
}

/// A mail that was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) cause: Cause,
}

impl Failure {
    pub(super) const fn connection() -> Self {
        Self {
            step: Step::Connect,
            cause: Cause::Broken,
        }
    }

    pub(super) fn of(step: Step, error: &Error) -> Self {
        let cause = match error.status() {
            Some(code) => {
                // Only its enhanced code is looked at; the text goes no further.
                let policy = error.to_string().contains(" 5.7.");
                Cause::Reply {
                    code: u16::from(code),
                    policy,
                }
            }
            None if error.is_tls() => Cause::Tls,
            None if error.is_timeout() => Cause::Timeout,
            None if error.is_client() => Cause::NotOffered,
            None => Cause::Broken,
        };
        Self { step, cause }
    }

    /// Whether a kept connection turned out to be closed before anything was handed over.
    pub(super) fn is_stale(self) -> bool {
        self.step == Step::Mail
            && matches!(self.cause, Cause::Broken | Cause::Reply { code: 421, .. })
    }

    pub(super) fn reason(self) -> String {
        format!("{:?}_{}", self.step, self.cause).to_lowercase()
    }

    /// What the failure is evidence about: from RCPT on the relay knows the recipient.
    pub(super) const fn scope(self) -> Scope {
        match self.step {
            Step::Connect | Step::StartTls | Step::Auth | Step::Mail => Scope::Provider,
            Step::Rcpt | Step::Data | Step::Body => Scope::Destination,
        }
    }

    #[expect(clippy::match_same_arms, reason = "one row a case of the dialogue")]
    pub(super) fn class(self) -> AttemptClass {
        use AttemptClass as Class;
        match (self.step, self.cause) {
            // The final dot is on its way: the relay may have taken the mail.
            (Step::Body, Cause::Timeout | Cause::Broken) => Class::UnknownOutcome,
            (_, Cause::Timeout | Cause::Broken) => Class::Transient,
            (_, Cause::Tls | Cause::NotOffered) => Class::ConfigFault,
            (
                _,
                Cause::Reply {
                    code: 400..=499, ..
                },
            ) => Class::Transient,
            (Step::Connect | Step::StartTls | Step::Auth | Step::Mail, Cause::Reply { .. }) => {
                Class::ConfigFault
            }
            (
                Step::Rcpt,
                Cause::Reply {
                    code: 530 | 535, ..
                }
                | Cause::Reply { policy: true, .. },
            ) => Class::ConfigFault,
            (
                Step::Rcpt,
                Cause::Reply {
                    code: 550 | 551 | 553,
                    ..
                },
            ) => Class::RecipientInvalid,
            (
                Step::Rcpt | Step::Data | Step::Body,
                Cause::Reply {
                    code: 500..=599, ..
                },
            ) => Class::MessageRejected,
            // A positive reply that is not the one the step asks for.
            (_, Cause::Reply { .. }) => Class::UnknownOutcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reply_at_each_step_has_its_class() {
        use AttemptClass as Class;
        let reply = |code| Cause::Reply {
            code,
            policy: false,
        };
        let table = [
            (Step::Connect, Cause::Broken, Class::Transient),
            (Step::Connect, Cause::Timeout, Class::Transient),
            (Step::Connect, reply(421), Class::Transient),
            (Step::Connect, reply(554), Class::ConfigFault),
            (Step::StartTls, Cause::NotOffered, Class::ConfigFault),
            (Step::StartTls, Cause::Tls, Class::ConfigFault),
            (Step::Auth, reply(535), Class::ConfigFault),
            (Step::Auth, reply(454), Class::Transient),
            (Step::Mail, reply(452), Class::Transient),
            (Step::Mail, reply(550), Class::ConfigFault),
            (Step::Rcpt, reply(450), Class::Transient),
            (Step::Rcpt, reply(550), Class::RecipientInvalid),
            (
                Step::Rcpt,
                Cause::Reply {
                    code: 554,
                    policy: true,
                },
                Class::ConfigFault,
            ),
            (Step::Rcpt, reply(552), Class::MessageRejected),
            (Step::Data, reply(554), Class::MessageRejected),
            (Step::Data, Cause::Timeout, Class::Transient),
            (Step::Body, reply(451), Class::Transient),
            (Step::Body, reply(554), Class::MessageRejected),
            (Step::Body, reply(354), Class::UnknownOutcome),
            (Step::Body, reply(251), Class::UnknownOutcome),
            (Step::Body, Cause::Timeout, Class::UnknownOutcome),
            (Step::Body, Cause::Broken, Class::UnknownOutcome),
        ];
        for (step, cause, class) in table {
            assert_eq!(Failure { step, cause }.class(), class, "{step:?} {cause:?}");
        }
    }
}
