//! The numbering plans of libphonenumber, asked for a number's country and kind of line. The data is
//! the library's; the questions are ours, because the library keeps 100 compiled patterns for the whole
//! world: with numbers of some twenty countries in turn it compiles them anew for each, milliseconds a number.
//! Here a pattern is compiled once, and for ASCII digits, which is all that a number has. Refuses to say
//! what a number is.

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

use phonenumber::metadata::{DATABASE, Descriptor, Metadata};
use phonenumber::{Type, country};
use regex::{Regex, RegexBuilder};

/// Patterns the library keeps for what it is still asked, which is how a number is read: two a
/// calling code at most, and there are 215.
const KEPT_PATTERNS: usize = 512;

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

/// The numbers of one country, or of a calling code that has none.
pub struct Plan {
    country: Option<country::Id>,
    leading: Option<Pattern>,
    general: Numbers,
    kinds: Vec<(Type, Numbers)>,
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

/// Lets the library keep what it needs to read the numbers of every country.
pub fn prepare() {
    static PREPARED: OnceLock<()> = OnceLock::new();
    PREPARED.get_or_init(|| {
        if let Ok(mut kept) = DATABASE.cache().lock() {
            kept.set_capacity(KEPT_PATTERNS);
        }
    });
}

/// The digits behind the calling code as the library compares them: without zeros before them.
pub fn national(digits: &str) -> &str {
    let begin = digits.find(|digit| digit != '0');
    &digits[begin.unwrap_or(digits.len().saturating_sub(1))..]
}

/// The plan that `national` of the calling code belongs to.
pub fn plan(code: u16, national: &str) -> Option<&'static Plan> {
    let plans = PLANS.get(&code)?;
    if let [only] = plans.as_slice() {
        return Some(only);
    }
    plans.iter().find(|plan| match &plan.leading {
        Some(leading) => leading.begins(national),
        None => plan.kind(national) != Type::Unknown,
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
        }
    }

    /// The country, if it is one's.
    pub const fn country(&self) -> Option<country::Id> {
        self.country
    }

    /// The kind of line that `national` is.
    pub fn kind(&self, national: &str) -> Type {
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
        let compiled = self.compiled.get_or_init(|| {
            RegexBuilder::new(&format!("^(?:{})", self.source))
                .ignore_whitespace(true)
                .unicode(false)
                .build()
                .ok()
        });
        compiled
            .as_ref()
            .is_some_and(|regex| regex.is_match(national))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of every calling code, and the examples of every plan.
    fn numbers() -> impl Iterator<Item = String> {
        let examples = DATABASE.iter().flat_map(|meta| {
            let code = meta.country_code();
            let kinds = KINDS
                .into_iter()
                .filter_map(|kind| meta.descriptors().get(kind));
            let examples = kinds.filter_map(|descriptor| descriptor.example());
            examples.map(move |example| format!("+{code}{example}"))
        });
        let made = (1..1_000).flat_map(|code| {
            (10..100).flat_map(move |begin| {
                ["3", "34567", "3456789", "345678901"].map(|end| format!("+{code}{begin}{end}"))
            })
        });
        examples.chain(made)
    }

    #[test]
    fn country_and_kind_are_what_the_library_says() {
        prepare();
        let mut count = 0;
        for text in numbers() {
            let Ok(read) = phonenumber::parse(None, &text) else {
                continue;
            };
            let code = read.country().code();
            if text != format!("+{code}{}", read.national()) {
                continue;
            }
            let national = national(&text[1 + code.to_string().len()..]);
            let plan = plan(code, national);
            let ours = (
                plan.and_then(Plan::country),
                plan.map_or(Type::Unknown, |plan| plan.kind(national)),
            );
            assert_eq!(
                ours,
                (read.country().id(), read.number_type(&DATABASE)),
                "{text}"
            );
            count += 1;
        }
        assert!(count > 50_000, "only {count} numbers");
    }

    #[test]
    fn every_pattern_compiles() {
        let mut count = 0;
        for plan in PLANS.values().flatten() {
            let kinds = plan.kinds.iter().map(|(_, numbers)| numbers);
            for numbers in kinds.chain([&plan.general]) {
                numbers.pattern.begins("1");
                assert!(numbers.pattern.compiled.get().unwrap().is_some());
                count += 1;
            }
        }
        assert!(count > 900, "only {count}");
    }
}
