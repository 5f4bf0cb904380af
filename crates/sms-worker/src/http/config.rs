//! The configuration of an HTTP provider as it is written. Refuses keys it does not know.

use std::collections::BTreeMap;

use serde::Deserialize;
use watchword_chassis::config::SecretRef;
use watchword_core::{AttemptClass, ProviderName};

/// One gateway.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpProviderConfig {
    /// Its name in ledger and labels.
    pub name: ProviderName,
    /// What people see as sender; the placeholder `{sender}`.
    #[serde(default)]
    pub sender: String,
    /// The longest an attempt takes: 1 to 30 s.
    #[serde(default = "ten")]
    pub timeout_seconds: u64,
    /// The request.
    pub request: RequestConfig,
    /// What its answer means.
    #[serde(default)]
    pub response: ResponseConfig,
}

const fn ten() -> u64 {
    10
}

/// A request as a structure whose leaves are texts with placeholders: `{to}`, `{to_digits}`,
/// `{text}`, `{sender}`, `{message_id}`, `{ttl_seconds}`, `{ttl_minutes}`, `{ttl_ms}`, and
/// `{coding}` (`0` for the GSM alphabet, `2` for UCS-2).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestConfig {
    /// `GET` or `POST`.
    pub method: String,
    /// `https://…`; `http://` only to loopback. Of the placeholders those without free text.
    pub url: String,
    /// How the gateway knows us.
    #[serde(default)]
    pub auth: AuthConfig,
    /// Further headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Query parameters.
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// A form body, …
    pub form: Option<BTreeMap<String, String>>,
    /// … or a JSON body; not both.
    pub json: Option<serde_json::Value>,
}

/// How the gateway knows us. Secrets are references.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum AuthConfig {
    /// It does not.
    #[default]
    None,
    /// HTTP Basic.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: SecretRef,
    },
    /// A bearer token.
    Bearer {
        /// The token.
        token: SecretRef,
    },
    /// A header of any name.
    Header {
        /// Its name.
        name: String,
        /// Its value.
        value: SecretRef,
    },
    /// Query parameters. Proxies log URLs: only for gateways that know no other way.
    Query {
        /// The parameter for the user, and the user.
        username: Option<String>,
        /// The password, as parameter `password`.
        password: SecretRef,
    },
}

/// What an answer means: the first rule that fits decides, then the status alone.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResponseConfig {
    /// Where the gateway's message id stands.
    pub id: Option<IdConfig>,
    /// The rules, in order.
    #[serde(default)]
    pub rules: Vec<RuleConfig>,
}

/// Where the message id stands: exactly one of the two.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdConfig {
    /// A JSON pointer.
    pub json: Option<String>,
    /// A header's name.
    pub header: Option<String>,
}

/// One rule. All conditions that are given must hold; without any it always fits.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// Statuses: `202` or `5xx`.
    #[serde(default)]
    pub status: Vec<String>,
    /// JSON pointers and the values of which one must stand there.
    #[serde(default)]
    pub json: BTreeMap<String, Vec<String>>,
    /// Texts of which one must stand in the body.
    #[serde(default)]
    pub body_contains: Vec<String>,
    /// What the attempt then was.
    pub class: AttemptClass,
    /// How long to wait before the next one, if the answer does not say.
    pub retry_after_seconds: Option<u64>,
}
