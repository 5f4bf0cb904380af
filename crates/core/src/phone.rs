//! Telephone numbers: strict E.164, checked and never rewritten. A library classifies a number
//! (what kind of line, which country); it has no say in what the number is.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use phonenumber::{Type, country};

use crate::Malformed;
use crate::plans::{self, Misread};

/// An E.164 number: ASCII `+`, then 7 to 15 digits of which the first is not 0.
///
/// It prints masked; [`PhoneNumber::expose`] gives the digits to the provider call.
#[derive(Clone)]
pub struct PhoneNumber {
    text: String,
    /// `None`: it was read before, by another process.
    kind: Option<NumberKind>,
    country: Option<country::Id>,
}

impl PartialEq for PhoneNumber {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for PhoneNumber {}

impl Hash for PhoneNumber {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

/// What kind of line a number is, as far as it decides whether a code may go there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberKind {
    /// A line that can get a code, or one the numbering plan data does not know (yet).
    Reachable,
    /// A fixed line: it gets no SMS.
    FixedLine,
    /// Premium rate, shared cost, personal, pager, voicemail, toll free or company-wide: lines that pay
    /// whoever runs them, or that no person reads (R17).
    Special,
    /// A satellite or international network (+870, +878, +881, +882, +883, +888, +979).
    Satellite,
}

/// Whether `code` is a country of the numbering plans (ISO 3166, two capital letters: `GB`).
pub fn is_country(code: &str) -> bool {
    code.parse::<country::Id>().is_ok()
}

/// Country codes of no country, of which some bill like premium lines (R17).
const INTERNATIONAL_NETWORKS: [&str; 8] = ["800", "870", "878", "881", "882", "883", "888", "979"];

impl PhoneNumber {
    /// A number that was parsed before, and the country it was found to be of: the numbering plans
    /// are not asked again.
    pub fn known(text: &str, country: &str) -> Result<Self, Malformed> {
        strict(text)?;
        Ok(Self {
            text: text.to_owned(),
            kind: None,
            country: Some(country.parse().map_err(|_| RULE)?),
        })
    }

    /// The number as the provider needs it: `+` and digits.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The digits without `+`.
    pub fn expose_digits(&self) -> &str {
        &self.text[1..]
    }

    /// What kind of line this is by the numbering plans of libphonenumber.
    pub fn kind(&self) -> NumberKind {
        self.kind.unwrap_or_else(|| {
            let read = plans::read(self.expose_digits());
            kind(
                self.expose_digits(),
                read.map_or(Type::Unknown, |read| read.kind),
            )
        })
    }

    /// The ISO 3166 country of the number, if the numbering plans tell one.
    pub fn country(&self) -> Option<&str> {
        self.country.as_ref().map(AsRef::as_ref)
    }
}

impl FromStr for PhoneNumber {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let digits = strict(text)?;
        // The plans must read the number as it stands: one they would turn into another
        // (+7 840 1234567 becomes +7 401234567) is refused, not corrected.
        let read = plans::read(digits).map_err(|misread| match misread {
            Misread::NoCode => Malformed::new("the phone number has no assigned country code"),
            Misread::Otherwise => {
                Malformed::new("the phone number is ambiguous in its numbering plan")
            }
        })?;
        Ok(Self {
            text: text.to_owned(),
            kind: Some(kind(digits, read.kind)),
            country: read.country,
        })
    }
}

/// What the plans' word for a kind of line means for a code.
fn kind(digits: &str, kind: Type) -> NumberKind {
    if INTERNATIONAL_NETWORKS
        .iter()
        .any(|code| digits.starts_with(code))
    {
        return NumberKind::Satellite;
    }
    match kind {
        Type::FixedLine => NumberKind::FixedLine,
        Type::PremiumRate
        | Type::SharedCost
        | Type::TollFree
        | Type::Pager
        | Type::Uan
        | Type::Voicemail
        | Type::Emergency
        | Type::ShortCode
        | Type::StandardRate
        | Type::Carrier
        | Type::NoInternational => NumberKind::Special,
        Type::Mobile
        | Type::FixedLineOrMobile
        | Type::PersonalNumber
        | Type::Voip
        | Type::Unknown => NumberKind::Reachable,
    }
}

const RULE: Malformed =
    Malformed::new("a phone number is in E.164: + and 7 to 15 ASCII digits, without spaces");

/// The digits of a number in strict E.164.
fn strict(text: &str) -> Result<&str, Malformed> {
    let digits = text.strip_prefix('+').ok_or(RULE)?;
    if !(7..=15).contains(&digits.len())
        || !digits.bytes().all(|byte| byte.is_ascii_digit())
        || digits.starts_with('0')
    {
        return Err(RULE);
    }
    Ok(digits)
}

impl fmt::Display for PhoneNumber {
    /// Masked: `+` and two digits, stars, the last two digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (head, tail) = (&self.text[..3], &self.text[self.text.len() - 2..]);
        write!(f, "{head}{}{tail}", "*".repeat(self.text.len() - 5))
    }
}

impl fmt::Debug for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PhoneNumber({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hostile_numbers_are_refused() {
        let long = "1".repeat(8192);
        for text in [
            "",
            "+",
            "+123456",
            "+1234567890123456",
            "004915112345678",
            "4915112345678",
            " +4915112345678",
            "+4915112345678 ",
            "+49 151 12345678",
            "+49\u{200b}15112345678",
            "+4915112345678\r\n",
            "+４９15112345678",
            "+٤٩15112345678",
            "+3367a829916",
            "tel:+4915112345678",
            "+4915112345678;ext=12",
            "+0915112345678",
            "+99912345678",
            "+78401234567",
            &long,
        ] {
            assert!(text.parse::<PhoneNumber>().is_err(), "{text:.40}");
        }
    }

    #[test]
    fn kinds_follow_the_numbering_plans() {
        let kind = |text: &str| text.parse::<PhoneNumber>().unwrap().kind();
        for mobile in [
            "+4915112345678",
            "+33612345678",
            "+12025550123",
            "+447400123456",
        ] {
            assert_eq!(kind(mobile), NumberKind::Reachable, "{mobile}");
        }
        assert_eq!(kind("+493012345678"), NumberKind::FixedLine);
        for special in ["+19002345678", "+449098790000", "+448431234567"] {
            assert_eq!(kind(special), NumberKind::Special, "{special}");
        }
        assert_eq!(kind("+881612345678"), NumberKind::Satellite);
    }

    #[test]
    fn countries_are_those_of_the_plans() {
        assert!(["DE", "GB", "US", "BS"].into_iter().all(is_country));
        for other in ["UK", "de", "", "D", "DEU", "001", "ZZ"] {
            assert!(!is_country(other), "{other}");
        }
    }

    #[test]
    fn the_country_is_told_inside_the_north_american_plan() {
        let country = |text: &str| {
            let number: PhoneNumber = text.parse().unwrap();
            number.country().map(str::to_owned)
        };
        assert_eq!(country("+12025550123").as_deref(), Some("US"));
        assert_eq!(country("+12423591234").as_deref(), Some("BS"));
        assert_eq!(country("+18762101234").as_deref(), Some("JM"));
    }

    #[test]
    fn a_known_number_is_the_parsed_one() {
        for text in [
            "+4915112345678",
            "+12423591234",
            "+493012345678",
            "+449098790000",
        ] {
            let parsed: PhoneNumber = text.parse().unwrap();
            let known = PhoneNumber::known(text, parsed.country().unwrap()).unwrap();
            assert_eq!(known, parsed);
            assert_eq!(
                (known.country(), known.kind()),
                (parsed.country(), parsed.kind())
            );
        }
        for (text, country) in [
            ("+4915112345678", "XX"),
            ("+49 15112345678", "DE"),
            ("+4915", "DE"),
        ] {
            assert!(
                PhoneNumber::known(text, country).is_err(),
                "{text} {country}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_what_was_given(text in "\\+[0-9]{5,17}") {
            if let Ok(number) = text.parse::<PhoneNumber>() {
                prop_assert_eq!(number.expose(), &text);
                prop_assert!(!number.to_string().contains(&text[3..]));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = text.parse::<PhoneNumber>();
        }
    }
}
