//! `watchword.request.parked.v1`: a request by event that could not be read or is nobody's. The
//! request itself is not kept, because it holds a recipient in clear; this tells what it was.

use serde::{Deserialize, Serialize};

use crate::EventData;

/// The data of the event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestParked {
    /// Why: a stable word.
    pub reason: String,
    /// The broker user who published it, if the broker vouched for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// How large it was, in bytes.
    pub bytes: usize,
}

impl EventData for RequestParked {
    const TYPE: &'static str = "watchword.request.parked.v1";
}
