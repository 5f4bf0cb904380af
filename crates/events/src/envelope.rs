//! The `CloudEvents` 1.0 JSON envelope around every event. Decoding rejects another specification
//! version, another type, and documents over 64 KiB. Errors never quote the document.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use watchword_core::Timestamp;

/// The content type of an encoded event, for the AMQP property `content_type`.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// Maximum size of a document that is decoded, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// The data of an event type: its versioned type name and its JSON shape.
pub trait EventData: Serialize + DeserializeOwned {
    /// The type name: `watchword.<noun>.<verb>.v<N>`.
    const TYPE: &'static str;
}

/// An event with its envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudEvent<T> {
    /// Unique per source; stays the same when the event is published again.
    pub id: String,
    /// The publisher as a URI reference: `/watchword/issuer`.
    pub source: String,
    /// The time at which the event was created.
    pub time: Timestamp,
    /// The data of the event.
    pub data: T,
}

/// Error of encoding or decoding. No variant carries content of the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The document has more than 64 KiB.
    #[error("the event is too large")]
    TooLarge,
    /// The document is not JSON, or does not have the shape of a `CloudEvents` document.
    #[error("the event is not a CloudEvents document")]
    NotAnEvent,
    /// The specification version is not 1.0.
    #[error("the event is not of CloudEvents 1.0")]
    SpecVersion,
    /// The type is not the expected one.
    #[error("the event's type is unknown here")]
    UnknownType,
    /// The data does not have the shape of its type.
    #[error("the event's data does not fit its type")]
    Data,
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

/// The attributes that are read. The specification tells consumers to ignore unknown ones
/// (extensions). The data stays raw until the type is checked.
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
    /// Encodes the event as a JSON document.
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

    /// Decodes a document of exactly this type.
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
