//! The numbering plans of libphonenumber, asked what a number in E.164 is: whether they read it as it
//! stands, which country it is of, what kind of line. The data is the library's; the questions are ours,
//! because the library reads what people write and keeps 100 compiled patterns for the whole world, under one
//! lock: with numbers of some twenty countries in turn it compiles them anew for each, milliseconds a number.
//! Here a pattern is compiled once, and for ASCII digits, which is all that a number has. A test holds
//! every answer to the library's. Refuses to say what a number should have been.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

use phonenumber::metadata::{DATABASE, Descriptor, Metadata};
use phonenumber::{Type, country};
use regex::{Regex, RegexBuilder};

/// Digits of the longest calling code.
const LONGEST_CODE: usize = 3;

/// What the library tries, in its order.
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

/// The plans of each calling code, the main country's first.
static PLANS: LazyLock<HashMap<u16, Vec<Plan>>> = LazyLock::new(|| {
    let mut plans = HashMap::<u16, Vec<Plan>>::new();
    for code in 1..1_000 {
        let regions = DATABASE.region(&code).unwrap_or_default();
        let found = regions.iter().filter_map(|region| match *region {
            // Of no country: the plan is that of the code.
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

/// What the plans know of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The country, if it is one's.
    pub country: Option<country::Id>,
    /// The kind of line.
    pub kind: Type,
}

/// Why a number is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misread {
    /// Its first digits are nobody's calling code.
    NoCode,
    /// The plans take it for another: they would take a national prefix out of it.
    Otherwise,
}

/// The numbers of one country, or of a calling code that has none.
struct Plan {
    country: Option<country::Id>,
    leading: Option<Pattern>,
    general: Numbers,
    kinds: Vec<(Type, Numbers)>,
    prefix: Prefix,
}

/// What is dialled in front of a number inside its country.
struct Prefix {
    plain: Option<&'static str>,
    pattern: Option<Pattern>,
    /// What takes the place of what the pattern finds, if that is not nothing.
    replacement: Option<&'static str>,
}

/// Numbers of one kind.
struct Numbers {
    lengths: &'static [u16],
    pattern: Pattern,
}

/// A pattern, compiled when it is first asked.
struct Pattern {
    source: &'static str,
    compiled: OnceLock<Option<Regex>>,
}

/// Reads the digits of a number in E.164.
pub fn read(digits: &str) -> Result<Reading, Misread> {
    let lengths = 1..=LONGEST_CODE.min(digits.len());
    let known = lengths.filter_map(|length| {
        let (code, national) = digits.split_at(length);
        Some((PLANS.get(&code.parse().ok()?)?, national))
    });
    let (plans, national) = known.into_iter().next().ok_or(Misread::NoCode)?;
    // The plans compare without the zeros in front.
    let compared = national.trim_start_matches('0');
    if compared.is_empty() {
        return Err(Misread::Otherwise);
    }
    let Some((plan, kind)) = belongs(plans, compared) else {
        return Ok(Reading {
            country: None,
            kind: Type::Unknown,
        });
    };
    if plan.takes_for_another(national) {
        return Err(Misread::Otherwise);
    }
    Ok(Reading {
        country: plan.country,
        kind,
    })
}

/// Whose number it is among those who share a calling code, and its kind.
fn belongs<'a>(plans: &'a [Plan], national: &str) -> Option<(&'a Plan, Type)> {
    if let [only] = plans {
        return Some((only, only.kind(national)));
    }
    plans.iter().find_map(|plan| match &plan.leading {
        Some(leading) => leading
            .begins(national)
            .then(|| (plan, plan.kind(national))),
        None => Some((plan, plan.kind(national))).filter(|(_, kind)| *kind != Type::Unknown),
    })
}

impl Plan {
    fn new(meta: &'static Metadata) -> Self {
        let numbers = |kind| Some((kind, Numbers::new(meta.descriptors().get(kind)?)));
        Self {
            country: meta.id().parse().ok(),
            leading: meta
                .leading_digits()
                .map(|pattern| Pattern::new(pattern.as_str())),
            general: Numbers::new(meta.descriptors().general()),
            kinds: KINDS.into_iter().filter_map(numbers).collect(),
            prefix: Prefix::new(meta),
        }
    }

    /// Whether the library would take a national prefix out of `national`.
    fn takes_for_another(&self, national: &str) -> bool {
        let mut left = self.prefix.without_pattern(national, &self.general);
        if let Some(rest) = self.prefix.plain.and_then(|plain| left.strip_prefix(plain)) {
            left = Cow::Owned(rest.to_owned());
        }
        left != national
    }

    /// The kind of line that `national` is.
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

    /// `national` without what the pattern finds at its begin.
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
            pattern: Pattern::new(descriptor.national_number().as_str()),
        }
    }

    fn hold(&self, national: &str) -> bool {
        let fits = |length: &u16| usize::from(*length) == national.len();
        (self.lengths.is_empty() || self.lengths.iter().any(fits)) && self.pattern.begins(national)
    }
}

impl Pattern {
    const fn new(source: &'static str) -> Self {
        Self {
            source,
            compiled: OnceLock::new(),
        }
    }

    /// Whether `national` begins with it.
    fn begins(&self, national: &str) -> bool {
        self.compiled()
            .is_some_and(|regex| regex.is_match(national))
    }

    fn compiled(&self) -> Option<&Regex> {
        let compiled = self.compiled.get_or_init(|| {
            RegexBuilder::new(&format!("^(?:{})", self.source))
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
    use super::*;

    /// Numbers of every calling code, the examples of every plan, and both with what is dialled in front.
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
        // With a trunk prefix and a carrier in Brazil; in Argentina with a mobile prefix behind the area, and
        // numbers that look as if they had one.
        let inside = (1_000..1_100).flat_map(|end| {
            ["55015112000", "5411152000", "54235615"].map(|begin| format!("{begin}{end}"))
        });
        examples
            .chain(made)
            .chain(inside)
            .filter(|digits| (7..=15).contains(&digits.len()))
    }

    #[test]
    fn every_answer_is_the_librarys() {
        // Otherwise it compiles its patterns anew for each of these.
        DATABASE.cache().lock().unwrap().set_capacity(4_096);
        let (mut read, mut otherwise, mut nobodys) = (0, 0, 0);
        for digits in numbers() {
            let theirs = match phonenumber::parse(None, format!("+{digits}")) {
                Err(phonenumber::ParseError::InvalidCountryCode) => Err(Misread::NoCode),
                Ok(number)
                    if digits == format!("{}{}", number.country().code(), number.national()) =>
                {
                    // As it is asked for a number's type, without zeros in front.
                    Ok(Reading {
                        country: number.country().id(),
                        kind: number.number_type(&DATABASE),
                    })
                }
                _ => Err(Misread::Otherwise),
            };
            assert_eq!(super::read(&digits), theirs, "{digits}");
            match theirs {
                Ok(_) => read += 1,
                Err(Misread::Otherwise) => otherwise += 1,
                Err(Misread::NoCode) => nobodys += 1,
            }
        }
        assert!(
            read > 50_000 && otherwise > 5_000 && nobodys > 5_000,
            "{read} {otherwise} {nobodys}"
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
