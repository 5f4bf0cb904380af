//! `watchword.otp.requested.v1`: an auth service asks for a code by event. The same fields as the
//! body of `POST /v1/verifications`; unknown ones are refused as there. Refuses to name the
//! service: that is the broker's validated user.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::EventData;

/// The data of the event, and the body of the HTTP call. Fields are text as it came; the issuer
/// parses them and says which one is wrong.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtpRequested {
    /// `sms` or `email`.
    pub channel: String,
    /// The E.164 number or the address.
    pub to: String,
    /// What the code is for; `login` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// The account; the recipient when absent.
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
    /// Other ways to the same person, tried in this order while the code is not used.
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

/// One fallback step.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FallbackRequested {
    /// `sms` or `email`.
    pub channel: String,
    /// The E.164 number or the address.
    pub to: String,
    /// How long after the message before it; 30 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_seconds: Option<u64>,
}

/// The person's browser or device, as the calling service sees it. Send limits count messages by
/// it; it is neither logged nor stored in clear.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientRequested {
    /// Its IPv4 or IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Its `User-Agent`. Checked, not used yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
}

impl std::fmt::Debug for ClientRequested {
    /// Without its fields: they are personal data.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientRequested").finish_non_exhaustive()
    }
}

impl EventData for OtpRequested {
    const TYPE: &'static str = "watchword.otp.requested.v1";
}

impl std::fmt::Debug for OtpRequested {
    /// Without the recipient and the subject: they are personal data.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OtpRequested").finish_non_exhaustive()
    }
}

/// Reads `null` as the default: clients that serialize every field send it for absent ones.
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
