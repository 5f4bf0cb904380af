//! The `CloudEvents` 1.0 JSON document around every event. Refuses documents of another
//! specification version, another type or more than 64 KiB, and never quotes what it refused.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use watchword_core::Timestamp;

/// The content type of a document, for the broker's `content_type`.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// The largest document that is read, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// What an event is about: a type name with its version, and the shape of its data.
pub trait EventData: Serialize + DeserializeOwned {
    /// `watchword.<noun>.<verb>.v<N>`.
    const TYPE: &'static str;
}

/// One event with its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudEvent<T> {
    /// Unique for its source; the same when the same event is published again.
    pub id: String,
    /// Who published it, as a URI reference: `/watchword/issuer`.
    pub source: String,
    /// When it happened.
    pub time: Timestamp,
    /// What happened.
    pub data: T,
}

/// Why a document was refused. No variant carries any of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More than 64 KiB.
    #[error("the event is too large")]
    TooLarge,
    /// Not JSON, or not the shape of a `CloudEvents` document.
    #[error("the event is not a CloudEvents document")]
    NotAnEvent,
    /// A specification version other than 1.0.
    #[error("the event is not of CloudEvents 1.0")]
    SpecVersion,
    /// Another type, or a version this program does not know.
    #[error("the event's type is unknown here")]
    UnknownType,
    /// The data does not have the shape its type asks for.
    #[error("the event's data does not fit its type")]
    Data,
}

impl DecodeError {
    /// A stable word for labels and for the reason a message is parked.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::NotAnEvent => "not_an_event",
            Self::SpecVersion => "spec_version",
            Self::UnknownType => "unknown_type",
            Self::Data => "bad_data",
        }
    }
}

#[derive(Serialize)]
struct Encoded<'a, T> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    r#type: &'static str,
    time: String,
    datacontenttype: &'static str,
    data: &'a T,
}

/// Unknown attributes are extensions, which the specification tells consumers to ignore. The data is
/// read once its type is known.
#[derive(Deserialize)]
struct Decoded<'a> {
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    id: String,
    source: String,
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl<T: EventData> CloudEvent<T> {
    /// The document as bytes.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let document = Encoded {
            specversion: "1.0",
            id: &self.id,
            source: &self.source,
            r#type: T::TYPE,
            time: self.time.to_rfc3339(),
            datacontenttype: "application/json",
            data: &self.data,
        };
        serde_json::to_vec(&document).map_err(|_| DecodeError::Data)
    }

    /// Reads a document of exactly this type.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_BYTES {
            return Err(DecodeError::TooLarge);
        }
        let document: Decoded<'_> =
            serde_json::from_slice(bytes).map_err(|_| DecodeError::NotAnEvent)?;
        if document.specversion != "1.0" {
            return Err(DecodeError::SpecVersion);
        }
        if document.r#type != T::TYPE {
            return Err(DecodeError::UnknownType);
        }
        if document.id.is_empty() || document.source.is_empty() {
            return Err(DecodeError::NotAnEvent);
        }
        let time = Timestamp::from_rfc3339(&document.time).ok_or(DecodeError::NotAnEvent)?;
        let data = serde_json::from_str(document.data.get()).map_err(|_| DecodeError::Data)?;
        Ok(Self {
            id: document.id,
            source: document.source,
            time,
            data,
        })
    }
}
