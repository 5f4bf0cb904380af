#![doc = include_str!("../README.md")]

mod config;
mod inbox;
mod message;
mod smtp;

pub use config::{EmailChannel, EmailConfig, EmailProviderConfig, build};
pub use message::{EmailText, MessageError};
