#![doc = include_str!("../README.md")]

pub mod audit;
pub mod http;
mod index;
mod opener;
mod opening;
pub mod store;
mod telemetry;
mod vault;
mod verifier;

pub use index::Index;
pub use opener::{OpenRequest, Opener};
pub use opening::{Asked, Change, Further, Message, NextStep, Opening};
pub use telemetry::{SERIES, VerifierMetrics};
pub use vault::{FallbackStep, VaultError};
pub use verifier::{CheckRequest, Verifier, VerifierError, VerifierParts};

/// Internals exposed for benchmarks only. Not part of the API.
#[doc(hidden)]
pub mod measured {
    pub use crate::index::{digest, digests};
    pub use crate::vault::{open_code, seal_code};
}
