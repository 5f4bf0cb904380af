//! The language of a message. This module does not know which languages have templates.

use std::fmt;
use std::str::FromStr;

use crate::Malformed;

/// A language tag in lower case with up to 35 characters, without extensions: `de`, `pt-br`,
/// `zh-hant-tw`. Two spellings of one language give the same value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Locale(String);

/// Maximum length of a tag (RFC 5646 §4.4.1).
const LONGEST: usize = 35;
/// Maximum length of the input in bytes; browsers send less.
const LONGEST_WISH: usize = 1_024;

/// Obsolete language codes and the codes that templates and devices use today.
const RENAMED: [(&str, &str); 6] = [
    ("in", "id"),
    ("iw", "he"),
    ("ji", "yi"),
    ("mo", "ro"),
    ("no", "nb"),
    ("tl", "fil"),
];
/// Regions that write Chinese in one script. Tags often omit the script.
const CHINESE: [(&str, &str); 6] = [
    ("cn", "hans"),
    ("hk", "hant"),
    ("mo", "hant"),
    ("my", "hans"),
    ("sg", "hans"),
    ("tw", "hant"),
];

impl Locale {
    /// Returns English, which every template set has.
    pub fn english() -> Self {
        Self("en".to_owned())
    }

    /// Parses the language that a device, browser or system asks for: any BCP 47 tag, a POSIX or
    /// Java locale, or a list as in `Accept-Language`.
    ///
    /// Returns `None`, which means English, if the text cannot be read: the message is sent anyway.
    pub fn from_wish(wish: &str) -> Option<Self> {
        if wish.len() > LONGEST_WISH {
            return None;
        }
        let mut best: Option<(Self, f32)> = None;
        for entry in wish.split(',') {
            let (tag, parameters) = entry.split_once(';').unwrap_or((entry, ""));
            let weight = parameters.trim().strip_prefix("q=");
            let weight = weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
            // POSIX appends a character set and a modifier: `de_DE.UTF-8@euro`.
            let tag = tag.split(['.', '@']).next().unwrap_or_default().trim();
            if weight > best.as_ref().map_or(0.0, |(_, weight)| *weight)
                && let Some(locale) = Self::from_subtags(tag)
            {
                best = Some((locale, weight));
            }
        }
        best.map(|(locale, _)| locale)
    }

    /// Reads language, script, region and variants of `tag`, and stops at the first unreadable
    /// part.
    fn from_subtags(tag: &str) -> Option<Self> {
        let mut parts = tag.split(['-', '_']);
        let language = parts.next().filter(|part| is_language(part))?;
        let language = language.to_ascii_lowercase();
        let renamed = RENAMED.iter().find(|(old, _)| *old == language);
        let language = renamed.map_or(language, |(_, new)| (*new).to_owned());
        let (mut script, mut rest) = (None, Vec::new());
        // Java marks the script (`zh_TW_#Hant`) and leaves empty fields (`zh__#Hans`).
        for part in parts.map(|part| part.strip_prefix('#').unwrap_or(part)) {
            match part.len() {
                0 => {}
                4 if part.bytes().all(|b| b.is_ascii_alphabetic()) => {
                    script = Some(part.to_ascii_lowercase());
                }
                2..=8 if part.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                    rest.push(part.to_ascii_lowercase());
                }
                // Extensions and private use begin with a single letter.
                _ => break,
            }
        }
        if script.is_none() && language == "zh" {
            let region = CHINESE
                .iter()
                .find(|(region, _)| rest.iter().any(|part| part == region));
            script = region.map(|(_, script)| (*script).to_owned());
        }
        let mut text = language;
        for part in script.into_iter().chain(rest) {
            if text.len() + 1 + part.len() > LONGEST {
                break;
            }
            text = format!("{text}-{part}");
        }
        Some(Self(text))
    }

    /// Returns the tag in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the tag and its shorter forms down to the language: `zh-hant-tw`, `zh-hant`, `zh`.
    pub fn fallbacks(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(Some(self.as_str()), |tag| {
            tag.rsplit_once('-').map(|(head, _)| head)
        })
    }
}

fn is_language(part: &str) -> bool {
    (2..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphabetic())
}

impl FromStr for Locale {
    type Err = Malformed;

    /// Parses a tag of which every part must be valid: the name of a template folder, or a stored
    /// value.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        const RULE: Malformed = Malformed::new("a locale is a language tag such as en or pt-BR");
        let mut rest = text.split(['-', '_']).skip(1);
        let rest_fits = rest
            .all(|p| (2..=8).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_alphanumeric()));
        if text.len() > LONGEST || !rest_fits {
            return Err(RULE);
        }
        Self::from_subtags(text).ok_or(RULE)
    }
}

impl fmt::Display for Locale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    #[test]
    fn every_wish_is_a_language_or_english() {
        for (wish, read) in [
            // BCP 47, with extensions and private use.
            ("de", Some("de")),
            ("PT-br", Some("pt-br")),
            ("es-419", Some("es-419")),
            ("sl-rozaj-biske-1994", Some("sl-rozaj-biske-1994")),
            ("en-US-u-fw-mon-mu-celsius", Some("en-us")),
            ("es-u-ms-metric", Some("es")),
            ("ar-u-nu-latn", Some("ar")),
            ("de-DE-x-formal", Some("de-de")),
            ("de-t-en-us-m0-und", Some("de")),
            ("fil-PH", Some("fil-ph")),
            ("und", Some("und")),
            ("x-private", None),
            ("i-klingon", None),
            // POSIX.
            ("en_US.UTF-8", Some("en-us")),
            ("ca-ES@valencia", Some("ca-es")),
            ("de_DE.UTF-8@euro", Some("de-de")),
            ("C", None),
            ("C.UTF-8", None),
            ("POSIX", None),
            // Java.
            ("zh_CN_#Hans", Some("zh-hans-cn")),
            ("zh__#Hant", Some("zh-hant")),
            ("th_TH_TH_#u-nu-thai", Some("th-th-th")),
            // Lists.
            ("en-US,en;q=0.9", Some("en-us")),
            ("de;q=0.5, fr;q=0.9, *;q=0.1", Some("fr")),
            ("xx-!;q=0, pl", Some("pl")),
            ("*", None),
            ("de;q=0", None),
            // Blanks, and values that name no language.
            ("de ", Some("de")),
            ("\u{a0}de\n", Some("de")),
            ("", None),
            (" ", None),
            ("-", None),
            ("english", None),
            ("12", None),
            ("../en", None),
            ("дe", None),
            (&"de,".repeat(400), None),
        ] {
            let locale = Locale::from_wish(wish);
            assert_eq!(locale.as_ref().map(Locale::as_str), read, "{wish:.40}");
        }
    }

    #[test]
    fn spellings_of_one_language_are_one() {
        for (one, other) in [
            ("zh-TW", "zh-Hant-TW"),
            ("zh_HK", "zh-hant-hk"),
            ("zh-CN", "zh-Hans-CN"),
            ("no", "nb"),
            ("no-NO", "nb-NO"),
            ("iw-IL", "he-IL"),
            ("in", "id"),
            ("tl-PH", "fil-PH"),
        ] {
            assert_eq!(one.parse::<Locale>(), other.parse(), "{one} {other}");
            assert_eq!(Locale::from_wish(one), Locale::from_wish(other));
        }
        assert_ne!("sr-Latn".parse::<Locale>(), "sr".parse());
        assert_ne!("pt".parse::<Locale>(), "pt-BR".parse());
    }

    proptest! {
        #[test]
        fn what_was_read_is_read_again_as_it_is(
            wish in "([a-zA-Z]{1,4}[-_#.@,;]){1,6}[a-zA-Z0-9-]{0,60}|\\PC{0,60}",
        ) {
            if let Some(locale) = Locale::from_wish(&wish) {
                prop_assert!(locale.as_str().len() <= LONGEST);
                prop_assert_eq!(locale.as_str().parse::<Locale>(), Ok(locale));
            }
        }
    }
}
