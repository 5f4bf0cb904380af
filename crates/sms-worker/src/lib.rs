#![doc = include_str!("../README.md")]

mod config;
mod http;
mod inbox;
mod payload;
mod presets;
mod receipt;
mod segments;
mod smpp;
mod text;

pub use config::{SmsChannel, SmsConfig, SmsProviderConfig, build};
pub use http::Preset;
pub use presets::{PRESETS, preset};
pub use receipt::{
    Call, HeardReceipt, NO_SUCH_PROVIDER, ReceiptMetrics, ReceiptPlan, ReceiptPlans,
    ReceiptRouteState, Refusal, SERIES, Unread, queue_heard, routes,
};
pub use segments::{Encoding, Segments, segments};
pub use smpp::SmppConfig;
pub use text::{SmsText, TextError, check_templates};

/// Internals that parse bytes from peers, exported for the fuzz targets only.
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::http::{ResponseConfig, ResponsePlan};
    pub use crate::receipt::{Encoding, HmacAlgorithm, VerifyConfig};
    pub use crate::smpp::receipt::{MessageIds, Told, read as read_smpp_receipt};
}
