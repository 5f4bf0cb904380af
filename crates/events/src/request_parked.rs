//! `watchword.request.parked.v1`: the note that replaces a dead-lettered request by event. The
//! request itself is not kept, because it holds a recipient in clear.

use serde::{Deserialize, Serialize};

use crate::EventData;

/// The data of the event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestParked {
    /// A stable word for the reason.
    pub reason: String,
    /// The broker user who published the request, if the broker validated one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Size of the request in bytes.
    pub bytes: usize,
}

impl EventData for RequestParked {
    const TYPE: &'static str = "watchword.request.parked.v1";
}
