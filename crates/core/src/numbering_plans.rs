//! The numbering plans of libphonenumber, matched against numbers in E.164: whether a number is
//! read without change, its country, and the kind of line.
//!
//! The metadata comes from the crate `phonenumber`, the matching code is here. The crate's parser
//! accepts free-form input and caches 100 compiled patterns for all countries behind one lock: with
//! numbers of some twenty countries in turn it recompiles the patterns for each number, which takes
//! milliseconds. This module compiles each pattern once, for ASCII digits only.
//!
//! A test compares every answer with the crate's. There is one deliberate difference: here a
//! leading zero is part of a national number. The crate strips it before it determines the kind,
//! and therefore classifies Italian fixed lines as unknown.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::{LazyLock, OnceLock};

use phonenumber::metadata::{DATABASE, Descriptor, Metadata};
use phonenumber::{Type, country};
use regex::{Regex, RegexBuilder};

/// Digits of the longest calling code.
const LONGEST_CODE: usize = 3;

/// Kinds of line in the order in which the crate tries them.
const KINDS: [Type; 10] = [
    Type::PremiumRate,
    Type::TollFree,
    Type::SharedCost,
    Type::Voip,
    Type::PersonalNumber,
    Type::Pager,
    Type::Uan,
    Type::Voicemail,
    Type::FixedLine,
    Type::Mobile,
];

/// The plans of each calling code, main country first.
static PLANS: LazyLock<HashMap<u16, Vec<Plan>>> = LazyLock::new(|| {
    let mut plans = HashMap::<u16, Vec<Plan>>::new();
    for code in 1..1_000 {
        let regions = DATABASE.region(&code).unwrap_or_default();
        let found = regions.iter().filter_map(|region| match *region {
            // `001` is not a country; its plan belongs to the calling code.
            "001" => DATABASE.by_code(&code)?.into_iter().next(),
            region => DATABASE.by_id(region),
        });
        let found: Vec<_> = found.map(Plan::new).collect();
        if !found.is_empty() {
            plans.insert(code, found);
        }
    }
    plans
});

/// The plans' answer about a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The country; `None` for a range that no plan of a shared calling code lists.
    pub country: Option<country::Id>,
    pub kind: Type,
    /// For a number of unknown kind: the kind of the longest shorter number that it begins with.
    pub begins_with: Option<Type>,
    /// Whether any plan of the calling code has numbers of this length.
    pub has_length: bool,
}

/// The reason why digits are not read as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misread {
    /// The first digits are not an assigned calling code.
    NoCode,
    /// The library would strip a national prefix and so read another number.
    Otherwise,
}

/// The numbers of one country, or of a calling code without a country.
struct Plan {
    country: Option<country::Id>,
    leading: Option<Pattern>,
    general: Numbers,
    kinds: Vec<(Type, Numbers)>,
    /// Possible lengths of a national number, over all kinds.
    lengths: BTreeSet<usize>,
    prefix: Prefix,
}

/// The national prefix: digits dialed before a number inside its country.
struct Prefix {
    plain: Option<&'static str>,
    pattern: Option<Pattern>,
    /// The replacement for the matched prefix; `None` deletes it.
    replacement: Option<&'static str>,
}

/// The numbers of one kind of line.
struct Numbers {
    lengths: &'static [u16],
    pattern: Pattern,
}

/// A regular expression, compiled on first use.
struct Pattern {
    source: &'static str,
    /// Whether the pattern must match the whole number, not only its first digits.
    is_whole: bool,
    compiled: OnceLock<Option<Regex>>,
}

/// Looks up the digits of a number in E.164 (without `+`).
pub fn read(digits: &str) -> Result<Reading, Misread> {
    let (plans, national) = split(digits).ok_or(Misread::NoCode)?;
    // The library strips leading zeros before it selects the plan in which it looks for a prefix.
    let cut = national.trim_start_matches('0');
    if cut.is_empty() {
        return Err(Misread::Otherwise);
    }
    let found = belongs(plans, cut);
    if found.is_some_and(|(plan, _)| plan.takes_for_another(national)) {
        return Err(Misread::Otherwise);
    }
    let found = if cut == national {
        found
    } else {
        belongs(plans, national)
    };
    let kind = found.map_or(Type::Unknown, |(_, kind)| kind);
    Ok(Reading {
        country: found.and_then(|(plan, _)| plan.country),
        kind,
        begins_with: (kind == Type::Unknown)
            .then(|| begins_with(plans, national))
            .flatten(),
        has_length: plans
            .iter()
            .any(|plan| plan.lengths.contains(&national.len())),
    })
}

/// Returns the national part of `digits`, or `None` if no calling code matches.
pub fn national(digits: &str) -> Option<&str> {
    split(digits).map(|(_, national)| national)
}

/// Splits `digits` into the plans of its calling code and the national number.
fn split(digits: &str) -> Option<(&'static [Plan], &str)> {
    (1..=LONGEST_CODE.min(digits.len())).find_map(|length| {
        let (code, national) = digits.split_at_checked(length)?;
        Some((PLANS.get(&code.parse().ok()?)?.as_slice(), national))
    })
}

/// Returns the kind of the longest known number that `national` is longer than and begins with.
fn begins_with(plans: &[Plan], national: &str) -> Option<Type> {
    let lengths: BTreeSet<_> = plans.iter().flat_map(|plan| &plan.lengths).collect();
    let shorter = lengths.into_iter().rev();
    shorter
        .filter(|length| **length < national.len())
        .filter_map(|length| belongs(plans, national.get(..*length)?))
        .map(|(_, kind)| kind)
        .find(|kind| *kind != Type::Unknown)
}

/// Finds the plan that `national` belongs to among those of its calling code, and the kind of line.
fn belongs<'a>(plans: &'a [Plan], national: &str) -> Option<(&'a Plan, Type)> {
    if let [only] = plans {
        return Some((only, only.kind(national)));
    }
    plans.iter().find_map(|plan| match &plan.leading {
        Some(leading) => leading.fits(national).then(|| (plan, plan.kind(national))),
        None => Some((plan, plan.kind(national))).filter(|(_, kind)| *kind != Type::Unknown),
    })
}

impl Plan {
    fn new(meta: &'static Metadata) -> Self {
        let numbers = |kind| Some((kind, Numbers::new(meta.descriptors().get(kind)?)));
        let kinds: Vec<_> = KINDS.into_iter().filter_map(numbers).collect();
        let lengths = kinds.iter().flat_map(|(_, numbers)| numbers.lengths);
        Self {
            country: meta.id().parse().ok(),
            leading: meta
                .leading_digits()
                .map(|pattern| Pattern::new(pattern.as_str())),
            general: Numbers::new(meta.descriptors().general()),
            lengths: lengths.map(|length| usize::from(*length)).collect(),
            kinds,
            prefix: Prefix::new(meta),
        }
    }

    /// Whether the library would strip a national prefix from `national`.
    fn takes_for_another(&self, national: &str) -> bool {
        let mut left = self.prefix.without_pattern(national, &self.general);
        if let Some(rest) = self.prefix.plain.and_then(|plain| left.strip_prefix(plain)) {
            left = Cow::Owned(rest.to_owned());
        }
        left != national
    }

    /// Returns the kind of line of `national`, in the library's order of precedence.
    fn kind(&self, national: &str) -> Type {
        if !self.general.hold(national) {
            return Type::Unknown;
        }
        let found = self
            .kinds
            .iter()
            .find(|(_, numbers)| numbers.hold(national));
        match found {
            Some((Type::FixedLine, fixed)) => {
                let mobile = self.kinds.iter().find(|(kind, _)| *kind == Type::Mobile);
                let is_either = mobile.is_some_and(|(_, mobile)| {
                    mobile.pattern.source == fixed.pattern.source || mobile.hold(national)
                });
                if is_either {
                    Type::FixedLineOrMobile
                } else {
                    Type::FixedLine
                }
            }
            Some((kind, _)) => *kind,
            None => Type::Unknown,
        }
    }
}

impl Prefix {
    fn new(meta: &'static Metadata) -> Self {
        Self {
            plain: meta.national_prefix(),
            pattern: meta
                .national_prefix_for_parsing()
                .map(|pattern| Pattern::new(pattern.as_str())),
            replacement: meta.national_prefix_transform_rule(),
        }
    }

    /// Strips or replaces the prefix at the start of `national` as the library does. The number
    /// stays as it is if it is valid and the replaced one would not be.
    fn without_pattern<'a>(&self, national: &'a str, general: &Numbers) -> Cow<'a, str> {
        let Some(pattern) = &self.pattern else {
            let rest = self.plain.and_then(|plain| national.strip_prefix(plain));
            return Cow::Borrowed(rest.unwrap_or(national));
        };
        let Some(found) = pattern
            .compiled()
            .and_then(|regex| regex.captures(national))
        else {
            return Cow::Borrowed(national);
        };
        let has_last = found.get(found.len() - 1).is_some();
        let Some(replacement) = self.replacement.filter(|_| has_last) else {
            return Cow::Borrowed(&national[found[0].len()..]);
        };
        let mut replaced = String::new();
        found.expand(replacement, &mut replaced);
        replaced.push_str(&national[found[0].len()..]);
        if general.hold(national) && !general.hold(&replaced) {
            return Cow::Borrowed(national);
        }
        Cow::Owned(replaced)
    }
}

impl Numbers {
    fn new(descriptor: &'static Descriptor) -> Self {
        Self {
            lengths: descriptor.possible_length(),
            pattern: Pattern::whole(descriptor.national_number().as_str()),
        }
    }

    fn hold(&self, national: &str) -> bool {
        let fits = |length: &u16| usize::from(*length) == national.len();
        (self.lengths.is_empty() || self.lengths.iter().any(fits)) && self.pattern.fits(national)
    }
}

impl Pattern {
    /// Creates a pattern that matches the first digits.
    const fn new(source: &'static str) -> Self {
        Self {
            source,
            is_whole: false,
            compiled: OnceLock::new(),
        }
    }

    /// Creates a pattern that matches whole numbers. Plans list several lengths: a pattern that
    /// matched only the first digits would accept a number with extra digits, so that one handset
    /// had several valid numbers.
    const fn whole(source: &'static str) -> Self {
        Self {
            source,
            is_whole: true,
            compiled: OnceLock::new(),
        }
    }

    /// Whether `national` matches.
    fn fits(&self, national: &str) -> bool {
        self.compiled()
            .is_some_and(|regex| regex.is_match(national))
    }

    fn compiled(&self) -> Option<&Regex> {
        let compiled = self.compiled.get_or_init(|| {
            let end = if self.is_whole { "$" } else { "" };
            RegexBuilder::new(&format!("^(?:{}){end}", self.source))
                .ignore_whitespace(true)
                .unicode(false)
                .build()
                .ok()
        });
        compiled.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use proptest::strategy::{Strategy, ValueTree};
    use proptest::string::string_regex;
    use proptest::test_runner::TestRunner;

    use super::*;

    /// Returns numbers of every calling code and the examples of every plan, with and without
    /// prefixes.
    fn numbers() -> impl Iterator<Item = String> {
        let examples = DATABASE.iter().flat_map(|meta| {
            let code = meta.country_code();
            let kinds = KINDS
                .into_iter()
                .filter_map(|kind| meta.descriptors().get(kind));
            let examples = kinds.filter_map(|descriptor| descriptor.example());
            examples.flat_map(move |example| {
                let prefixes = ["", "0", "00", "1", "8", "9", "15"].into_iter();
                prefixes
                    .chain(meta.national_prefix())
                    .map(move |prefix| format!("{code}{prefix}{example}"))
            })
        });
        let made = (1..1_000).flat_map(|code| {
            (0..100).flat_map(move |begin| {
                ["03", "345", "34567", "3456789", "345678901"]
                    .map(|end| format!("{code}{begin:02}{end}"))
            })
        });
        // Brazil: numbers with a trunk prefix and a carrier code. Argentina: numbers with a mobile
        // prefix after the area code, and numbers that only look like that.
        let inside = (1_000..1_100).flat_map(|end| {
            ["55015112000", "5411152000", "54235615"].map(|begin| format!("{begin}{end}"))
        });
        examples
            .chain(made)
            .chain(inside)
            .filter(|digits| (7..=15).contains(&digits.len()))
    }

    type Answer = Result<(Option<country::Id>, Type), Misread>;

    /// Returns the library's answer, corrected for two errors: the library strips leading zeros
    /// before it determines the kind, and accepts a number of which only the first digits match a
    /// pattern. In these cases the test matches the whole number against the library's plans.
    fn theirs(digits: &str) -> Answer {
        match phonenumber::parse(None, format!("+{digits}")) {
            Err(phonenumber::ParseError::InvalidCountryCode) => Err(Misread::NoCode),
            Ok(number) if digits == format!("{}{}", number.country().code(), number.national()) => {
                let code = number.country().code();
                let whole = as_it_is(code, &number.national().to_string());
                let kind = number.number_type(&DATABASE);
                let is_cut = number.national().zeros() > 0 || kind != whole.1;
                Ok(if is_cut {
                    whole
                } else {
                    (number.country().id(), kind)
                })
            }
            _ => Err(Misread::Otherwise),
        }
    }

    /// Cache of compiled patterns: the test checks 100,000 numbers.
    static WHOLE: Mutex<BTreeMap<String, Regex>> = Mutex::new(BTreeMap::new());

    fn as_it_is(code: u16, national: &str) -> (Option<country::Id>, Type) {
        let regions = DATABASE.region(&code).unwrap();
        let plans = regions.iter().filter_map(|region| match *region {
            "001" => DATABASE.by_code(&code)?.into_iter().next(),
            region => DATABASE.by_id(region),
        });
        let fits = |descriptor: &Descriptor| {
            let source = descriptor.national_number().as_str();
            let mut cache = WHOLE.lock().unwrap();
            let pattern = cache.entry(source.to_owned()).or_insert_with(|| {
                let pattern: String = source.split_whitespace().collect();
                Regex::new(&format!("^(?:{pattern})$")).unwrap()
            });
            descriptor.is_match(national) && pattern.is_match(national)
        };
        let is = |meta: &Metadata, kind| meta.descriptors().get(kind).is_some_and(fits);
        for meta in plans {
            let kind = if fits(meta.descriptors().general()) {
                match KINDS.into_iter().find(|kind| is(meta, *kind)) {
                    Some(Type::FixedLine) if is(meta, Type::Mobile) => Type::FixedLineOrMobile,
                    found => found.unwrap_or(Type::Unknown),
                }
            } else {
                Type::Unknown
            };
            let is_its = match meta.leading_digits() {
                _ if regions.len() == 1 => true,
                Some(leading) => {
                    let leading = format!("^(?:{})", leading.as_str());
                    Regex::new(&leading).unwrap().is_match(national)
                }
                None => kind != Type::Unknown,
            };
            if is_its {
                return (meta.id().parse().ok(), kind);
            }
        }
        (None, Type::Unknown)
    }

    #[test]
    fn every_answer_is_the_librarys() {
        // With the default capacity the library recompiles patterns for most of these numbers.
        DATABASE.cache().lock().unwrap().set_capacity(4_096);
        let (mut read, mut zeros, mut otherwise, mut unassigned) = (0, 0, 0, 0);
        for digits in numbers() {
            let ours = super::read(&digits).map(|reading| (reading.country, reading.kind));
            let theirs = theirs(&digits);
            // The library strips a prefix from some numbers that no plan lists; this module reports
            // such a number as unknown.
            let is_unlisted = theirs == Err(Misread::Otherwise)
                && ours.as_ref().is_ok_and(|(_, kind)| *kind == Type::Unknown);
            assert!(
                is_unlisted || ours == theirs,
                "{digits}: {ours:?} {theirs:?}"
            );
            match theirs {
                Ok(_) => read += 1,
                Err(Misread::Otherwise) => otherwise += 1,
                Err(Misread::NoCode) => unassigned += 1,
            }
            zeros += usize::from(theirs.is_ok() && national(&digits).unwrap().starts_with('0'));
        }
        assert!(
            read > 50_000 && zeros > 3_000 && otherwise > 5_000 && unassigned > 5_000,
            "{read} {zeros} {otherwise} {unassigned}"
        );
    }

    #[test]
    fn every_example_of_the_plans_is_of_its_kind_and_length() {
        let mut count = 0;
        for meta in DATABASE.iter() {
            for kind in KINDS {
                let descriptor = meta.descriptors().get(kind);
                let Some(example) = descriptor.and_then(|descriptor| descriptor.example()) else {
                    continue;
                };
                let digits = format!("{}{example}", meta.country_code());
                let Ok(reading) = super::read(&digits) else {
                    // Special numbers of +7, and VoIP numbers of Lithuania, begin with the trunk
                    // prefix of other numbers.
                    let is_reached = matches!(kind, Type::Mobile | Type::Voip | Type::FixedLine);
                    assert!(
                        !is_reached || digits.starts_with("37080"),
                        "{digits} {kind:?}"
                    );
                    continue;
                };
                let fits = reading.kind == kind || reading.kind == Type::FixedLineOrMobile;
                assert!(fits && reading.has_length, "{digits}: {reading:?}");
                count += 1;
            }
        }
        assert!(count > 900, "only {count}");
    }

    #[test]
    fn mobile_and_voip_numbers_of_every_plan_are_read_as_such() {
        let mut runner = TestRunner::deterministic();
        let (mut count, mut others) = (0, Vec::new());
        for meta in DATABASE.iter().filter(|meta| meta.id() != "001") {
            for kind in [Type::Mobile, Type::Voip] {
                let Some(descriptor) = meta.descriptors().get(kind) else {
                    continue;
                };
                let pattern = descriptor.national_number().as_str();
                let pattern: String = pattern.split_whitespace().collect();
                let numbers = string_regex(&pattern.replace("\\d", "[0-9]")).unwrap();
                for _ in 0..40 {
                    let national = numbers.new_tree(&mut runner).unwrap().current();
                    let digits = format!("{}{national}", meta.country_code());
                    // Lithuania dials 80 in front of other numbers, so these are ambiguous.
                    if !descriptor.is_match(&national) || digits.starts_with("37080") {
                        continue;
                    }
                    let reading = super::read(&digits);
                    count += 1;
                    let is_right = reading.is_ok_and(|reading| {
                        [Type::Mobile, Type::Voip, Type::FixedLineOrMobile].contains(&reading.kind)
                    });
                    if !is_right {
                        others.push(format!("{} {digits} {reading:?}", meta.id()));
                    }
                }
            }
        }
        assert!(count > 9_000, "only {count}");
        assert!(
            others.is_empty(),
            "{} of {count}: {others:#?}",
            others.len()
        );
    }

    #[test]
    fn every_pattern_compiles() {
        let mut count = 0;
        for plan in PLANS.values().flatten() {
            let kinds = plan.kinds.iter().map(|(_, numbers)| &numbers.pattern);
            let others = [&plan.leading, &plan.prefix.pattern].into_iter().flatten();
            for pattern in kinds.chain(others).chain([&plan.general.pattern]) {
                assert!(pattern.compiled().is_some(), "{}", pattern.source);
                count += 1;
            }
        }
        assert!(count > 1_000, "only {count}");
    }
}
