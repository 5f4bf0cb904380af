//! The first bytes of a keyed hash: enough to distinguish two values of one subject.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use crate::Malformed;

/// The first 64 bits of a keyed hash of a recipient or of a message's variables. Its text form is
/// hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ShortTag([u8; 8]);

impl ShortTag {
    /// The tag of a record that an earlier build stored without one.
    pub const NONE: Self = Self([0; 8]);

    /// Returns the tag of `hash`: its first eight bytes.
    pub const fn of(hash: &[u8; 32]) -> Self {
        let (start, _) = hash.as_chunks::<8>();
        Self(start[0])
    }

    /// Returns the tag with these bytes, or `None` unless there are eight.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().map(Self).ok()
    }

    /// Returns the bytes of the tag.
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl FromStr for ShortTag {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::new("a tag is 16 hexadecimal digits");
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| malformed())?;
        bytes.try_into().map(Self).map_err(|_| malformed())
    }
}

impl TryFrom<String> for ShortTag {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<ShortTag> for String {
    fn from(tag: ShortTag) -> Self {
        tag.to_string()
    }
}

impl fmt::Display for ShortTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_round_trips_as_text_and_nothing_else_is_read() {
        let tag = ShortTag::of(&[0xab; 32]);
        assert_eq!(tag.to_string().parse(), Ok(tag));
        for text in [
            "",
            "ab",
            "abababababababab00",
            "ABABABABABABABAB",
            "zbababababababab",
        ] {
            assert!(text.parse::<ShortTag>().is_err(), "{text}");
        }
    }
}
