//! Email addresses: one plain ASCII address, length-limited, never rewritten. Refuses whatever
//! could end a header, name a second recipient or mean another mailbox than it shows.

use std::fmt;
use std::str::FromStr;

use email_address::Options;

use crate::Malformed;

/// One `local@domain` address: dot-atom local part up to 64 characters, domain up to 253 with at
/// least one dot, together up to 254 (RFC 5321 §4.5.3.1). It prints masked.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EmailAddress(String);

impl EmailAddress {
    /// The address as the relay needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The part after `@`.
    pub fn domain(&self) -> &str {
        self.0.split_once('@').map_or("", |(_, domain)| domain)
    }
}

impl FromStr for EmailAddress {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        const RULE: Malformed =
            Malformed::new("an email address is one plain ASCII address: name@example.org");
        if text.len() > 254 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(RULE);
        }
        let (local, domain) = text.split_once('@').ok_or(RULE)?;
        let is_atom =
            |byte: u8| byte.is_ascii_alphanumeric() || b".!#$%&'*+-/=?^_`{|}~".contains(&byte);
        let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
        let labels_fit = domain.split('.').all(|label| {
            (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
        });
        let tld_is_a_word = domain
            .rsplit('.')
            .next()
            .is_some_and(|tld| !tld.bytes().all(|b| b.is_ascii_digit()));
        if !local.bytes().all(is_atom)
            || !domain.bytes().all(is_host)
            || !labels_fit
            || !tld_is_a_word
        {
            return Err(RULE);
        }
        let options = Options::default()
            .with_required_tld()
            .without_display_text()
            .without_domain_literal();
        email_address::EmailAddress::parse_with_options(text, options).map_err(|_| RULE)?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for EmailAddress {
    /// Masked: the first character, three stars, the domain.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}***@{}", &self.0[..1], self.domain())
    }
}

impl fmt::Debug for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EmailAddress({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_addresses_are_accepted_and_masked() {
        for text in [
            "jane.doe+tag@example.org",
            "x@xn--bcher-kva.example",
            "o'hara@mail.example.co.uk",
        ] {
            assert_eq!(text.parse::<EmailAddress>().unwrap().expose(), text);
        }
        let address: EmailAddress = "jane.doe@example.org".parse().unwrap();
        assert_eq!(
            format!("{address} {address:?}"),
            "j***@example.org EmailAddress(j***@example.org)"
        );
    }

    #[test]
    fn hostile_addresses_are_refused() {
        let long_local = format!("{}@example.org", "a".repeat(65));
        let long_domain = format!("a@{}.org", "a.".repeat(126));
        for text in [
            "",
            "a",
            "@",
            "a@",
            "@b.org",
            "a@b",
            "a@b@c.org",
            "a@b.org\r\nBcc: x@y.org",
            "a\n@b.org",
            "a\0@b.org",
            "a\t@b.org",
            " a@b.org",
            "\"a b\"@b.org",
            "\"a\"@b.org",
            "a(comment)@b.org",
            "a@[127.0.0.1]",
            "a@127.0.0.1",
            "a@b.org.",
            "a@.b.org",
            "a@b..org",
            "a@-b.org",
            "a..b@c.org",
            ".a@b.org",
            "a.@b.org",
            "Jane <a@b.org>",
            "a@b.org,c@d.org",
            "a@b.org;c@d.org",
            "jané@b.org",
            "а@b.org",
            "a@bücher.example",
            "<a@b.org>",
            &long_local,
            &long_domain,
        ] {
            assert!(text.parse::<EmailAddress>().is_err(), "{text:.60}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_none_is_rewritten(text in "\\PC{0,80}") {
            if let Ok(address) = text.parse::<EmailAddress>() {
                prop_assert_eq!(address.expose(), &text);
            }
        }
    }
}
