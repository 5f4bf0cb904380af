#![doc = include_str!("../README.md")]

pub mod audit;
pub mod http;
mod index;
pub mod store;
mod telemetry;
mod vault;
mod verifier;

pub use index::Index;
pub use telemetry::{SERIES, VerifierMetrics};
pub use vault::{FallbackStep, VaultError};
pub use verifier::{
    Message, NextStep, OpenRequest, Opening, Verifier, VerifierError, VerifierParts,
};
