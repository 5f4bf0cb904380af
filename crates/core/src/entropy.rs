//! Randomness as a parameter. Refuses to choose a generator: the binary hands in the system's.

use std::fmt;

/// The random source did not deliver. Nothing secret may be made without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random generator failed")]
pub struct EntropyError;

/// A cryptographically secure source of random bytes.
pub trait Entropy: Send + Sync + fmt::Debug {
    /// Fills `bytes` with random ones.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError>;
}
