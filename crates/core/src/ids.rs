//! Names and ids. Each has a type, an alphabet and a maximum length, so that they cannot be
//! confused and cannot carry a separator into a key, a header or a log line.

use std::fmt;
use std::str::FromStr;

use data_encoding::Encoding;
use data_encoding_macro::new_encoding;
use serde::{Deserialize, Serialize};

use crate::{Entropy, EntropyError, Malformed, TraceId};

/// RFC 4648 base32 in lower case without padding: 5 bits a character, safe in URLs and keys.
const BASE32: Encoding = new_encoding! {
    symbols: "abcdefghijklmnopqrstuvwxyz234567",
};

/// Declares a name type: a string that was checked against a rule when it was parsed.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $max:literal, $accepts:expr, $rule:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Malformed;

            fn from_str(text: &str) -> Result<Self, Malformed> {
                let accepts: fn(char) -> bool = $accepts;
                if text.is_empty() || text.len() > $max || !text.chars().all(accepts) {
                    return Err(Malformed::new($rule));
                }
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = Malformed;

            fn try_from(text: String) -> Result<Self, Malformed> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

const fn is_slug(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_')
}

const fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~')
}

name!(
    /// A tenant: an application that requests codes.
    ServiceName, 32, is_slug,
    "a service name is 1 to 32 characters of a-z, 0-9, - and _"
);
name!(
    /// The purpose of a code (`login`, `enrol`, …).
    Purpose, 32, is_slug,
    "a purpose is 1 to 32 characters of a-z, 0-9, - and _"
);
name!(
    /// A configured SMS gateway or SMTP relay.
    ProviderName, 32, is_slug,
    "a provider name is 1 to 32 characters of a-z, 0-9, - and _"
);
name!(
    /// The id of a key of a [`crate::KeyRing`].
    KeyId, 16, is_slug,
    "a key id is 1 to 16 characters of a-z, 0-9, - and _"
);
name!(
    /// The id of one request to check a code. A repeat with the same id gets the stored answer.
    CheckId, 64, is_token,
    "a check_id is 1 to 64 characters of A-Z, a-z, 0-9, -, _, . and ~"
);
name!(
    /// The id of an event with which an auth service requests a code; it serves as idempotency key.
    RequestId, 128, |c| is_token(c) || matches!(c, ':' | '/' | '@' | '+' | '='),
    "a request id is 1 to 128 characters of A-Z, a-z, 0-9 and -_.~:/@+="
);
name!(
    /// The account a verification is for, as the calling service names it. Compared byte by byte:
    /// two spellings are two subjects. A subject is personal data and may hold any character except
    /// control characters, so stores see only its keyed hash.
    Subject, 256, |c| !c.is_control(),
    "a subject is 1 to 256 bytes of text without control characters"
);

impl Purpose {
    /// Returns `login`, the purpose of a request that names none.
    pub fn login() -> Self {
        Self("login".to_owned())
    }
}

/// A keyed hash of (service, subject), 80 bits. It is the Redis hash tag that keeps all keys of a
/// subject in one slot, and the first half of a verification id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SubjectTag([u8; 10]);

impl SubjectTag {
    /// Creates a tag from the first ten bytes of a keyed hash.
    pub const fn new(bytes: [u8; 10]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for SubjectTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32.encode(&self.0))
    }
}

/// A verification id: 16 characters of the subject's tag, then 16 random ones (80 bits), all of
/// `a-z2-7`. An id from outside is parsed, and so checked, before it becomes part of a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VerificationId(String);

const TAG_CHARS: usize = 16;
const ID_CHARS: usize = 32;

impl VerificationId {
    /// Draws a new id under `tag`.
    pub fn draw(tag: SubjectTag, entropy: &dyn Entropy) -> Result<Self, EntropyError> {
        let mut random = [0; 10];
        entropy.fill(&mut random)?;
        Ok(Self(format!("{tag}{}", BASE32.encode(&random))))
    }

    /// Returns the whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the part that all ids of one subject share: the hash tag of its keys.
    pub fn tag(&self) -> &str {
        &self.0[..TAG_CHARS]
    }

    /// Returns [`Self::tag`] as a value.
    pub fn subject_tag(&self) -> SubjectTag {
        let mut tag = [0; 10];
        // Decoding cannot fail: every id was drawn here or parsed, so it is in this alphabet.
        if let Ok(bytes) = BASE32.decode(self.tag().as_bytes())
            && bytes.len() == tag.len()
        {
            tag.copy_from_slice(&bytes);
        }
        SubjectTag(tag)
    }

    /// Returns the trace id of a request that brought none: the last 128 bits of the id.
    pub fn trace_id(&self) -> Option<TraceId> {
        let bytes = BASE32.decode(self.0.as_bytes()).ok()?;
        let bytes: [u8; 16] = bytes.get(4..20)?.try_into().ok()?;
        TraceId::new(bytes)
    }

    /// Returns the random part, which differs for every verification.
    pub fn own(&self) -> &str {
        &self.0[TAG_CHARS..]
    }
}

impl FromStr for VerificationId {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let fits = text.len() == ID_CHARS
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b));
        fits.then(|| Self(text.to_owned())).ok_or(Malformed::new(
            "a verification id is 32 characters of a-z and 2-7",
        ))
    }
}

impl TryFrom<String> for VerificationId {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<VerificationId> for String {
    fn from(id: VerificationId) -> Self {
        id.0
    }
}

impl fmt::Display for VerificationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of one send of a verification: `<verification id>-<send number>`. The same send always
/// has the same id, so that a repeated publish is recognized.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeliveryId {
    verification: VerificationId,
    send: u8,
}

impl DeliveryId {
    /// Creates the id of send number `send` (from 1) of `verification`.
    pub const fn new(verification: VerificationId, send: u8) -> Self {
        Self { verification, send }
    }

    /// Returns the verification that is sent.
    pub const fn verification(&self) -> &VerificationId {
        &self.verification
    }

    /// Returns the number of the send, from 1.
    pub const fn send(&self) -> u8 {
        self.send
    }

    /// Returns bytes that distinguish this delivery from others of its subject and recipient: the
    /// random bytes of the verification id, then the send number.
    pub fn own_bytes(&self) -> [u8; 11] {
        let mut bytes = [self.send; 11];
        let own = self.verification.own().as_bytes();
        // Decoding cannot fail: every id was drawn here or parsed, so it is in this alphabet.
        if let Ok(random) = BASE32.decode(own)
            && let Some(place) = bytes.get_mut(..random.len())
        {
            place.copy_from_slice(&random);
        }
        bytes
    }
}

impl FromStr for DeliveryId {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        const RULE: Malformed =
            Malformed::new("a delivery id is a verification id, - and a number");
        let (verification, send) = text.split_once('-').ok_or(RULE)?;
        let number: u8 = send.parse().map_err(|_| RULE)?;
        if number == 0 || number.to_string() != send {
            return Err(RULE);
        }
        Ok(Self {
            verification: verification.parse()?,
            send: number,
        })
    }
}

impl TryFrom<String> for DeliveryId {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<DeliveryId> for String {
    fn from(id: DeliveryId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.verification, self.send)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Fixed(u8);

    impl Entropy for Fixed {
        fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
            bytes.fill(self.0);
            Ok(())
        }
    }

    #[test]
    fn ids_begin_with_the_tag_of_their_subject() {
        let tag = SubjectTag::new([0xab; 10]);
        let id = VerificationId::draw(tag, &Fixed(0)).unwrap();
        assert_eq!(id.tag(), tag.to_string());
        assert_eq!(id.subject_tag(), tag);
        assert_eq!(id.own(), "aaaaaaaaaaaaaaaa");
        assert_eq!(id.as_str().parse(), Ok(id));
    }

    #[test]
    fn hostile_ids_are_refused() {
        for text in [
            "",
            "a",
            "{aaa}",
            "../../../etc/passwd",
            &"a".repeat(10_000),
            &"A".repeat(32),
        ] {
            assert!(text.parse::<VerificationId>().is_err(), "{text:.40}");
        }
        let id = "a".repeat(32);
        for send in ["", "0", "01", "256", "+1", "1 ", "x"] {
            assert!(
                format!("{id}-{send}").parse::<DeliveryId>().is_err(),
                "{send}"
            );
        }
        assert_eq!(format!("{id}-3").parse::<DeliveryId>().unwrap().send(), 3);
    }

    #[test]
    fn the_own_bytes_of_a_delivery_tell_verifications_and_sends_apart() {
        let own = |id: &str| id.parse::<DeliveryId>().unwrap().own_bytes();
        let tag = "q".repeat(16);
        let first = own(&format!("{tag}aaaaaaaaaaaaaaab-7"));
        assert_eq!(first, [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 7]);
        assert_ne!(own(&format!("{tag}aaaaaaaaaaaaaaac-7")), first);
        assert_ne!(own(&format!("{tag}aaaaaaaaaaaaaaab-8")), first);
    }

    #[test]
    fn hostile_names_are_refused() {
        for text in ["", "a\nb", "a\0", "a\u{85}", "\u{7f}", &"a".repeat(257)] {
            assert!(text.parse::<Subject>().is_err(), "{text:.40}");
        }
        for text in [
            "",
            "a:b",
            "{a}",
            "a\nb",
            "a\0",
            "a b",
            "ａ",
            &"a".repeat(129),
        ] {
            assert!(text.parse::<Purpose>().is_err(), "{text:.40}");
            assert!(text.parse::<ServiceName>().is_err(), "{text:.40}");
            assert!(text.parse::<CheckId>().is_err(), "{text:.40}");
        }
    }

    #[test]
    fn subjects_are_what_identity_providers_call_accounts() {
        for text in [
            "jane.doe+1@example.org",
            "557058:f58131cb-b67d-43c7-b30d-6b58d40bd077",
            "ug:3b9a7a1e-0f1c-4e46-8a4e-1f0d5d1f2a3b",
            "f:5e0a7d0b-5a51-4f0e-9f3c-0f6f0f1f7a11:jane",
            "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
            "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK",
            "https://id.example.org/users/42?x={y}",
            "CN=Jane Doe,OU=People,DC=example,DC=org",
            "auth0|5f7c8ec7c33c6c004bbafe82",
            "EXAMPLE\\jane",
            "jürgen",
            "jane doe",
            "山田",
            &"a".repeat(256),
        ] {
            assert!(text.parse::<Subject>().is_ok(), "{text}");
        }
    }
}
