//! Randomness as a parameter. The binary passes in the system's generator.

use std::fmt;

/// The random generator failed. Callers must not create secrets without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random generator failed")]
pub struct EntropyError;

/// A cryptographically secure source of random bytes.
pub trait Entropy: Send + Sync + fmt::Debug {
    /// Fills `bytes` with random bytes.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError>;
}
