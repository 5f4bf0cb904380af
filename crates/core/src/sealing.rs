//! The seal on codes and recipients: XChaCha20-Poly1305 with keys that have ids. The clear fields
//! around the secret are bound to it as associated data, so an event that was edited, moved to
//! another channel or given more time does not open.

use std::sync::Arc;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use crate::{Entropy, EntropyError, Key, KeyRing};

/// The content of an opened seal; wiped when dropped.
pub type Unsealed = Zeroizing<Vec<u8>>;

const NONCE_BYTES: usize = 24;
/// Capacity for the associated data of a usual send order, including the key id.
const USUAL_AAD: usize = 192;

/// Error of sealing or opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// This process has no key with that id.
    #[error("the sealing key is not in use here")]
    UnknownKey,
    /// The content or its associated data was changed, or the bytes are not sealed content.
    #[error("the seal is broken")]
    Broken,
    /// The random generator failed.
    #[error(transparent)]
    Entropy(#[from] EntropyError),
}

/// Associated data: a list of parts, each with its length in front, so that two different lists
/// never give the same bytes.
#[derive(Debug, Default)]
pub struct Aad(Vec<u8>);

impl Aad {
    /// Starts with `domain`, which separates the uses of a key.
    pub fn new(domain: &'static str) -> Self {
        Self(Vec::with_capacity(USUAL_AAD)).with(domain)
    }

    /// Appends one part.
    #[must_use]
    pub fn with(mut self, part: &str) -> Self {
        self.0.extend_from_slice(&(part.len() as u64).to_be_bytes());
        self.0.extend_from_slice(part.as_bytes());
        self
    }
}

/// Seals with the first key of a ring and opens with any of them.
#[derive(Debug, Clone)]
pub struct Sealer {
    keys: KeyRing,
    entropy: Arc<dyn Entropy>,
}

impl Sealer {
    /// Creates a sealer over `keys` that draws nonces from `entropy`.
    pub fn new(keys: KeyRing, entropy: Arc<dyn Entropy>) -> Self {
        Self { keys, entropy }
    }

    /// Returns the id of the key that seals now. Store it with the sealed content: [`Self::open`]
    /// needs it.
    pub fn key_id(&self) -> &str {
        self.keys.first().id().as_str()
    }

    /// Seals `plaintext`, bound to `aad` and to the key's id. Returns nonce and ciphertext.
    pub fn seal(&self, aad: Aad, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let key = self.keys.first();
        let mut nonce = [0; NONCE_BYTES];
        self.entropy.fill(&mut nonce)?;
        let aad = aad.with(key.id().as_str()).0;
        let sealed = cipher(key)
            .encrypt(
                &XNonce::from(nonce),
                Payload {
                    msg: plaintext,
                    aad: &aad,
                },
            )
            .map_err(|_| SealError::Broken)?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// Opens the result of [`Sealer::seal`] with the key `key_id`.
    pub fn open(&self, key_id: &str, aad: Aad, sealed: &[u8]) -> Result<Unsealed, SealError> {
        let key = self.keys.get(key_id).ok_or(SealError::UnknownKey)?;
        let (nonce, sealed) = sealed
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or(SealError::Broken)?;
        let aad = aad.with(key_id).0;
        cipher(key)
            .decrypt(
                &XNonce::from(*nonce),
                Payload {
                    msg: sealed,
                    aad: &aad,
                },
            )
            .map(Zeroizing::new)
            .map_err(|_| SealError::Broken)
    }
}

fn cipher(key: &Key) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.expose().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Counter(std::sync::atomic::AtomicU8);

    impl Entropy for Counter {
        fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
            bytes.fill(self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
            Ok(())
        }
    }

    fn sealer(ids: &[&str]) -> Sealer {
        let keys = ids
            .iter()
            .map(|id| Key::new(id.parse().unwrap(), [id.as_bytes()[1]; 32]))
            .collect();
        Sealer::new(KeyRing::new(keys).unwrap(), Arc::new(Counter(0.into())))
    }

    fn aad() -> Aad {
        Aad::new("test").with("a").with("bc")
    }

    #[test]
    fn what_is_sealed_opens_also_after_rotation() {
        let sealed = sealer(&["k1"]).seal(aad(), b"secret").unwrap();
        assert_eq!(
            *sealer(&["k2", "k1"]).open("k1", aad(), &sealed).unwrap(),
            b"secret"
        );
        assert_eq!(
            sealer(&["k2"]).open("k1", aad(), &sealed),
            Err(SealError::UnknownKey)
        );
    }

    #[test]
    fn no_nonce_is_used_twice() {
        let sealer = sealer(&["k1"]);
        assert_ne!(sealer.seal(aad(), b"secret"), sealer.seal(aad(), b"secret"));
    }

    #[test]
    fn every_flipped_bit_and_every_other_binding_breaks_the_seal() {
        let sealer = sealer(&["k1", "k2"]);
        let sealed = sealer.seal(aad(), b"secret").unwrap();
        for byte in 0..sealed.len() {
            let mut forged = sealed.clone();
            forged[byte] ^= 1;
            assert_eq!(sealer.open("k1", aad(), &forged), Err(SealError::Broken));
        }
        let other = Aad::new("test").with("ab").with("c");
        assert_eq!(sealer.open("k1", other, &sealed), Err(SealError::Broken));
        assert_eq!(sealer.open("k2", aad(), &sealed), Err(SealError::Broken));
        assert_eq!(
            sealer.open("k1", aad(), &sealed[..20]),
            Err(SealError::Broken)
        );
    }
}
