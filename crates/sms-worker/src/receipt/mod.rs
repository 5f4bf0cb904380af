//! Delivery receipts of gateways: verified over the raw bytes, then read from the locations that
//! the configuration names. Only ids, the state and an error code are kept.

mod heard;
mod plan_history;
mod route;
mod vendors;
mod verify;

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use watchword_chassis::config::ConfigError;
use watchword_core::{DeliveryId, ProviderName, ReceiptState};
use watchword_events::ReceiptReceived;

pub use heard::{HeardReceipt, Unread, queue_heard};
pub use plan_history::ReceiptPlans;
pub use route::{
    NO_SUCH_PROVIDER, ReceiptMetrics, ReceiptState as ReceiptRouteState, SERIES, routes,
};
pub(crate) use verify::Verify;
pub use verify::{Call, Encoding, HmacAlgorithm, VerifyConfig};

use crate::config::Secrets;
use crate::http::{ReceiptConfig, as_text, check_pointer, plain_id};
use crate::payload;

/// Maximum number of receipts in one call.
const MOST_AT_ONCE: usize = 1_000;
/// Maximum length of an error code.
const ERROR_CHARS: usize = 32;

/// Verification and location of the receipts of one provider.
pub struct ReceiptPlan {
    provider: ProviderName,
    verify: Verify,
    each: Option<String>,
    reference: Option<String>,
    id: Option<String>,
    state: String,
    states: BTreeMap<String, ReceiptState>,
    error: Option<String>,
}

/// Reason for which a call was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The signature is invalid or too old.
    Forged,
    /// The sender is verified, but the body cannot be parsed.
    Unreadable,
}

impl ReceiptPlan {
    pub(crate) fn compile(
        provider: ProviderName,
        config: &ReceiptConfig,
        secrets: &Secrets,
    ) -> Result<Self, ConfigError> {
        if config.id.is_none() && config.reference.is_none() {
            return Err(ConfigError::new(
                "id",
                "or reference must be given, to identify the message",
            ));
        }
        let places = [
            ("each", config.each.as_deref()),
            ("reference", config.reference.as_deref()),
            ("id", config.id.as_deref()),
            ("state", Some(config.state.as_str())),
            ("error", config.error.as_deref()),
        ];
        for (key, place) in places {
            let Some(place) = place else { continue };
            check_pointer(place, key)?;
            let rooted = place.starts_with("/query/") || place.starts_with("/body");
            if !rooted && (config.each.is_none() || key == "each") {
                return Err(ConfigError::new(key, "must begin with /query/ or /body"));
            }
        }
        let is_unsigned = matches!(config.verify, VerifyConfig::VonageSig { .. });
        if is_unsigned && places.iter().any(|(_, place)| *place == Some("/query/d")) {
            return Err(ConfigError::new(
                "reference",
                "cannot be /query/d: `sig` does not sign it; name a field of the body",
            ));
        }
        if config.states.is_empty() {
            return Err(ConfigError::new("states", "must map the gateway's states"));
        }
        Ok(Self {
            provider,
            verify: Verify::compile(&config.verify, secrets)?,
            each: config.each.clone(),
            reference: config.reference.clone(),
            id: config.id.clone(),
            state: config.state.clone(),
            states: config.states.clone(),
            error: config.error.clone(),
        })
    }

    /// Whether receipts contain only the gateway's message id.
    pub(crate) const fn wants_name(&self) -> bool {
        self.reference.is_none()
    }

    /// Returns the callback URL for `delivery`, below the public URL.
    pub(crate) fn callback(&self, public_url: &str, delivery: &DeliveryId) -> String {
        let mut url = format!(
            "{}/v1/receipts/{}?d={delivery}",
            public_url.trim_end_matches('/'),
            self.provider
        );
        if let Some(secret) = self.verify.url_secret() {
            let encoded: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
            url.push_str("&token=");
            url.push_str(&encoded);
        }
        url
    }

    /// Verifies a call and returns its receipts.
    pub fn read(&self, call: &Call<'_>) -> Result<Vec<ReceiptReceived>, Refusal> {
        if !self.verify.accepts(call) {
            return Err(Refusal::Forged);
        }
        self.parse(call).ok_or(Refusal::Unreadable)
    }

    pub(crate) fn parse(&self, call: &Call<'_>) -> Option<Vec<ReceiptReceived>> {
        let object = |pairs: &[(String, String)]| {
            let members = pairs
                .iter()
                .map(|(name, value)| (name.clone(), value.clone().into()));
            Value::Object(members.collect::<Map<_, _>>())
        };
        let form = call.form();
        let body = if !form.is_empty() {
            object(&form)
        } else if call.body.is_empty() {
            Value::Null
        } else {
            let body = payload::decompressed(call.headers, call.body)?;
            payload::json(&payload::text(call.headers, &body))?
        };
        let mut document = Map::new();
        document.insert("query".to_owned(), object(call.query));
        document.insert("body".to_owned(), body);
        let document = Value::Object(document);
        let items = match &self.each {
            None => vec![&document],
            Some(place) => document
                .pointer(place)?
                .as_array()?
                .iter()
                .take(MOST_AT_ONCE)
                .collect(),
        };
        Some(
            items
                .iter()
                .filter_map(|item| self.item(&document, item))
                .collect(),
        )
    }

    fn item(&self, document: &Value, item: &Value) -> Option<ReceiptReceived> {
        let text = |place: &Option<String>| {
            let place = place.as_deref()?;
            let root = if place.starts_with("/query/") {
                document
            } else {
                item
            };
            root.pointer(place).and_then(as_text)
        };
        let state = *self.states.get(&text(&Some(self.state.clone()))?)?;
        let delivery_id = text(&self.reference).and_then(|id| id.parse().ok());
        let message_id = text(&self.id).and_then(plain_id);
        if delivery_id.is_none() && message_id.is_none() {
            return None;
        }
        Some(ReceiptReceived {
            provider: self.provider.clone(),
            delivery_id,
            message_id,
            state,
            error: text(&self.error).and_then(error_code),
        })
    }
}

/// Returns `text` if it may be queued and logged as an error code: short, printable, and without a
/// run of digits long enough for a telephone number. A code of zeros means that there was no error.
pub(crate) fn error_code(text: String) -> Option<String> {
    let is_short = (1..=ERROR_CHARS).contains(&text.len());
    let is_plain = text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'@');
    let longest = text
        .split(|c: char| !c.is_ascii_digit())
        .map(str::len)
        .max();
    let is_zero = text.bytes().all(|byte| byte == b'0');
    (is_short && is_plain && !is_zero && longest < Some(7)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_the_signature_leaves_out_is_refused() {
        let compile = |kind: &str, reference: &str| {
            let config: ReceiptConfig = toml::from_str(&format!(
                "verify = {{ kind = \"{kind}\", secret = \"s\" }}\nreference = \"{reference}\"\n\
                 state = \"/body/status\"\nstates = {{ ok = \"delivered\" }}"
            ))
            .unwrap();
            let secrets = Secrets::of(&[("s", "a-long-secret")]);
            ReceiptPlan::compile("acme".parse().unwrap(), &config, &secrets).err()
        };
        let vonage = "vonage_sig\", algorithm = \"sha256";
        assert_eq!(compile(vonage, "/query/d").unwrap().key, "reference");
        assert!(compile(vonage, "/body/client-ref").is_none());
        assert!(compile("twilio", "/query/d").is_none());
    }

    #[test]
    fn an_error_code_holds_no_recipient() {
        for code in ["E17", "30005", "UserInBlackList", "0B7"] {
            assert_eq!(error_code(code.to_owned()).as_deref(), Some(code));
        }
        for other in [
            "",
            "0",
            "000",
            "+4915112345678",
            "4915112345678",
            "to:1234567",
            "jane@example.org",
            "a b",
            &"x".repeat(33),
        ] {
            assert_eq!(error_code(other.to_owned()), None, "{other}");
        }
    }
}
