#![doc = include_str!("../README.md")]

mod config;
mod http;
mod inbox;
mod segments;
mod text;

pub use config::{SmsConfig, SmsProviderConfig, build};
pub use segments::{Encoding, Segments, segments};
pub use text::{SmsText, TextError, check_templates};
