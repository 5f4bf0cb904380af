//! Phone numbers in strict E.164. Parsing checks a number and never rewrites it. The numbering
//! plans only add its kind and its country.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use phonenumber::{Type, country};

use crate::Malformed;
use crate::numbering_plans::{self, Misread, Reading};

/// An E.164 number: ASCII `+`, then 7 to 15 digits, the first not 0.
///
/// `Display` and `Debug` mask the number; [`PhoneNumber::expose`] returns it in full.
#[derive(Clone)]
pub struct PhoneNumber {
    text: String,
    /// `None` if the number came from [`PhoneNumber::known`], which skips the numbering plans.
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

/// The kind of line, as far as it decides whether a code may be sent there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberKind {
    /// A mobile line, a line that may be mobile, or a line over the internet.
    Reachable,
    /// A fixed line; most of them cannot receive SMS.
    FixedLine,
    /// Premium rate, shared cost, personal, pager, voicemail, toll free or company-wide. Such lines
    /// pay their operator for each message (a target of fraud) or have no person who reads it. Also
    /// a number that begins with one of these, because networks connect it without looking at the
    /// digits that follow.
    Special,
    /// A satellite or international network, or another calling code without a country (+800, +808,
    /// +870, +878, +881, +882, +883, +888, +979).
    Satellite,
    /// No line of this range and length is in the plans: reserved, or newer than their data.
    Unknown,
    /// No number of the country has this length, or the number is a known one with more digits
    /// appended, which would reach the same handset under another name.
    WrongLength,
}

/// Whether `code` is a country of the numbering plans (ISO 3166, two capital letters: `GB`).
pub fn is_country(code: &str) -> bool {
    code.parse::<country::Id>().is_ok()
}

/// Calling codes without a country. Some of them bill like premium-rate lines.
const INTERNATIONAL_NETWORKS: [&str; 9] = [
    "800", "808", "870", "878", "881", "882", "883", "888", "979",
];

impl PhoneNumber {
    /// Restores a number that was parsed before, with its country, without asking the numbering
    /// plans.
    pub fn known(text: &str, country: &str) -> Result<Self, Malformed> {
        strict(text)?;
        Ok(Self {
            text: text.to_owned(),
            kind: None,
            country: Some(country.parse().map_err(|_| RULE)?),
        })
    }

    /// Returns the number in full: `+` and digits.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Returns the digits without `+`.
    pub fn expose_digits(&self) -> &str {
        &self.text[1..]
    }

    /// Returns the kind of line according to the numbering plans of libphonenumber.
    pub fn kind(&self) -> NumberKind {
        self.kind.unwrap_or_else(|| {
            numbering_plans::read(self.expose_digits())
                .map_or(NumberKind::Unknown, |read| kind(self.expose_digits(), read))
        })
    }

    /// Returns the ISO 3166 country, if the numbering plans know it.
    pub fn country(&self) -> Option<&str> {
        self.country.as_ref().map(AsRef::as_ref)
    }
}

impl FromStr for PhoneNumber {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let digits = strict(text)?;
        // The library would turn some numbers into others (+7 840 1234567 becomes +7 401234567).
        // Such a number is rejected, not corrected.
        let read = numbering_plans::read(digits).map_err(|misread| match misread {
            Misread::NoCode => Malformed::new("the phone number has no assigned country code"),
            Misread::Otherwise => {
                Malformed::new("the phone number is ambiguous in its numbering plan")
            }
        })?;
        Ok(Self {
            text: text.to_owned(),
            kind: Some(kind(digits, read)),
            country: read.country,
        })
    }
}

/// Derives the kind from the answer of the numbering plans.
fn kind(digits: &str, read: Reading) -> NumberKind {
    if is_international(digits) {
        return NumberKind::Satellite;
    }
    let begins_with_special =
        (read.begins_with.map(of_type)).is_some_and(|kind| kind == NumberKind::Special);
    match of_type(read.kind) {
        NumberKind::Unknown if begins_with_special => NumberKind::Special,
        NumberKind::Unknown if !read.has_length || read.begins_with.is_some() => {
            NumberKind::WrongLength
        }
        kind => kind,
    }
}

fn is_international(digits: &str) -> bool {
    INTERNATIONAL_NETWORKS
        .iter()
        .any(|code| digits.starts_with(code))
}

const fn of_type(kind: Type) -> NumberKind {
    match kind {
        Type::FixedLine => NumberKind::FixedLine,
        Type::PremiumRate
        | Type::SharedCost
        | Type::TollFree
        | Type::PersonalNumber
        | Type::Pager
        | Type::Uan
        | Type::Voicemail
        | Type::Emergency
        | Type::ShortCode
        | Type::StandardRate
        | Type::Carrier
        | Type::NoInternational => NumberKind::Special,
        Type::Mobile | Type::FixedLineOrMobile | Type::Voip => NumberKind::Reachable,
        Type::Unknown => NumberKind::Unknown,
    }
}

/// The first digits of a range of numbers: `+`, a calling code, and at least one more digit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberPrefix(String);

impl NumberPrefix {
    /// Whether `number` is in the range.
    pub fn covers(&self, number: &PhoneNumber) -> bool {
        number.expose().starts_with(&self.0)
    }
}

impl FromStr for NumberPrefix {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let digits = text.strip_prefix('+').unwrap_or_default();
        // A calling code alone is not a range: its unknown numbers are not assigned.
        let is_range =
            numbering_plans::national(digits).is_some_and(|national| !national.is_empty());
        if !is_range
            || digits.len() > 15
            || !digits.bytes().all(|byte| byte.is_ascii_digit())
            || is_international(digits)
        {
            return Err(Malformed::new(
                "a number prefix is +, the calling code of a country and at least one more digit",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

const RULE: Malformed =
    Malformed::new("a phone number is in E.164: + and 7 to 15 ASCII digits, without spaces");

/// Checks `text` against strict E.164 and returns its digits.
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
    /// Masks the number: `+`, the first two digits, stars, the last two digits.
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
            "+5511912000000",
            "+919812000000",
            "+8613802000000",
            "+6281212000000",
            "+31612000000",
            "+46702000000",
            "+12022000000",
        ] {
            assert_eq!(kind(mobile), NumberKind::Reachable, "{mobile}");
        }
        for fixed in [
            "+493012345678",
            // The zero is part of the number in Italy, San Marino and the Vatican.
            "+390236618300",
            "+3780549886377",
            "+390669812345",
        ] {
            assert_eq!(kind(fixed), NumberKind::FixedLine, "{fixed}");
        }
        for special in [
            "+19002345678",
            "+449098790000",
            "+448431234567",
            // Personal numbers: the operator bills the caller, or the owner pays for each message.
            "+447092123456",
            "+447012345678",
            "+4970012345678",
            "+15002345678",
        ] {
            assert_eq!(kind(special), NumberKind::Special, "{special}");
        }
        for network in [
            "+881612345678",
            "+870301234567",
            "+878101234567890",
            "+8823421234",
            "+883510012345",
            "+979123456789",
            "+80812345678",
            "+80012345678",
            "+8001234567",
        ] {
            assert_eq!(kind(network), NumberKind::Satellite, "{network}");
        }
    }

    #[test]
    fn no_number_that_begins_with_a_special_one_is_reachable() {
        for (special, behind) in [
            ("+19002345678", "0"),
            ("+19002345678", "1234"),
            ("+449098790000", "1"),
            ("+33899123456", "7"),
            ("+447012345678", "9"),
        ] {
            let longer = format!("{special}{behind}");
            let kind = longer.parse::<PhoneNumber>().unwrap().kind();
            assert_eq!(kind, NumberKind::Special, "{longer}");
        }
        let mut count = 0;
        for special in special_examples() {
            for behind in [
                "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "00", "123", "9999",
            ] {
                let longer = format!("{special}{behind}");
                // A plan of several lengths may list the longer number itself, as Japan's does.
                let is_listed = numbering_plans::read(&longer[1..])
                    .is_ok_and(|reading| of_type(reading.kind) == NumberKind::Reachable);
                let kind = longer.parse().map(|number: PhoneNumber| number.kind());
                assert!(is_listed || kind != Ok(NumberKind::Reachable), "{longer}");
                count += usize::from(!is_listed);
            }
        }
        assert!(count > 7_000, "only {count}");
    }

    /// Returns the example numbers of special lines in the plans.
    fn special_examples() -> impl Iterator<Item = String> {
        let kinds = [
            Type::PremiumRate,
            Type::TollFree,
            Type::SharedCost,
            Type::PersonalNumber,
            Type::Pager,
            Type::Uan,
            Type::Voicemail,
        ];
        let plans = phonenumber::metadata::DATABASE.iter();
        plans.flat_map(move |meta| {
            let lines = kinds.into_iter();
            let lines = lines.filter_map(|kind| meta.descriptors().get(kind)?.example());
            lines.map(|example| format!("+{}{example}", meta.country_code()))
        })
    }

    #[test]
    fn a_handset_has_one_number() {
        // Each handset with its number, and other numbers that reach it or once reached it.
        for (number, others) in [
            (
                "+4915112345678",
                &["+49151123456780", "+491511234567812"][..],
            ),
            ("+12025550123", &["+120255501230"]),
            // Their plans list longer numbers, too.
            (
                "+31613235027",
                &["+3161323502700", "+3161323502799", "+316132350270"],
            ),
            ("+376312345", &["+376312345678"]),
            ("+60168572848", &["+601685728480"]),
            ("+525512345678", &["+5215512345678"]),
            ("+5511961234567", &["+551161234567", "+55011961234567"]),
            ("+2250708123456", &["+22508123456", "+2258123456"]),
            ("+2290195123456", &["+22995123456"]),
            ("+5491123456789", &["+54111523456789"]),
            ("+447400123456", &["+4407400123456", "+4474001234567"]),
        ] {
            let kind = |text: &str| text.parse().map(|number: PhoneNumber| number.kind());
            assert_eq!(kind(number), Ok(NumberKind::Reachable), "{number}");
            for other in others {
                let refused = matches!(
                    kind(other),
                    Err(_) | Ok(NumberKind::Unknown | NumberKind::WrongLength)
                );
                assert!(refused, "{other}");
            }
        }
    }

    #[test]
    fn a_number_off_the_plans_says_how() {
        for (text, kind) in [
            ("+447700900222", NumberKind::Unknown),
            ("+15555550100", NumberKind::Unknown),
            ("+85246812345", NumberKind::Reachable),
            ("+85241234567", NumberKind::Unknown),
            ("+1202555012", NumberKind::WrongLength),
            ("+49151123456780", NumberKind::WrongLength),
            ("+5215512345678", NumberKind::WrongLength),
            ("+22508123456", NumberKind::WrongLength),
            ("+390", NumberKind::WrongLength),
        ] {
            if let Ok(number) = text.parse::<PhoneNumber>() {
                assert_eq!(number.kind(), kind, "{text}");
            }
        }
    }

    #[test]
    fn zeros_in_front_belong_to_mobile_numbers_of_some_plans() {
        for mobile in [
            "+2250708123456",
            "+2290195123456",
            "+242061234567",
            "+24106031234",
        ] {
            let number: PhoneNumber = mobile.parse().unwrap();
            assert_eq!(number.kind(), NumberKind::Reachable, "{mobile}");
        }
    }

    #[test]
    fn a_prefix_names_a_range_of_a_country() {
        let number: PhoneNumber = "+85210000000".parse().unwrap();
        assert!("+8521".parse::<NumberPrefix>().unwrap().covers(&number));
        assert!(!"+8522".parse::<NumberPrefix>().unwrap().covers(&number));
        for text in [
            "",
            "+",
            "852",
            "+852",
            "+1",
            "+999",
            "+0",
            "+8001",
            "+8821",
            "+852 1",
            "+8521x",
            "8521",
            "+4\u{e9}",
            "+1234567890123456",
        ] {
            assert!(text.parse::<NumberPrefix>().is_err(), "{text}");
        }
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
        fn a_reachable_number_stops_being_one_with_digits_behind(
            which in 0_usize..7,
            behind in "[0-9]{1,4}",
        ) {
            let numbers = [
                "+12025550123", "+447400123456", "+33612345678", "+525512345678",
                "+2250708123456", "+85251234567", "+61412345678",
            ];
            let longer = format!("{}{behind}", numbers[which]);
            let kind = longer.parse().map(|number: PhoneNumber| number.kind());
            prop_assert_ne!(kind, Ok(NumberKind::Reachable), "{}", longer);
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = text.parse::<PhoneNumber>();
        }
    }
}
