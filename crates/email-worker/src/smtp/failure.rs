//! Failures of sending a mail: the step, the cause and the resulting outcome class. Replies from
//! RCPT on are classified by [`super::blame`]. No text of a reply is kept, because it may name the
//! recipient.

use std::io;

use watchword_core::AttemptClass;
use watchword_delivery::Scope;
use watchword_dial::TlsFault;

use super::blame::Refusal;
use super::reply::Reply;

/// Step of the SMTP conversation.
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

/// Cause of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A reply other than the expected one.
    Reply(Refusal),
    /// No reply before the deadline.
    Timeout,
    /// The connection broke, or the peer sent a malformed or surplus reply.
    Broken,
    /// All connections of the pool stayed in use.
    Busy,
    /// The TLS handshake failed, for example because of the certificate.
    Tls(TlsFault),
    /// The relay offers no STARTTLS or no supported login mechanism.
    NotOffered,
    /// Clear text followed the reply to STARTTLS. An attacker sends it to have it read as a reply
    /// inside TLS.
    Injected,
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reply(refusal) => {
                write!(f, "{}", refusal.code)?;
                match refusal.status {
                    Some((subject, detail)) => write!(f, "_5.{subject}.{detail}"),
                    None => Ok(()),
                }
            }
            Self::Timeout => f.write_str("timeout"),
            Self::Broken => f.write_str("broken"),
            Self::Busy => f.write_str("busy"),
            Self::Tls(fault) => write!(f, "tls_{fault}"),
            Self::NotOffered => f.write_str("not_offered"),
            Self::Injected => f.write_str("injected"),
        }
    }
}

/// Failure of sending a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) cause: Cause,
}

impl Failure {
    pub(super) const fn new(step: Step, cause: Cause) -> Self {
        Self { step, cause }
    }

    /// Returns the failure for a pool whose connections are all in use.
    pub(super) const fn busy() -> Self {
        Self::new(Step::Connect, Cause::Busy)
    }

    /// Returns the failure of a TLS handshake. Only an alert or an unacceptable certificate counts
    /// as a TLS fault; a lost connection does not.
    pub(super) fn handshake(error: &io::Error) -> Self {
        Self::new(
            Step::StartTls,
            TlsFault::of(error).map_or(Cause::Broken, Cause::Tls),
        )
    }

    pub(super) fn refused(step: Step, reply: &Reply) -> Self {
        Self::new(step, Cause::Reply(Refusal::of(reply)))
    }

    /// Whether a pooled connection turned out to be dead before anything was sent.
    pub(super) const fn is_stale(self) -> bool {
        matches!(
            (self.step, self.cause),
            (
                Step::Mail,
                Cause::Broken | Cause::Timeout | Cause::Reply(Refusal { code: 421, .. })
            )
        )
    }

    pub(super) fn reason(self) -> String {
        format!("{:?}_{}", self.step, self.cause).to_lowercase()
    }

    /// Returns the circuit that the failure counts for. From RCPT on the relay knows the recipient,
    /// so the failure counts for the destination.
    pub(super) const fn scope(self) -> Scope {
        match (self.step, self.cause) {
            // The relay was not called. The connections in use show whether it works.
            (_, Cause::Busy) => Scope::NotCalled,
            (Step::Connect | Step::StartTls | Step::Auth | Step::Mail, _) => Scope::Provider,
            (Step::Rcpt | Step::Data | Step::Body, _) => Scope::Destination,
        }
    }

    pub(super) fn class(self) -> AttemptClass {
        use AttemptClass as Class;
        match (self.step, self.cause) {
            // The final dot may have been sent, so the relay may have accepted the mail.
            (Step::Body, Cause::Timeout | Cause::Broken) => Class::UnknownOutcome,
            (_, Cause::Timeout | Cause::Broken | Cause::Busy) => Class::Transient,
            (_, Cause::Tls(_) | Cause::NotOffered | Cause::Injected) => Class::ConfigFault,
            (step, Cause::Reply(refusal)) => match (refusal.code, step) {
                (500..=599, Step::Rcpt | Step::Data | Step::Body) => refusal.class(step),
                // No recipient was named yet, so the relay refuses us.
                (500..=599, _) => Class::ConfigFault,
                (400..=499, _) => Class::Transient,
                // A positive reply, but not the one this step expects.
                (_, Step::Data | Step::Body) => Class::UnknownOutcome,
                // No content was sent.
                _ => Class::Transient,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(code: u16) -> Cause {
        Cause::Reply(Refusal {
            code,
            status: None,
            is_about_us: false,
        })
    }

    #[test]
    fn each_end_at_each_step_has_its_class() {
        use AttemptClass as Class;
        let table = [
            (Step::Connect, Cause::Broken, Class::Transient),
            (Step::Connect, Cause::Timeout, Class::Transient),
            (Step::Connect, reply(421), Class::Transient),
            (Step::Connect, reply(554), Class::ConfigFault),
            (Step::StartTls, Cause::NotOffered, Class::ConfigFault),
            (Step::StartTls, Cause::Injected, Class::ConfigFault),
            (
                Step::StartTls,
                Cause::Tls(TlsFault::Expired),
                Class::ConfigFault,
            ),
            (Step::StartTls, Cause::Broken, Class::Transient),
            (Step::StartTls, reply(454), Class::Transient),
            (Step::StartTls, reply(502), Class::ConfigFault),
            (Step::Auth, reply(535), Class::ConfigFault),
            (Step::Auth, reply(534), Class::ConfigFault),
            (Step::Auth, reply(454), Class::Transient),
            (Step::Auth, Cause::NotOffered, Class::ConfigFault),
            (Step::Mail, reply(452), Class::Transient),
            (Step::Mail, reply(530), Class::ConfigFault),
            (Step::Mail, reply(550), Class::ConfigFault),
            (Step::Mail, reply(354), Class::Transient),
            (Step::Rcpt, reply(450), Class::Transient),
            (Step::Rcpt, reply(550), Class::RecipientInvalid),
            (Step::Rcpt, reply(554), Class::DestinationRefused),
            (Step::Rcpt, reply(354), Class::Transient),
            (Step::Data, reply(554), Class::MessageRejected),
            (Step::Data, reply(250), Class::UnknownOutcome),
            (Step::Data, Cause::Timeout, Class::Transient),
            (Step::Body, reply(421), Class::Transient),
            (Step::Body, reply(451), Class::Transient),
            (Step::Body, reply(554), Class::MessageRejected),
            (Step::Body, reply(354), Class::UnknownOutcome),
            (Step::Body, Cause::Timeout, Class::UnknownOutcome),
            (Step::Body, Cause::Broken, Class::UnknownOutcome),
        ];
        for (step, cause, class) in table {
            assert_eq!(Failure { step, cause }.class(), class, "{step:?} {cause:?}");
        }
    }

    #[test]
    fn a_full_pool_says_nothing_about_the_relay() {
        assert_eq!(Failure::busy().scope(), Scope::NotCalled);
        let broken = Failure::new(Step::Connect, Cause::Broken);
        assert_eq!(broken.scope(), Scope::Provider);
        let slow = Failure::new(Step::Rcpt, Cause::Timeout);
        assert_eq!(slow.scope(), Scope::Destination);
    }

    #[test]
    fn reasons_are_short_words() {
        let refusal = Refusal {
            code: 550,
            status: Some((7, 26)),
            is_about_us: true,
        };
        let failure = Failure::new(Step::Rcpt, Cause::Reply(refusal));
        assert_eq!(failure.reason(), "rcpt_550_5.7.26");
        let failure = Failure::new(Step::Connect, reply(421));
        assert_eq!(failure.reason(), "connect_421");
        let failure = Failure::new(Step::StartTls, Cause::NotOffered);
        assert_eq!(failure.reason(), "starttls_not_offered");
        let failure = Failure::new(Step::StartTls, Cause::Tls(TlsFault::UnknownIssuer));
        assert_eq!(failure.reason(), "starttls_tls_unknown_issuer");
    }
}
