//! How a mail was not taken: at which step and why, and what class that is. Replies from RCPT on
//! are read by [`super::blame`]. Keeps no text of a reply, which can name the recipient.

use std::io;

use watchword_core::AttemptClass;
use watchword_delivery::Scope;
use watchword_dial::TlsFault;

use super::blame::Refusal;
use super::reply::Reply;

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
    /// A reply other than the one the step expects.
    Reply(Refusal),
    /// No reply in time.
    Timeout,
    /// The connection broke, or the peer sent no reply, or one too many.
    Broken,
    /// All connections stayed in use.
    Busy,
    /// The certificate was not accepted, or TLS failed.
    Tls(TlsFault),
    /// STARTTLS or a way to log in is not offered.
    NotOffered,
    /// Clear text after the reply to STARTTLS: an attacker sends it to be read inside TLS.
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

/// A mail that was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) cause: Cause,
}

impl Failure {
    pub(super) const fn new(step: Step, cause: Cause) -> Self {
        Self { step, cause }
    }

    /// Every connection is in use.
    pub(super) const fn busy() -> Self {
        Self::new(Step::Connect, Cause::Busy)
    }

    /// The failure of a TLS handshake. Only an alert or an unacceptable certificate is about TLS; a
    /// cut connection is not.
    pub(super) fn handshake(error: &io::Error) -> Self {
        Self::new(
            Step::StartTls,
            TlsFault::of(error).map_or(Cause::Broken, Cause::Tls),
        )
    }

    pub(super) fn refused(step: Step, reply: &Reply) -> Self {
        Self::new(step, Cause::Reply(Refusal::of(reply)))
    }

    /// Whether a kept connection turned out to be dead before anything was handed over.
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

    /// The subject that the failure is evidence about: from RCPT on the relay knows the recipient.
    pub(super) const fn scope(self) -> Scope {
        match (self.step, self.cause) {
            // The relay was not called: the connections that are in use show how it does.
            (_, Cause::Busy) => Scope::NotCalled,
            (Step::Connect | Step::StartTls | Step::Auth | Step::Mail, _) => Scope::Provider,
            (Step::Rcpt | Step::Data | Step::Body, _) => Scope::Destination,
        }
    }

    pub(super) fn class(self) -> AttemptClass {
        use AttemptClass as Class;
        match (self.step, self.cause) {
            // The final dot is on its way: the relay may have taken the mail.
            (Step::Body, Cause::Timeout | Cause::Broken) => Class::UnknownOutcome,
            (_, Cause::Timeout | Cause::Broken | Cause::Busy) => Class::Transient,
            (_, Cause::Tls(_) | Cause::NotOffered | Cause::Injected) => Class::ConfigFault,
            (step, Cause::Reply(refusal)) => match (refusal.code, step) {
                (500..=599, Step::Rcpt | Step::Data | Step::Body) => refusal.class(step),
                // No recipient was named yet: the relay refuses us.
                (500..=599, _) => Class::ConfigFault,
                (400..=499, _) => Class::Transient,
                // A positive reply that is not the one the step asks for.
                (_, Step::Data | Step::Body) => Class::UnknownOutcome,
                // Nothing was handed over.
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
