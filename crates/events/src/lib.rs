#![doc = include_str!("../README.md")]

mod delivery_updated;
mod envelope;
pub mod names;
mod otp_requested;
mod otp_send;
mod receipt_received;
mod request_parked;
mod step_due;
mod verification_updated;

pub use delivery_updated::DeliveryUpdated;
pub use envelope::{CONTENT_TYPE, CloudEvent, DecodeError, EventData};
pub use names::Lane;
pub use otp_requested::{ClientRequested, FallbackRequested, OtpRequested};
pub use otp_send::{Order, OrderError, OtpSend};
pub use receipt_received::ReceiptReceived;
pub use request_parked::RequestParked;
pub use step_due::StepDue;
pub use verification_updated::{Refusal, VerificationUpdated};
