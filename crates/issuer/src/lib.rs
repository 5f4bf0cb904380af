#![doc = include_str!("../README.md")]

mod error;
mod guard;
pub mod http;
mod intake;
mod issuer;
pub mod limits;
mod message_check;
mod request;
pub mod requests;
mod stepper;
mod telemetry;

pub use error::IssueError;
pub use intake::{Intake, IntakeParts};
pub use issuer::{Issuer, IssuerParts};
pub use message_check::{MessageCheck, Unsendable};
pub use stepper::{Stepper, StepperParts};
pub use telemetry::{IssuerMetrics, SERIES};
