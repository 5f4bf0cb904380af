//! The numbers that a service sends to.

use crate::{NumberKind, NumberPrefix, PhoneNumber};

/// The telephone numbers that a service sends to: numbers in its countries on which a person can
/// read a message. Premium numbers are excluded, because their operator earns from each message
/// (SMS pumping).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberPolicy {
    countries: Vec<String>,
    unknown: Vec<NumberPrefix>,
    fixed_lines: Vec<NumberPrefix>,
}

/// The reason why a service does not send to a number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NumberRefusal {
    /// The number is not one of its numbering plan.
    #[error("the phone number has too few or too many digits for its numbering plan")]
    WrongLength,
    /// A person cannot read a message there.
    #[error("SMS is not sent to a fixed line")]
    FixedLine,
    /// The operator of the number earns from each message.
    #[error("codes are not sent to premium, shared-cost, personal and service numbers")]
    Special,
    /// Messages to the network are expensive.
    #[error("codes are not sent to satellite and international networks")]
    Satellite,
    /// The range is not in the numbering plans.
    #[error(
        "the numbering plans do not list this range: it is unassigned, reserved or newer than their data"
    )]
    Unlisted,
    /// The country is not one of the service's.
    #[error("the number belongs to {0}, where the service sends no codes")]
    Country(String),
    /// The number's calling code is shared by several countries.
    #[error("the number belongs to no country that the service sends codes to")]
    NoCountry,
}

impl NumberPolicy {
    /// Creates a policy for the numbers of `countries`: ISO 3166 codes, or `*` for all. It also
    /// allows the ranges `unknown`, which the numbering plans do not list, and `fixed_lines`.
    pub const fn new(
        countries: Vec<String>,
        unknown: Vec<NumberPrefix>,
        fixed_lines: Vec<NumberPrefix>,
    ) -> Self {
        Self {
            countries,
            unknown,
            fixed_lines,
        }
    }

    /// Returns an error if the service does not send to `number`.
    pub fn admit(&self, number: &PhoneNumber) -> Result<(), NumberRefusal> {
        let is_in = |prefixes: &[NumberPrefix]| prefixes.iter().any(|one| one.covers(number));
        match number.kind() {
            NumberKind::Reachable => {}
            NumberKind::FixedLine if is_in(&self.fixed_lines) => {}
            NumberKind::Unknown | NumberKind::WrongLength if is_in(&self.unknown) => {
                // A range in a shared calling code (such as +1) has no country, so its listing in
                // `unknown_prefixes` suffices.
                if number.country().is_none() {
                    return Ok(());
                }
            }
            NumberKind::FixedLine => return Err(NumberRefusal::FixedLine),
            NumberKind::Special => return Err(NumberRefusal::Special),
            NumberKind::Satellite => return Err(NumberRefusal::Satellite),
            NumberKind::Unknown => return Err(NumberRefusal::Unlisted),
            NumberKind::WrongLength => return Err(NumberRefusal::WrongLength),
        }
        let is_listed = |code: &str| self.countries.iter().any(|one| one == code);
        match number.country() {
            _ if is_listed("*") => Ok(()),
            Some(country) if is_listed(country) => Ok(()),
            Some(country) => Err(NumberRefusal::Country(country.to_owned())),
            None => Err(NumberRefusal::NoCountry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(countries: &[&str], unknown: &[&str], fixed_lines: &[&str]) -> NumberPolicy {
        let prefixes = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let countries = countries
            .iter()
            .map(|&country| country.to_owned())
            .collect();
        NumberPolicy::new(countries, prefixes(unknown), prefixes(fixed_lines))
    }

    fn refusal(policy: &NumberPolicy, number: &str) -> Option<NumberRefusal> {
        policy.admit(&number.parse().unwrap()).err()
    }

    #[test]
    fn numbers_are_refused_for_the_reason_that_holds() {
        use NumberRefusal::{FixedLine, Satellite, Special, Unlisted, WrongLength};
        let abroad = |country: &str| NumberRefusal::Country(country.to_owned());
        let [none, british, all] = &[&[][..], &["GB"], &["*"]].map(|list| policy(list, &[], &[]));
        for (policy, number, reason) in [
            (british, "+4915112345678", abroad("DE")),
            (british, "+447797712345", abroad("JE")),
            (british, "+447700900222", Unlisted),
            (all, "+447700900222", Unlisted),
            (all, "+85241234567", Unlisted),
            (all, "+442012345678", FixedLine),
            (all, "+390236618300", FixedLine),
            (all, "+447092123456", Special),
            (all, "+190023456780", Special),
            (all, "+338991234567", Special),
            (all, "+881612345678", Satellite),
            (all, "+49151123456780", WrongLength),
            (all, "+5215512345678", WrongLength),
            (none, "+4915112345678", abroad("DE")),
        ] {
            assert_eq!(refusal(policy, number), Some(reason), "{number}");
        }
        assert_eq!(refusal(british, "+447400123456"), None);
        let islands = policy(&["GB", "JE"], &[], &[]);
        assert_eq!(refusal(&islands, "+447797712345"), None);
        assert_eq!(refusal(all, "+12025550123"), None);
    }

    #[test]
    fn prefixes_open_ranges_and_nothing_special() {
        let policy = policy(
            &["GB", "HK"],
            &[
                "+447700900",
                "+8524",
                "+44909",
                "+861",
                "+15",
                "+4474001234567",
            ],
            &["+4420", "+4970"],
        );
        for number in [
            "+447700900222",
            "+85241234567",
            "+442012345678",
            "+15555550100",
            "+44740012345678",
        ] {
            assert_eq!(refusal(&policy, number), None, "{number}");
        }
        for number in [
            // A premium number with an extra digit, an unknown range of another country, a personal
            // number.
            "+4490987900001",
            "+86100000000",
            "+4970012345678",
            "+15002345678",
            "+441212345678",
        ] {
            assert!(refusal(&policy, number).is_some(), "{number}");
        }
    }
}
