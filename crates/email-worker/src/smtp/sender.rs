//! Sender mailbox in ASCII. Relays without SMTPUTF8 refuse or garble anything else.

use lettre::Address;
use lettre::message::Mailbox;
use url::Host;
use watchword_chassis::config::ConfigError;

/// Parses `from`. An internationalized domain is converted to punycode. The display name may
/// contain any character, because headers encode it.
pub(super) fn parse(from: &str) -> Result<Mailbox, ConfigError> {
    let wrong = |rule: &'static str| ConfigError::new("from", rule);
    let mailbox: Mailbox = from
        .parse()
        .map_err(|_| wrong("must be a mailbox: Example <no-reply@example.org>"))?;
    let (user, domain) = (mailbox.email.user(), mailbox.email.domain());
    if !user.is_ascii() {
        return Err(wrong("must have a local part in ASCII"));
    }
    if domain.is_ascii() {
        return Ok(mailbox);
    }
    let unwritable = || wrong("has a domain that cannot be written in ASCII (punycode)");
    // Reject `%` here: the URL parser would decode it, but in a mailbox it is an ordinary
    // character.
    let Some(Host::Domain(domain)) = (!domain.contains('%'))
        .then(|| Host::parse(domain).ok())
        .flatten()
    else {
        return Err(unwritable());
    };
    let email = Address::new(user, &domain).map_err(|_| unwritable())?;
    Ok(Mailbox::new(mailbox.name.clone(), email))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_become_ascii() {
        for (from, address) in [
            ("Example <no-reply@example.org>", "no-reply@example.org"),
            ("no-reply@Mail.Example.org", "no-reply@Mail.Example.org"),
            (
                "Example <no-reply@b\u{fc}cher.example>",
                "no-reply@xn--bcher-kva.example",
            ),
            (
                "B\u{fc}cher <no-reply@B\u{dc}CHER.example>",
                "no-reply@xn--bcher-kva.example",
            ),
            (
                "no-reply@\u{4f8b}\u{3048}.\u{30c6}\u{30b9}\u{30c8}",
                "no-reply@xn--r8jz45g.xn--zckzah",
            ),
        ] {
            let mailbox = parse(from).unwrap();
            assert_eq!(mailbox.email.to_string(), address, "{from}");
        }
        let mailbox = parse("B\u{fc}cher <a@b\u{fc}cher.example>").unwrap();
        assert_eq!(mailbox.name.as_deref(), Some("B\u{fc}cher"));
    }

    #[test]
    fn what_has_no_ascii_form_is_refused_by_key() {
        for from in [
            "",
            "Example",
            "jan\u{e9}@example.org",
            "\u{4f8b}@b\u{fc}cher.example",
            "a@b\u{fc}cher..example",
            "a@\u{ff11}.\u{ff12}.\u{ff13}.\u{ff14}",
            "a@b\u{fc}%2echer.example",
            "Example <a@b.example>, <c@d.example>",
        ] {
            let error = parse(from).unwrap_err().to_string();
            assert!(error.contains("from"), "{from}: {error}");
        }
    }
}
