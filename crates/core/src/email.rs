//! Email addresses: one plain address with bounded length. Parsing rejects addresses that could end
//! a header, name a second recipient, or mean another mailbox than they show.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use email_address::Options;

use crate::{Malformed, characters};

/// A `local@domain` address in ASCII: a dot-atom local part up to 64 characters, a domain up to 253
/// with at least one dot, together up to 254 (RFC 5321 §4.5.3.1). `Display` and `Debug` mask it.
///
/// Parsing trims surrounding white space and converts an internationalized domain to its ASCII form
/// (RFC 5891). It rewrites nothing else.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EmailAddress {
    text: String,
    /// The address in lower case, if `text` is not.
    lower: Option<String>,
}

impl EmailAddress {
    /// Returns the full address, as the SMTP relay needs it.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Returns the address in lower case, in which addresses are compared. The domain is
    /// case-insensitive by the standard (RFC 5321 section 2.4), and in practice the local part is
    /// too.
    pub fn canonical(&self) -> &str {
        self.lower.as_deref().unwrap_or(&self.text)
    }

    /// Returns the part after `@`.
    pub fn domain(&self) -> &str {
        self.text.split_once('@').map_or("", |(_, domain)| domain)
    }
}

/// Maximum length of the input in bytes. The ASCII form may be shorter or longer.
const LONGEST_GIVEN: usize = 1_024;

const RULE: Malformed = Malformed::new("an email address is one plain address: name@example.org");

impl FromStr for EmailAddress {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (local, domain) = text.trim().split_once('@').ok_or(RULE)?;
        if local.len() + domain.len() > LONGEST_GIVEN {
            return Err(RULE);
        }
        if local.chars().any(|c| !c.is_ascii() && c.is_alphanumeric()) {
            return Err(Malformed::new(
                "the part of an email address before @ must be ASCII: mail to other scripts (SMTPUTF8) is not sent",
            ));
        }
        if local.starts_with('.') || local.ends_with('.') || local.contains("..") {
            return Err(Malformed::new(
                "the part of an email address before @ must not start or end with a dot or have two dots in a row",
            ));
        }
        let text = format!("{local}@{}", ascii_domain(domain)?);
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
        // A numeric last label would make the domain an IPv4 address.
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
        email_address::EmailAddress::parse_with_options(&text, options).map_err(|_| RULE)?;
        let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        let lower = (!is_lower).then(|| text.to_ascii_lowercase());
        Ok(Self { text, lower })
    }
}

/// Converts the domain to its ASCII form in the DNS.
fn ascii_domain(domain: &str) -> Result<Cow<'_, str>, Malformed> {
    if domain.is_ascii() {
        return Ok(Cow::Borrowed(domain));
    }
    // IDNA conversion would drop invisible characters.
    if domain
        .chars()
        .any(|c| !c.is_ascii() && characters::is_separator(c))
    {
        return Err(RULE);
    }
    let ascii = idna::domain_to_ascii_strict(domain).map_err(|_| RULE)?;
    // IDNA conversion would turn full-width letters, ligatures and other dots into a different,
    // plain domain. Require that each label keeps its kind: ASCII as it was, other scripts as
    // `xn--`.
    let stays = domain
        .split('.')
        .map(|label| (!label.is_ascii()).then_some("xn--"))
        .eq(ascii
            .split('.')
            .map(|label| label.get(..4).filter(|head| *head == "xn--")));
    if stays {
        Ok(Cow::Owned(ascii))
    } else {
        Err(RULE)
    }
}

impl fmt::Display for EmailAddress {
    /// Masks the address: the first character (unless it is the only one), three stars, the domain.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = match self.text.find('@') {
            Some(1) => "",
            _ => &self.text[..1],
        };
        write!(f, "{first}***@{}", self.domain())
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
        let short: EmailAddress = "j@example.org".parse().unwrap();
        assert_eq!(short.to_string(), "***@example.org");
    }

    #[test]
    fn domains_of_other_scripts_become_ascii_and_blanks_around_are_cut() {
        for (text, address) in [
            ("jane@bücher.example", "jane@xn--bcher-kva.example"),
            ("jane@BÜCHER.example", "jane@xn--bcher-kva.example"),
            ("Jane@straße.example", "Jane@xn--strae-oqa.example"),
            ("jane@mail.例え.テスト", "jane@mail.xn--r8jz45g.xn--zckzah"),
            (" jane@example.org\n", "jane@example.org"),
            ("\u{a0}jane@example.org\t", "jane@example.org"),
            ("Jane@Example.org", "Jane@Example.org"),
        ] {
            let parsed = text.parse::<EmailAddress>();
            assert_eq!(parsed.unwrap().expose(), address, "{text:?}");
        }
        for text in [
            // IDNA conversion would give another domain than the text shows.
            "jane@ｅxample.org",
            "jane@example。org",
            "jane@exampﬁ.org",
            "jane@b\u{ad}ücher.example",
            "jane@-bücher.example",
            "jane@bücher..example",
            "jane@bücher",
            "jane@xn--bücher.example",
            &format!("jane@{}.example", "ü".repeat(60)),
            &format!("jane@{}.example", "ü".repeat(600)),
        ] {
            assert!(text.parse::<EmailAddress>().is_err(), "{text:.60}");
        }
    }

    #[test]
    fn what_cannot_be_sent_to_is_refused_with_its_reason() {
        let rule = |text: &str| text.parse::<EmailAddress>().unwrap_err().rule();
        for text in ["jané@example.org", "山田@example.jp", "а@b.org"] {
            assert!(rule(text).contains("SMTPUTF8"), "{text}");
        }
        for text in ["jane..doe@docomo.example", ".jane@b.org", "jane.@b.org"] {
            assert!(rule(text).contains("dot"), "{text}");
        }
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
            "a @b.org",
            "a@ b.org",
            "a@b. org",
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
            "\u{200b}a@b.org",
            "<a@b.org>",
            &long_local,
            &long_domain,
        ] {
            assert!(text.parse::<EmailAddress>().is_err(), "{text:.60}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_plain_ones_are_not_rewritten(text in "\\PC{0,80}|[a-z.]{1,9}@[a-zü.-]{1,20}") {
            if let Ok(address) = text.parse::<EmailAddress>() {
                prop_assert!(address.expose().is_ascii());
                if text.is_ascii() {
                    prop_assert_eq!(address.expose(), text.trim());
                }
                prop_assert_eq!(address.expose().parse::<EmailAddress>(), Ok(address.clone()));
            }
        }
    }
}
