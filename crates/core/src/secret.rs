//! Secrets in memory. They cannot be printed or serialized and are wiped when dropped; strings
//! compare in constant time.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{KeyId, Malformed};

/// A password, a token, or a URL that contains a password.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretString(String);

impl SecretString {
    /// Wraps `text` as a secret.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns the secret, for the call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretString(…)")
    }
}

impl PartialEq for SecretString {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

/// A 256-bit key with an id that distinguishes it from its predecessors.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Key {
    #[zeroize(skip)]
    id: KeyId,
    bytes: [u8; 32],
}

impl Key {
    /// Creates a key of exactly 32 bytes.
    pub const fn new(id: KeyId, bytes: [u8; 32]) -> Self {
        Self { id, bytes }
    }

    /// Returns the id of the key.
    pub const fn id(&self) -> &KeyId {
        &self.id
    }

    /// Returns the key's bytes, for the cipher or MAC.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.bytes
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// Keys in use at the same time: the first one seals or signs, all of them open or verify.
///
/// To rotate, put the new key first and keep the old one until everything made with it has expired.
#[derive(Debug, Clone)]
pub struct KeyRing {
    keys: Vec<Key>,
}

impl KeyRing {
    /// Creates a ring of 1 to 8 keys with distinct ids.
    pub fn new(keys: Vec<Key>) -> Result<Self, Malformed> {
        if keys.is_empty() || keys.len() > 8 {
            return Err(Malformed::new("a key ring has 1 to 8 keys"));
        }
        let distinct: std::collections::HashSet<_> = keys.iter().map(Key::id).collect();
        if distinct.len() != keys.len() {
            return Err(Malformed::new("key ids must differ"));
        }
        Ok(Self { keys })
    }

    /// Returns the key that seals or signs.
    pub fn first(&self) -> &Key {
        &self.keys[0]
    }

    /// Returns the key with that id, if the ring has it.
    pub fn get(&self, id: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.id().as_str() == id)
    }

    /// Iterates over all keys, in the order in which they are configured.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> Key {
        Key::new(id.parse().unwrap(), [7; 32])
    }

    #[test]
    fn secrets_do_not_print() {
        let shown = format!("{:?} {:?}", SecretString::new("hunter2".into()), key("k1"));
        assert_eq!(shown, "SecretString(…) Key(k1)");
    }

    #[test]
    fn a_ring_has_distinct_keys_and_at_least_one() {
        assert!(KeyRing::new(vec![]).is_err());
        assert!(KeyRing::new(vec![key("a"), key("a")]).is_err());
        let ring = KeyRing::new(vec![key("b"), key("a")]).unwrap();
        assert_eq!(ring.first().id().as_str(), "b");
        assert!(ring.get("a").is_some() && ring.get("c").is_none());
    }
}
