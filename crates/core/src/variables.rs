//! Template variables from the caller. They are plain data: a value cannot be a template or a
//! header, cannot start a new line, and cannot use a name that Watchword fills itself.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::Malformed;

/// At most 8 named values of at most 100 characters each.
///
/// Names are `[a-z][a-z0-9_]*` with up to 32 characters. Values hold no control, format or
/// line-breaking characters, so no value can start a line. This keeps the last line of an SMS,
/// which binds the code to an origin, under Watchword's control.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<String, String>);

/// Names that Watchword fills in templates.
const RESERVED: [&str; 7] = ["app", "code", "host", "locale", "minutes", "seconds", "to"];

impl Variables {
    /// The most variables that one request may have.
    pub const MOST: usize = 8;

    /// Validates names and values. The error states the rule that was broken.
    pub fn new(values: BTreeMap<String, String>) -> Result<Self, Malformed> {
        if values.len() > Self::MOST {
            return Err(Malformed::new("at most 8 variables"));
        }
        for (name, value) in &values {
            let name_fits = name.len() <= 32
                && name.starts_with(|c: char| c.is_ascii_lowercase())
                && name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
            if !name_fits {
                return Err(Malformed::new(
                    "a variable's name is 1 to 32 characters of a-z, 0-9 and _",
                ));
            }
            if RESERVED.contains(&name.as_str()) {
                return Err(Malformed::new(
                    "app, code, host, locale, minutes, seconds and to are reserved names",
                ));
            }
            if value.chars().count() > 100 || value.chars().any(is_unsafe) {
                return Err(Malformed::new(
                    "a variable is up to 100 characters without control or direction marks",
                ));
            }
        }
        Ok(Self(values))
    }

    /// Returns the name of a variable whose value phones or mail programs would show as a link.
    pub fn with_link(&self) -> Option<&str> {
        let mut values = self.0.iter();
        let found = values.find(|(_, value)| holds_link(value));
        found.map(|(name, _)| name.as_str())
    }

    /// Returns the values by name.
    pub const fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

/// Whether `value` holds a scheme (`https://`), a `www.`, or a host followed by a path, a query or
/// a fragment (`example.org/pay`, `192.0.2.1/pay`).
///
/// A bare name with a dot is not a link, because payees are called `Amazon.de`. Neither is a number
/// with a unit (`3.50/month`).
fn holds_link(value: &str) -> bool {
    // Browsers treat these characters as dots too (UTS 46).
    let lower = value
        .to_lowercase()
        .replace(['\u{3002}', '\u{ff0e}', '\u{ff61}'], ".");
    let begins_word = |at: usize| {
        let before = lower.get(..at).and_then(|head| head.chars().next_back());
        before.is_none_or(|c| !c.is_alphanumeric())
    };
    let mut wwws = lower.match_indices("www.").map(|(at, _)| at);
    lower.contains("://")
        || wwws.any(begins_word)
        || lower
            .match_indices(['/', '?', '#'])
            // `?` and `#` count only before a letter or digit: a sentence may end in `Amazon.de?`.
            .filter(|(at, mark)| *mark == "/" || continues(&lower, at + 1))
            .any(|(at, _)| lower.get(..at).is_some_and(ends_in_host))
}

/// Whether a letter or digit is at byte `at`.
fn continues(text: &str, at: usize) -> bool {
    let rest = text.get(at..);
    rest.is_some_and(|rest| rest.starts_with(char::is_alphanumeric))
}

/// Whether `text` ends in a host: an IPv4 address, or two labels of which the last consists of two
/// or more letters. A port may follow.
fn ends_in_host(text: &str) -> bool {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_digit());
    let text = digits.strip_suffix(':').unwrap_or(text);
    let is_part = |c: char| c.is_ascii_digit() || c == '.';
    let address = &text[text.trim_end_matches(is_part).len()..];
    if address.parse::<Ipv4Addr>().is_ok() {
        return true;
    }
    let Some((before, last)) = text.rsplit_once('.') else {
        return false;
    };
    let is_top = last.starts_with("xn--")
        || (last.chars().count() >= 2 && last.chars().all(char::is_alphabetic));
    is_top && before.ends_with(char::is_alphanumeric)
}

/// Whether `c` is a control character, a line or paragraph separator, or an invisible or
/// direction-changing mark. Joiners are allowed: Persian, Indic scripts and emoji need them.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(name: &str, value: &str) -> Result<Variables, Malformed> {
        Variables::new(BTreeMap::from([(name.to_owned(), value.to_owned())]))
    }

    #[test]
    fn values_stay_on_their_line() {
        for value in ["12,50 €", "می\u{200c}خواهم", "👩\u{200d}💻"] {
            assert!(variables("amount", value).is_ok(), "{value}");
        }
        for value in [
            "a\nb",
            "a\r\n@evil.example #000000",
            "\u{202e}abc",
            "a\0",
            "a\u{2028}b",
            &"x".repeat(101),
        ] {
            assert!(variables("amount", value).is_err(), "{value:?}");
        }
        for name in [
            "",
            "code",
            "app",
            "Amount",
            "a b",
            "{{7*7}}",
            &"a".repeat(33),
        ] {
            assert!(variables(name, "1").is_err(), "{name}");
        }
    }
    #[test]
    fn links_are_found_and_units_are_none() {
        for link in [
            "https://evil.example/a",
            "x. Account locked! Confirm at https://evil.example/a",
            "HTTP://X",
            "intent://scan",
            "www.evil.example",
            "see WWW.evil.example",
            "(www.evil.example)",
            "evil.example/a",
            "EVIL.EXAMPLE/A",
            "go to evil.co.example/a now",
            "evil.example:8080/a",
            "123.example/a",
            "bücher.example/a",
            "пример.рф/а",
            "x.xn--p1ai/a",
            "jane@evil.example/a",
            "evil.example?pay=1",
            "evil.example#a",
            "evil\u{3002}example/pay",
            "evil\u{ff0e}example/pay",
            "192.0.2.1/a",
            "pay at 192.0.2.1:8080/a",
        ] {
            let variables = variables("payee", link).unwrap();
            assert_eq!(variables.with_link(), Some("payee"), "{link}");
        }
        for text in [
            "3.50/month",
            "A.B/C",
            "12,50 €",
            "1.000,00/Monat",
            "Amazon.de",
            "Booking.com B.V.",
            "Smith & Co.",
            "c/o Jane",
            "24/7",
            "1.2.3/4",
            "Really from Amazon.de?",
            "Amazon.de, order #12",
            "01.02.2026/03.02.2026",
            "Nr. 12/2026",
            "wwww.x",
            "and/or",
            "N.V./S.A.",
            "v1.2/beta",
            "St. Gallen/Bern",
            "10:30/11:30",
            "Q1.5/2026",
            "/",
            "./",
            "",
        ] {
            let variables = variables("payee", text).unwrap();
            assert_eq!(variables.with_link(), None, "{text}");
        }
    }
}
