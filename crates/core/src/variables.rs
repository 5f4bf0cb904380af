//! Values a caller hands to a template. They are data: never a template, never a header, never a
//! new line, and never a name that Watchword fills itself.

use std::collections::BTreeMap;

use crate::Malformed;

/// At most 8 named values of at most 100 characters each.
///
/// Names are `[a-z][a-z0-9_]*` up to 32 characters. Values hold no control, format or
/// line-breaking characters, so that no value can start a line of its own: the origin-bound last
/// line of an SMS is always ours (R32).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<String, String>);

/// Names a template gets from Watchword.
const RESERVED: [&str; 6] = ["app", "code", "host", "locale", "minutes", "to"];

impl Variables {
    /// Checks `values`; the error names the rule that one of them breaks.
    pub fn new(values: BTreeMap<String, String>) -> Result<Self, Malformed> {
        if values.len() > 8 {
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
                    "app, code, host, locale, minutes and to are not for callers",
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

    /// The values by name.
    pub const fn as_map(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

/// Control characters, line and paragraph separators, and invisible or direction-changing marks.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
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
        assert!(variables("amount", "12,50 €").is_ok());
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
}
