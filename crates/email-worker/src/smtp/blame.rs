//! Classification of permanent refusals (5yz) from RCPT on: about the recipient, the message, or
//! us. An enhanced status code (RFC 3463) decides first, then the code, then the words of the text.
//!
//! No reply is classified as a configuration fault. Relays pass on the replies of the recipient's
//! server (a callout at RCPT, a proxied connection at the final dot), and some require a login only
//! for mail to other domains. A single recipient must not open the relay's circuit for all others.

use watchword_core::AttemptClass;

use super::failure::Step;
use super::reply::Reply;

/// Subject and detail of an enhanced status code: `5.7.1` is `(7, 1)`.
pub(super) type Status = (u8, u16);

/// Words of replies that refuse us (address, host name, sender, login, quota) and not the
/// recipient. Each matches at the start of a word; one with a trailing blank matches whole words
/// only.
const ABOUT_US: &[&str] = &[
    // Relaying and permissions.
    "relay",
    "rcpthosts",
    "not permitted",
    "not allowed",
    "not authori",
    "unauthori",
    "permission",
    "prohibit",
    "forbidden",
    "denied",
    "policy",
    "administrative",
    "must equal",
    "must match",
    // Login and TLS.
    "auth required",
    "authorization",
    "authorisation",
    "authenticat",
    "smtp auth",
    "log in",
    "login",
    "starttls",
    "encryption",
    "tls ",
    // The name in EHLO and our address.
    "helo",
    "ehlo",
    "client host",
    "your host",
    "your ip",
    "your server",
    "ip address",
    "ip not",
    "reverse dns",
    "reverse lookup",
    "rdns",
    "ptr ",
    "dns record",
    "dynamic",
    "connection",
    "session",
    // Blocklists and reputation.
    "rbl",
    "dnsbl",
    "blacklist",
    "black list",
    "blocklist",
    "block list",
    "blocked",
    "listed at",
    "listed by",
    "listed in",
    "listed on",
    "is listed",
    "was listed",
    "banned",
    "reputation",
    "spamhaus",
    "spamcop",
    "barracuda",
    // The sender.
    "sender",
    "mail from",
    "from address",
    "from domain",
    "from header",
    "return path",
    "envelope from",
    "spf ",
    "dkim",
    "dmarc",
    "not verified",
    "unverified",
    "verify your",
    // Our account and its quota.
    "your account",
    "your domain",
    "paused",
    "suspended",
    "subscription",
    "billing",
    "credit",
    "sandbox",
    "daily",
    "hourly",
    "per day",
    "per hour",
    "rate limit",
    "too many",
];

/// Further words about the account, which mean the recipient if the reply mentions a mailbox.
const ABOUT_A_QUOTA: &[&str] = &["quota", "limit", "exceed", "frequency", "sending"];
const ABOUT_A_MAILBOX: &[&str] = &["mailbox", "over quota", "storage", "disk", "full"];

/// Phrases that contain a word of the lists above but mean the recipient.
const HARMLESS: &[&str] = &[
    "mailbox name not allowed",
    "user is not allowed",
    "not listed in",
    "recipient limit",
    "mailbox suspended",
    "mailbox is suspended",
    "user suspended",
    "user is suspended",
    "user account suspended",
    "user account is suspended",
    "you tried to reach is suspended",
];

/// Parsed refusal, without its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) status: Option<Status>,
    /// Whether the words of the reply refuse us rather than the recipient.
    pub(super) is_about_us: bool,
}

impl Refusal {
    pub(super) fn of(reply: &Reply) -> Self {
        let status = reply.lines().find_map(leading_status);
        let status = status.or_else(|| {
            let mut words = reply.lines().flat_map(|line| line.split_ascii_whitespace());
            words.find_map(quoted_status)
        });
        let text: Vec<_> = reply.lines().collect();
        Self {
            code: reply.code(),
            status,
            is_about_us: is_about_us(&text.join(" ")),
        }
    }

    /// Returns the class of a 5yz reply at `step`, which must be RCPT or later.
    #[expect(clippy::match_same_arms, reason = "one row a kind of reply")]
    pub(super) fn class(self, step: Step) -> AttemptClass {
        match (self.code, self.status) {
            // The recipient's domain accepts no mail (RFC 7504, RFC 7505).
            (556, _) => AttemptClass::RecipientInvalid,
            // The relay accepts no mail from us, or requires a login or TLS.
            (521 | 530 | 534 | 535 | 538, _) => AttemptClass::DestinationRefused,
            (_, Some((1, 1 | 2 | 3 | 6 | 10) | (2, _))) => AttemptClass::RecipientInvalid,
            (_, Some((6, _))) => AttemptClass::MessageRejected,
            // These details are inconclusive: relays send X.1.0 for invalid mailboxes and for
            // invalid senders.
            (_, None | Some((0, _) | (1, 0 | 4 | 5 | 9))) => self.class_by_words(step),
            // Sender, system of the relay, routing, protocol, policy.
            (_, Some(_)) => AttemptClass::DestinationRefused,
        }
    }

    fn class_by_words(self, step: Step) -> AttemptClass {
        match (step, self.code) {
            _ if self.is_about_us => AttemptClass::DestinationRefused,
            (Step::Rcpt, 550..=553) => AttemptClass::RecipientInvalid,
            (Step::Rcpt, _) => AttemptClass::DestinationRefused,
            _ => AttemptClass::MessageRejected,
        }
    }
}

/// Returns the enhanced status code at the start of the text (RFC 2034 section 4).
fn leading_status(line: &str) -> Option<Status> {
    line.split_ascii_whitespace().next().and_then(status)
}

/// Parses an enhanced status code in brackets within the text, as qmail and some gateways write it:
/// `(#5.7.1)`.
fn quoted_status(word: &str) -> Option<Status> {
    let word = word.trim_matches(|c: char| "()[]<>.,:;".contains(c));
    status(word.strip_prefix('#').unwrap_or(word))
}

fn status(word: &str) -> Option<Status> {
    let mut parts = word.trim_end_matches(':').split('.');
    let (class, subject, detail) = (parts.next()?, parts.next()?, parts.next()?);
    let is_status = parts.next().is_none()
        && class == "5"
        && subject.len() == 1
        && detail.len() <= 3
        && detail.bytes().all(|byte| byte.is_ascii_digit());
    if !is_status {
        return None;
    }
    Some((subject.parse().ok()?, detail.parse().ok()?))
}

fn is_about_us(text: &str) -> bool {
    let mut text = words(text);
    for phrase in HARMLESS {
        text = text.replace(phrase, "");
    }
    let holds_any = |phrases: &[&str]| {
        let mut phrases = phrases.iter();
        phrases.any(|phrase| text.contains(&format!(" {phrase}")))
    };
    holds_any(ABOUT_US) || (holds_any(ABOUT_A_QUOTA) && !holds_any(ABOUT_A_MAILBOX))
}

/// Returns the words of `text` in lower case, with a blank before and after each. Addresses and
/// host names are left out, because those of the recipient may contain any word.
fn words(text: &str) -> String {
    let is_name = |word: &&str| {
        let inner = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        word.contains(['@', '<', '>']) || inner.contains('.')
    };
    let mut words = String::from(" ");
    for word in text.split_ascii_whitespace().filter(|word| !is_name(word)) {
        for part in word.split(|c: char| !c.is_ascii_alphanumeric()) {
            if !part.is_empty() {
                words.push_str(&part.to_ascii_lowercase());
                words.push(' ');
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::super::reply::Parsed;
    use super::*;

    fn refusal(text: &str) -> Refusal {
        match Reply::parse(format!("{}\r\n", text.replace('\n', "\r\n")).as_bytes()) {
            Parsed::Whole(reply, _) => Refusal::of(&reply),
            other => panic!("{text}: {other:?}"),
        }
    }

    fn all_are(class: AttemptClass, step: Step, replies: &[&str]) {
        for reply in replies {
            let refusal = refusal(reply);
            assert_eq!(refusal.class(step), class, "{step:?} {reply}: {refusal:?}");
        }
    }

    #[test]
    fn replies_at_rcpt_about_the_recipient() {
        let replies = [
            "550 5.1.1 <jane@example.org>: Recipient address rejected: User unknown in relay recipient table",
            "550-5.1.1 The email account that you tried to reach does not exist.\n550 5.1.1 Please try again",
            "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup",
            "550 5.1.2 Host unknown",
            "501 5.1.3 Bad recipient address syntax",
            "553 5.1.3 <jane@example.org>... User address required",
            "550 5.1.6 recipient no longer on server",
            "550 5.2.1 The email account that you tried to reach is disabled",
            "552 5.2.2 Mailbox over quota",
            "554 5.2.2 mailbox full",
            "556 5.1.10 Recipient address has null MX",
            "556 domain does not accept mail",
            "550 No such user",
            "550 User unknown",
            "550 Unknown user: jane@relay.example",
            "550 <relay@example.org>: no such user here",
            "550 relay-denied@example.org unknown",
            "550 no mailbox here by that name. (#5.1.1)",
            "550 sorry, no mailbox here by that name (#5.1.1)",
            "550 Requested action not taken: mailbox unavailable",
            "550 5.1.0 Address rejected.",
            "550 #5.1.0 Address rejected.",
            "550 Invalid recipient jane@example.org",
            "550 Unrouteable address",
            "550 5.0.0 User unknown",
            "551 User not local; please try <jane@example.net>",
            "552 mailbox full",
            "550 quota exceeded, mailbox full",
            "550 Mailbox is over quota",
            "553 Requested action not taken: mailbox name not allowed",
            "550 jane... not listed in Name & Address Book",
            "550 User account is suspended",
            "550 mailbox suspended",
            "550 The email account that you tried to reach is suspended",
            "550 unbekannter Empf\u{e4}nger",
            "550",
        ];
        all_are(AttemptClass::RecipientInvalid, Step::Rcpt, &replies);
    }

    #[test]
    fn replies_at_rcpt_about_us_go_to_the_next_relay() {
        let replies = [
            "504 5.5.2 <vm>: Helo command rejected: need fully-qualified hostname",
            "550 5.7.1 Service unavailable; client [192.0.2.1] blocked using zen.spamhaus.org",
            "550 Rejected because 192.0.2.1 is in an RBL, see https://bl.example.net",
            "550 192.0.2.1 is listed at bl.example.net",
            "550 relay not permitted",
            "550 Relaying denied",
            "550-Please turn on SMTP Authentication in your mail client.\n550 vm [192.0.2.1] is not permitted to relay",
            "550 authentication required",
            "550 Authorization required",
            "550 Your account is suspended",
            "550 Access denied - Invalid HELO name (See RFC2821 4.1.1.1)",
            "553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)",
            "553 sorry, that domain isn't in my list of allowed rcpthosts",
            "550 5.1.7 Sender address rejected",
            "550 5.1.8 Sender address rejected: Domain not found",
            "553 5.1.8 <no-reply@example.org>... Domain of sender address does not exist",
            "550 5.4.1 Recipient address rejected: Access denied",
            "550 5.4.4 unable to route",
            "550 5.4.5 Daily user sending quota exceeded",
            "550 Daily sending quota exceeded",
            "550 quota exceeded",
            "550 Connection frequency limited",
            "550 too many recipients",
            "553 Mail from must equal authorized user",
            "550 Verification failed for sender: no such user",
            "550-Callout verification failed:\n550 Sender verify failed",
            "550 5.1.0 sender rejected",
            "550 5.3.2 system not accepting network messages",
            "500 5.3.0 Error: command failed",
            "521 5.2.1 : we do not accept delivery of this message",
            "521 host does not accept mail",
            "530 5.7.0 log in first",
            "530 SMTP authentication is required.",
            "535 5.7.8 bad credentials",
            "554 5.7.1 <jane@example.org>: Relay access denied",
            "554 no",
            "571 Delivery not authorized, message refused",
            "571 nothing said",
            "541 rejected",
            "555 RCPT TO parameters not recognized",
            "503 bad sequence",
            "550 5.7.1 refused by the recipient",
        ];
        all_are(AttemptClass::DestinationRefused, Step::Rcpt, &replies);
    }

    #[test]
    fn replies_to_the_mail() {
        let refused_us = [
            "554 Message rejected: Email address is not verified. The following identities failed the check in region EU-WEST-1: no-reply@example.org",
            "554 Transaction failed: sending is paused for this account",
            "554 Message rejected: Sending paused for this account.",
            "550 5.7.60 SMTP; Client does not have permissions to send as this sender",
            "550-5.7.26 This mail has been blocked because the sender is unauthenticated.\n550 5.7.26 see the guide",
            "550 5.4.5 Daily SMTP relay limit exceeded for user",
            "550 5.7.1 Unauthenticated email from example.org is not accepted due to domain's DMARC policy",
            "550 5.7.1 sender domain not allowed",
            "554 5.7.1 Spam message rejected",
            "552 5.3.4 Message size exceeds fixed limit",
            "530 5.7.0 Must issue a STARTTLS command first",
            "535 5.7.8 authentication failed",
            "554 Free accounts are for test purposes only: Domain sandbox.example.org is not allowed to send",
            "550 5.5.2 syntax",
        ];
        let invalid = [
            "550 5.1.1 User unknown",
            "552 5.2.2 Mailbox full",
            "556 5.1.10 null MX",
        ];
        let rejected = [
            "554 5.6.0 content refused",
            "554 no",
            "550 5.6.3 conversion required",
            "554 Transaction failed",
            "500 what",
            "571 odd",
        ];
        for step in [Step::Data, Step::Body] {
            all_are(AttemptClass::DestinationRefused, step, &refused_us);
            all_are(AttemptClass::RecipientInvalid, step, &invalid);
            all_are(AttemptClass::MessageRejected, step, &rejected);
        }
    }

    #[test]
    fn no_reply_after_mail_is_a_fault_of_the_configuration() {
        for code in 500..=599 {
            for status in ["", "5.7.0 ", "5.1.8 ", "5.5.1 ", "5.7.8 ", "5.3.5 "] {
                let refusal = refusal(&format!("{code} {status}authentication required"));
                for step in [Step::Rcpt, Step::Data, Step::Body] {
                    assert_ne!(
                        refusal.class(step),
                        AttemptClass::ConfigFault,
                        "{refusal:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn addresses_and_numbers_are_no_status() {
        for text in [
            "550 5.7.1.9 odd",
            "550 host 5.7.1.1 said no",
            "550 5.7 no",
            "550 5.x.1 no",
            "550 4.7.1 odd",
            "550 5.7.1234 odd",
            "550 15.7.1 odd",
            "550 jane@5.7.1 odd",
        ] {
            assert_eq!(refusal(text).status, None, "{text}");
        }
        assert_eq!(refusal("550 5.7.1: odd").status, Some((7, 1)));
        assert_eq!(refusal("550-first\n550 5.7.1 second").status, Some((7, 1)));
        assert_eq!(refusal("550 a (#5.7.1)").status, Some((7, 1)));
        let first = refusal("550 5.1.1 they said: 550 5.7.1 relay denied");
        assert_eq!(first.status, Some((1, 1)));
    }
}
