//! API keys stored as SHA-256 hashes: finds the owner of a key without keeping the key.

use data_encoding::HEXLOWER_PERMISSIVE;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Map from the SHA-256 of a key to its owner.
#[derive(Debug)]
pub struct HashedKeys<T>(Vec<([u8; 32], T)>);

impl<T> Default for HashedKeys<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> HashedKeys<T> {
    /// Adds the key with this hash, 64 hexadecimal digits.
    ///
    /// # Errors
    ///
    /// The message says what is wrong with the hash and how to make one.
    pub fn add(&mut self, hash: &str, owner: T) -> Result<(), &'static str> {
        let bytes = HEXLOWER_PERMISSIVE.decode(hash.as_bytes()).ok();
        let hash = bytes
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .ok_or(
                "must be 64 hexadecimal digits: the SHA-256 of the key. Make a key with `openssl rand -hex 24` and \
                 hash it with `printf %s KEY | sha256sum`; or let `watchword init` do both",
            )?;
        if self.0.iter().any(|(other, _)| *other == hash) {
            return Err("is in use already");
        }
        self.0.push((hash, owner));
        Ok(())
    }

    /// Returns the owner of `key`. Compares every known hash, each in constant time.
    pub fn find(&self, key: &str) -> Option<&T> {
        let hash: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        self.0.iter().fold(None, |found, (known, owner)| {
            if bool::from(known.ct_eq(&hash)) {
                Some(owner)
            } else {
                found
            }
        })
    }

    /// Whether no key was added.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_hash_and_added_once() {
        // `printf %s abc | sha256sum`
        const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let mut keys = HashedKeys::default();
        assert!(keys.is_empty());
        assert_eq!(keys.add(ABC, 1), Ok(()));
        assert_eq!(keys.add(&ABC.to_uppercase(), 2), Err("is in use already"));
        for malformed in ["", "ab", &ABC[1..], &format!("{ABC}00"), &"g".repeat(64)] {
            let refused = keys.add(malformed, 3).unwrap_err();
            assert!(
                refused.starts_with("must be 64 hexadecimal digits"),
                "{malformed}"
            );
        }
        assert_eq!(keys.find("abc"), Some(&1));
        for wrong in ["", "ABC", "abc ", ABC] {
            assert_eq!(keys.find(wrong), None, "{wrong}");
        }
    }
}
