//! Keyed hashes of values that must not be in the store in clear (subjects, recipients, slots), and
//! the digests by which codes are compared.

use std::net::{IpAddr, Ipv6Addr};

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use watchword_core::{
    Key, KeyRing, Locale, PhoneNumber, Purpose, Recipient, RequestId, ServiceName, ShortTag,
    Subject, SubjectTag, Variables, VerificationId,
};
use zeroize::Zeroizing;

use crate::store::{Digest, SlotKey};
use crate::vault::FallbackStep;

/// Keyed hashes under the index key, which stays the same for the life of an installation.
#[derive(Debug, Clone)]
pub struct Index {
    key: Key,
}

impl Index {
    /// Creates an index with `key`.
    pub const fn new(key: Key) -> Self {
        Self { key }
    }

    /// Returns the tag of a subject's keys.
    pub fn subject_tag(&self, service: &ServiceName, subject: &str) -> SubjectTag {
        tag(&mac(&self.key, &["subject", service.as_str(), subject]))
    }

    /// Returns the tags that `subject` may have. The subject may be a mailbox from a request that
    /// named no subject, and mailboxes are compared without regard to case.
    pub fn subject_tags(&self, service: &ServiceName, subject: &Subject) -> [SubjectTag; 2] {
        let text = Zeroizing::new(subject.as_str().to_ascii_lowercase());
        [
            self.subject_tag(service, subject.as_str()),
            self.subject_tag(service, &text),
        ]
    }

    /// Returns the tag of the keys that limit messages to one recipient.
    pub fn recipient_tag(&self, service: &ServiceName, recipient: &Recipient) -> SubjectTag {
        tag(&mac(
            &self.key,
            &["recipient", service.as_str(), &recipient.counted_as()],
        ))
    }

    /// Returns the tag of the counter of messages to numbers that differ only in their last four
    /// digits.
    pub fn number_block_tag(&self, service: &ServiceName, number: &PhoneNumber) -> SubjectTag {
        let digits = number.expose_digits();
        let block = &digits[..digits.len().saturating_sub(4)];
        tag(&mac(&self.key, &["block", service.as_str(), block]))
    }

    /// Returns the tag of the counter of messages for one client: its IPv4 address, or the /64
    /// network of its IPv6 address, because one client can use all addresses of that network.
    pub fn client_tag(&self, service: &ServiceName, address: IpAddr) -> SubjectTag {
        let client = match address.to_canonical() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).to_string()
            }
        };
        tag(&mac(&self.key, &["client", service.as_str(), &client]))
    }

    /// Returns whether `subject` is the tag of a named account. A request without a subject uses
    /// its recipient as the subject.
    pub fn names_subject(
        &self,
        service: &ServiceName,
        subject: SubjectTag,
        recipient: &Recipient,
    ) -> bool {
        subject != self.subject_tag(service, recipient.canonical())
    }

    /// Returns the tag of the key that remembers a request by event.
    pub fn request_tag(&self, service: &ServiceName, request: &RequestId) -> SubjectTag {
        tag(&mac(
            &self.key,
            &["request", service.as_str(), request.as_str()],
        ))
    }

    /// Returns a tag that distinguishes a recipient from others of the service.
    pub fn recipient_short(&self, service: &ServiceName, recipient: &Recipient) -> ShortTag {
        let channel = recipient.channel().as_str();
        ShortTag::of(&mac(
            &self.key,
            &["short", service.as_str(), channel, recipient.canonical()],
        ))
    }

    /// Returns a tag that distinguishes the variables of a message to the subject `tag` from
    /// others; `None` if there are none. The tag is keyed and bound to the subject, so that equal
    /// amounts of two subjects do not look equal in the store.
    pub(crate) fn variables(
        &self,
        service: &ServiceName,
        tag: &str,
        variables: &Variables,
    ) -> Option<ShortTag> {
        let values = variables.as_map();
        let mut parts = vec!["variables", service.as_str(), tag];
        parts.extend(values.iter().flat_map(|(name, value)| [&**name, &**value]));
        (!values.is_empty()).then(|| ShortTag::of(&mac(&self.key, &parts)))
    }

    /// Returns a tag that distinguishes the locale and fallback of a request for the subject `tag`
    /// from others; `None` if there is neither.
    pub(crate) fn details(
        &self,
        service: &ServiceName,
        tag: &str,
        locale: Option<&Locale>,
        fallback: &[FallbackStep],
    ) -> Option<ShortTag> {
        if locale.is_none() && fallback.is_empty() {
            return None;
        }
        let locale = locale.map(ToString::to_string).unwrap_or_default();
        let steps: Vec<_> = fallback
            .iter()
            .map(|step| (step.recipient.channel(), step.after_ms.to_string(), step))
            .collect();
        let mut parts = vec!["details", service.as_str(), tag, &locale];
        for (channel, after_ms, step) in &steps {
            parts.extend([channel.as_str(), after_ms, step.recipient.expose()]);
        }
        Some(ShortTag::of(&mac(&self.key, &parts)))
    }

    /// Returns the slot, in which at most one verification is live.
    pub fn slot(
        &self,
        service: &ServiceName,
        subject: &str,
        recipient: &Recipient,
        purpose: &Purpose,
    ) -> SlotKey {
        let parts = [
            "slot",
            service.as_str(),
            subject,
            recipient.channel().as_str(),
            recipient.canonical(),
            purpose.as_str(),
        ];
        SlotKey(HEXLOWER.encode(&mac(&self.key, &parts)[..16]))
    }
}

fn tag(hash: &[u8; 32]) -> SubjectTag {
    let mut bytes = [0; 10];
    bytes.copy_from_slice(&hash[..10]);
    SubjectTag::new(bytes)
}

/// Returns the digest of `code` for `id` under `key`. It is keyed because a code has too few values
/// for a plain hash: an attacker with a copy of the store could hash all of them in an instant.
pub fn digest(key: &Key, service: &ServiceName, id: &VerificationId, code: &str) -> Digest {
    let hash = mac(key, &["code", service.as_str(), id.as_str(), code]);
    Digest {
        key_id: key.id().to_string(),
        hex: HEXLOWER.encode(&hash),
    }
}

/// Returns the digests of `code` under every key of the ring, for a check during key rotation.
pub fn digests(
    keys: &KeyRing,
    service: &ServiceName,
    id: &VerificationId,
    code: &str,
) -> Vec<Digest> {
    keys.iter()
        .map(|key| digest(key, service, id, code))
        .collect()
}

/// Returns the HMAC-SHA-256 of the parts, each preceded by its length, so that no two lists produce
/// the same input.
fn mac(key: &Key, parts: &[&str]) -> [u8; 32] {
    // HMAC pads a shorter key with zeros to a full block (RFC 2104 section 2).
    let mut block = Zeroizing::new([0; 64]);
    block[..32].copy_from_slice(key.expose());
    let mut mac = Hmac::<Sha256>::new(&(*block).into());
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part.as_bytes());
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use watchword_core::Channel;

    use super::*;

    #[test]
    fn every_part_decides() {
        let index = Index::new(Key::new("i".parse().unwrap(), [1; 32]));
        let service = |name: &str| name.parse::<ServiceName>().unwrap();
        let to = Recipient::parse(Channel::Sms, "+4915112345678").unwrap();
        let (login, enrol) = (Purpose::login(), "enrol".parse::<Purpose>().unwrap());
        let slot = index.slot(&service("a"), "bc", &to, &login);
        assert_eq!(slot, index.slot(&service("a"), "bc", &to, &login));
        assert_ne!(slot, index.slot(&service("ab"), "c", &to, &login));
        assert_ne!(slot, index.slot(&service("a"), "bc", &to, &enrol));
        assert_ne!(
            index.subject_tag(&service("a"), "b"),
            index.subject_tag(&service("b"), "b")
        );
        let other = Index::new(Key::new("i".parse().unwrap(), [2; 32]));
        assert_ne!(slot, other.slot(&service("a"), "bc", &to, &login));
    }

    #[test]
    fn content_and_details_are_told_apart_and_none_is_none() {
        let index = Index::new(Key::new("i".parse().unwrap(), [1; 32]));
        let service = "a".parse::<ServiceName>().unwrap();
        let variables = |pairs: &[(&str, &str)]| {
            let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            let values = Variables::new(pairs.iter().map(pair).collect()).unwrap();
            index.variables(&service, "t", &values)
        };
        assert_eq!(variables(&[]), None);
        let all = [
            variables(&[("amount", "1"), ("payee", "x")]),
            variables(&[("amount", "1"), ("payee", "y")]),
            variables(&[("amount", "1x"), ("payee", "")]),
            variables(&[("amount", "1")]),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(one.is_some() && !all[..place].contains(one), "{place}");
        }
        let swapped = variables(&[("payee", "x"), ("amount", "1")]);
        assert_eq!(all[0], swapped, "the order does not count");

        let step = |to, after_ms| FallbackStep {
            recipient: Recipient::parse(Channel::Email, to).unwrap(),
            after_ms,
        };
        let locale = "de".parse::<Locale>().unwrap();
        let of = |locale, steps: &[FallbackStep]| index.details(&service, "t", locale, steps);
        assert_eq!(of(None, &[]), None);
        let all = [
            of(Some(&locale), &[]),
            of(None, &[step("a@example.org", 5_000)]),
            of(None, &[step("a@example.org", 6_000)]),
            of(None, &[step("b@example.org", 5_000)]),
            of(Some(&locale), &[step("b@example.org", 5_000)]),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(one.is_some() && !all[..place].contains(one), "{place}");
        }
    }

    #[test]
    fn a_mailbox_is_the_same_in_every_case() {
        let index = Index::new(Key::new("i".parse().unwrap(), [1; 32]));
        let service = "a".parse::<ServiceName>().unwrap();
        let at = |address| Recipient::parse(Channel::Email, address).unwrap();
        let of = |address| {
            let to = at(address);
            let slot = index.slot(&service, "b", &to, &Purpose::login());
            (slot, index.recipient_tag(&service, &to))
        };
        assert_eq!(of("Jane@Example.ORG"), of("jane@example.org"));
        // An address with another `+tag` has its own verification but shares the limit.
        let (tagged, plain) = (of("jane+1@example.org"), of("jane@example.org"));
        assert_ne!(tagged.0, plain.0);
        assert_eq!(tagged.1, plain.1);
    }

    #[test]
    fn numbers_and_clients_are_counted_by_block() {
        let index = Index::new(Key::new("i".parse().unwrap(), [1; 32]));
        let service = "a".parse::<ServiceName>().unwrap();
        let block = |text: &str| index.number_block_tag(&service, &text.parse().unwrap());
        assert_eq!(block("+4915112345678"), block("+4915112340000"));
        assert_ne!(block("+4915112345678"), block("+4915112355678"));
        let client = |text: &str| index.client_tag(&service, text.parse().unwrap());
        assert_eq!(client("2001:db8:1:2::1"), client("2001:db8:1:2:ffff::9"));
        assert_ne!(client("2001:db8:1:2::1"), client("2001:db8:1:3::1"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
        assert_ne!(client("192.0.2.2"), client("192.0.2.1"));
    }
}
