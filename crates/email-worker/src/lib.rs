#![doc = include_str!("../README.md")]

mod config;
mod dkim;
mod inbox;
mod message;
mod smtp;

pub use config::{EmailChannel, EmailConfig, EmailProviderConfig, SmtpConfig, build};
pub use dkim::{DkimConfig, DkimRecord};
pub use message::{EmailText, MessageError};
pub use smtp::starttls;
