//! Consistency of the repository: crates, alert rules, documents and language. No test here needs a
//! running peer.

mod alerts;
mod arrows;
mod language;
mod reference;
