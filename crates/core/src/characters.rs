//! Character classes by Unicode general category.

use icu_properties::CodePointMapData;
use icu_properties::props::GeneralCategory;

const CATEGORIES: icu_properties::CodePointMapDataBorrowed<'static, GeneralCategory> =
    CodePointMapData::<GeneralCategory>::new();

/// Whether `c` is white space, a dash, a control or a format character.
pub fn is_separator(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            CATEGORIES.get(c),
            GeneralCategory::SpaceSeparator
                | GeneralCategory::LineSeparator
                | GeneralCategory::ParagraphSeparator
                | GeneralCategory::Control
                | GeneralCategory::Format
                | GeneralCategory::DashPunctuation
        )
}

/// Returns the ASCII digit with the value of `c`, if `c` is a decimal digit of any script.
pub fn decimal_digit(c: char) -> Option<char> {
    if c.is_ascii_digit() {
        return Some(c);
    }
    if !is_digit(u32::from(c)) {
        return None;
    }
    // Unicode keeps the ten digits of a script together and in order, from zero; the longest
    // contiguous run of decimal digits has five such sets.
    let before = (1..50).take_while(|back| is_digit(u32::from(c).saturating_sub(*back)));
    char::from_digit(u32::try_from(before.count()).ok()? % 10, 10)
}

fn is_digit(point: u32) -> bool {
    CATEGORIES.get32(point) == GeneralCategory::DecimalNumber
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_of_every_script_stand_in_runs_of_ten() {
        let (mut run, mut digits) = (0, 0);
        for point in 0..=0x11_0000 {
            if is_digit(point) {
                let digit = decimal_digit(char::from_u32(point).unwrap()).unwrap();
                assert_eq!(digit.to_digit(10), Some(run % 10), "{point:x}");
                run += 1;
                digits += 1;
            } else {
                assert_eq!(run % 10, 0, "before {point:x}");
                assert!(run <= 50, "before {point:x}");
                run = 0;
            }
        }
        assert!(digits > 600, "only {digits}");
        assert_eq!(decimal_digit('٩'), Some('9'));
        assert_eq!(decimal_digit('²'), None);
    }
}
