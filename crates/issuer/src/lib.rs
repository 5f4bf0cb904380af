#![doc = include_str!("../README.md")]

mod guard;
pub mod http;
mod intake;
mod issuer;
pub mod limits;
mod request;
pub mod requests;
mod stepper;
mod telemetry;

pub use intake::{Intake, IntakeParts};
pub use issuer::{Issuer, IssuerParts};
pub use stepper::{Stepper, StepperParts};
pub use telemetry::{IssuerMetrics, SERIES};
