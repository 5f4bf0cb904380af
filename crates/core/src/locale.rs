//! The language of a message. Refuses to know which languages there are templates for.

use std::fmt;
use std::str::FromStr;

use crate::Malformed;

/// A BCP 47 language tag of up to 35 characters in lower case: `de`, `pt-br`, `zh-hant-tw`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Locale(String);

impl Locale {
    /// English, the language every template set has.
    pub fn english() -> Self {
        Self("en".to_owned())
    }

    /// The tag in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// From the whole tag to the bare language: `zh-hant-tw`, `zh-hant`, `zh`.
    pub fn fallbacks(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(Some(self.as_str()), |tag| {
            tag.rsplit_once('-').map(|(head, _)| head)
        })
    }
}

impl FromStr for Locale {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut parts = text.split(['-', '_']);
        let language_fits = parts.next().is_some_and(|p| {
            (2..=3).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphabetic())
        });
        let rest_fits = parts
            .all(|p| (2..=8).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphanumeric()));
        if text.len() > 35 || !language_fits || !rest_fits {
            return Err(Malformed::new(
                "a locale is a language tag such as en or pt-BR",
            ));
        }
        Ok(Self(text.replace('_', "-").to_ascii_lowercase()))
    }
}

impl fmt::Display for Locale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_fall_back_to_the_bare_language() {
        let locale: Locale = "zh_Hant-TW".parse().unwrap();
        assert_eq!(
            locale.fallbacks().collect::<Vec<_>>(),
            ["zh-hant-tw", "zh-hant", "zh"]
        );
        for text in ["", "e", "english", "en-", "../en", "en/..", "en\0", "de-x"] {
            assert!(text.parse::<Locale>().is_err(), "{text}");
        }
    }
}
