//! `watchword.otp.requested.v1`: an auth service requests a code by event. It has the fields of the
//! body of `POST /v1/verifications` and, like it, rejects unknown ones. There is no field for the
//! service: the broker's validated user determines it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::EventData;

/// The data of the event, and the body of the HTTP call. Fields are unparsed text, so that the
/// issuer can parse them and name the malformed one.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtpRequested {
    /// `sms` or `email`.
    pub channel: String,
    /// The phone number in E.164, or the email address.
    pub to: String,
    /// The purpose of the code; `login` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// The account; the recipient if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The language of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// Values for the template.
    #[serde(
        default,
        deserialize_with = "absent_if_null",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub variables: BTreeMap<String, String>,
    /// Fallback steps: other recipients for the same code, tried in this order until the code is
    /// used.
    #[serde(
        default,
        deserialize_with = "absent_if_null",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub fallback: Vec<FallbackRequested>,
    /// The person's browser or device at the calling service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientRequested>,
}

/// A fallback step.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FallbackRequested {
    /// `sms` or `email`.
    pub channel: String,
    /// The phone number in E.164, or the email address.
    pub to: String,
    /// Seconds to wait after the message before it; 30 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_seconds: Option<u64>,
}

/// The person's browser or device, as the calling service sees it. Send limits count messages per
/// client. It is neither logged nor stored in clear.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientRequested {
    /// The IPv4 or IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The `User-Agent`. It is validated and not used yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
}

impl std::fmt::Debug for ClientRequested {
    /// Hides the fields: they are personal data.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientRequested").finish_non_exhaustive()
    }
}

impl EventData for OtpRequested {
    const TYPE: &'static str = "watchword.otp.requested.v1";
}

impl std::fmt::Debug for OtpRequested {
    /// Hides the fields: recipient and subject are personal data.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OtpRequested").finish_non_exhaustive()
    }
}

/// Reads `null` as the default, because clients that serialize every field send it for absent ones.
fn absent_if_null<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_absent() {
        let read = |rest: &str| {
            let text = format!("{{\"channel\":\"sms\",\"to\":\"+4915112345678\"{rest}}}");
            serde_json::from_str::<OtpRequested>(&text)
        };
        let absent = read("").unwrap();
        for field in ["purpose", "subject", "locale", "variables", "fallback"] {
            let given = read(&format!(",\"{field}\":null")).unwrap();
            assert!(given == absent, "{field}");
            assert!(read(&format!(",\"{field}\":7")).is_err(), "{field}");
        }
        let step = ",\"fallback\":[{\"channel\":\"email\",\"to\":\"a@example.org\",\"after_seconds\":null}]";
        assert_eq!(read(step).unwrap().fallback[0].after_seconds, None);
        assert!(read(",\"to\":null").is_err());
        assert!(read(",\"variables\":{\"amount\":null}").is_err());
    }
}
