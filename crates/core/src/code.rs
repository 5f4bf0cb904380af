//! Codes: drawn uniformly at random, and as typed by a person. Their `Debug` form hides the digits.

use std::fmt;
use std::str::FromStr;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{Entropy, EntropyError, Malformed, characters};

/// The number of digits of a code: 6 to 10, default 6 (NIST SP 800-63B §3.1.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeLength(u8);

impl CodeLength {
    /// Creates a length of `digits`.
    pub const fn new(digits: u8) -> Result<Self, Malformed> {
        if digits < 6 || digits > 10 {
            return Err(Malformed::new("a code has 6 to 10 digits"));
        }
        Ok(Self(digits))
    }

    /// Returns the number of digits.
    pub const fn digits(self) -> u8 {
        self.0
    }
}

impl Default for CodeLength {
    fn default() -> Self {
        Self(6)
    }
}

/// A code in clear. It exists only in the memory of issuer and worker and in the message.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Code(String);

impl Code {
    /// Draws a code uniformly from all strings of `length` digits, including leading zeros.
    pub fn draw(length: CodeLength, entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        let codes = 10_u64.pow(u32::from(length.digits()));
        // Reject values from the last, incomplete run of `codes`: they would favor small codes.
        let fair = u64::MAX - u64::MAX % codes;
        loop {
            let mut bytes = [0; 8];
            entropy.fill(&mut bytes)?;
            let value = u64::from_le_bytes(bytes);
            bytes.zeroize();
            if value < fair {
                let width = usize::from(length.digits());
                return Ok(Self(format!("{:0width$}", value % codes)));
            }
        }
    }

    /// Returns the digits, for the digest, the seal and the message.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Code {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        if !(6..=10).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Malformed::new("a code has 6 to 10 digits"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(…)")
    }
}

/// A code as a person typed or pasted it: 4 to 10 digits of any script, after white space, dashes
/// and invisible characters are removed (`123 456`, a trailing line feed, a leading direction
/// mark). A code that is shorter or longer than the right one is wrong.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct TypedCode(String);

/// Maximum length of the input in bytes: ten digits of four bytes each, and room for separators.
const LONGEST_TYPED: usize = 128;

impl TypedCode {
    /// Returns the digits in ASCII, for the digest.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for TypedCode {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        const RULE: Malformed = Malformed::new("a code is a string of 4 to 10 digits");
        if text.len() > LONGEST_TYPED {
            return Err(RULE);
        }
        // Reserve all capacity first: growing would leave a copy of a part of the code in memory.
        let mut code = Self(String::with_capacity(LONGEST_TYPED));
        for c in text.chars().filter(|c| !characters::is_separator(*c)) {
            code.0.push(characters::decimal_digit(c).ok_or(RULE)?);
        }
        if !(4..=10).contains(&code.0.len()) {
            return Err(RULE);
        }
        Ok(code)
    }
}

impl fmt::Debug for TypedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TypedCode(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A deterministic generator (`SplitMix64`), so that the statistical test does not flake.
    #[derive(Debug)]
    struct SplitMix(Mutex<u64>);

    impl Entropy for SplitMix {
        fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
            let mut state = self.0.lock().unwrap();
            for chunk in bytes.chunks_mut(8) {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = *state;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
            }
            Ok(())
        }
    }

    #[test]
    fn codes_are_uniform_in_every_place_and_keep_leading_zeros() {
        let entropy = SplitMix(Mutex::new(1));
        let length = CodeLength::default();
        let (draws, mut counts) = (1_000_000_u32, [[0_u32; 10]; 6]);
        for _ in 0..draws {
            let code = Code::draw(length, &entropy).unwrap();
            for (place, digit) in code.expose().bytes().enumerate() {
                counts[place][usize::from(digit - b'0')] += 1;
            }
        }
        let expected = f64::from(draws) / 10.0;
        for place in counts {
            let chi_square: f64 = place
                .iter()
                .map(|&n| (f64::from(n) - expected).powi(2) / expected)
                .sum();
            // 9 degrees of freedom: a fair generator exceeds 27.9 once in a thousand runs.
            assert!(chi_square < 27.9, "{chi_square} {place:?}");
        }
    }

    #[test]
    fn a_value_from_the_unfair_rest_is_drawn_again() {
        #[derive(Debug)]
        struct TopThenSeven(Mutex<bool>);
        impl Entropy for TopThenSeven {
            fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
                let mut first = self.0.lock().unwrap();
                let value = if *first { u64::MAX } else { 7 };
                *first = false;
                bytes.copy_from_slice(&value.to_le_bytes());
                Ok(())
            }
        }
        let code = Code::draw(CodeLength::default(), &TopThenSeven(Mutex::new(true))).unwrap();
        assert_eq!(code.expose(), "000007");
    }

    #[test]
    fn lengths_outside_six_to_ten_are_refused() {
        for digits in [0, 4, 5, 11, 255] {
            assert!(CodeLength::new(digits).is_err());
        }
    }

    #[test]
    fn typed_codes_lose_what_is_not_seen() {
        for text in [
            "123456",
            "123 456",
            "123-456",
            " 1 2 3 4 5 6 ",
            "123456\n",
            "123456\r\n",
            "\t123456",
            "123\u{a0}456",
            "123\u{202f}456",
            "\u{3000}123456",
            "1\u{200b}23456",
            "\u{feff}123456",
            "\u{200e}123456",
            "\u{2066}123456\u{2069}",
            "123\u{2013}456",
            "123\u{2011}456",
            "123\u{2028}456\0",
            "١٢٣٤٥٦",
            "۱۲۳۴۵۶",
            "१२३४५६",
            "１２３４５６",
            "１２３－４５６",
            "\u{1d7cf}\u{1d7d0}\u{1d7d1}\u{1d7e6}\u{1d7e7}\u{1d7e8}",
        ] {
            let typed = text.parse::<TypedCode>();
            assert_eq!(typed.unwrap().expose(), "123456", "{text:?}");
        }
        assert_eq!("012-345".parse::<TypedCode>().unwrap().expose(), "012345");
    }

    #[test]
    fn what_holds_anything_but_digits_is_no_typed_code() {
        for text in [
            "",
            "123",
            "12345678901",
            "12345a",
            "123456.",
            "#123456",
            "12345O",
            "12345²",
            "12345五",
            "1234½",
            "123+456",
            &" ".repeat(99),
            &format!("{}123456", " ".repeat(128)),
        ] {
            assert!(text.parse::<TypedCode>().is_err(), "{text:?}");
        }
        assert_eq!(
            format!("{:?}", "123456".parse::<TypedCode>().unwrap()),
            "TypedCode(…)"
        );
        assert_eq!(
            format!("{:?}", "123456".parse::<Code>().unwrap()),
            "Code(…)"
        );
    }
}
