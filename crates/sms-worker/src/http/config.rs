//! Configuration of an HTTP provider, as written in the main file or in a preset.

use std::collections::BTreeMap;

use serde::Deserialize;
use watchword_core::{AttemptClass, ReceiptState};

use crate::receipt::VerifyConfig;

/// Request to the gateway. Its texts may contain the placeholders `{to}`, `{to_digits}`, `{text}`,
/// `{code}`, `{app}`, `{sender}`, `{message_id}`, `{callback}`, `{callback?TEXT}` (`TEXT` if the
/// gateway is asked for receipts), `{ttl_seconds}`, `{ttl_minutes}`, `{ttl_ms}`, `{expires_at}`,
/// `{coding}` (`0` for the GSM alphabet, `2` for UCS-2), `{type}` (`text` or `unicode`) and
/// `{setting:NAME}`. A field whose text is empty after expansion is omitted.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestConfig {
    /// `GET` or `POST`.
    pub method: String,
    /// `https://…`, or `http://` to loopback. Placeholders for free text are not allowed.
    pub url: String,
    /// Authentication of the request.
    #[serde(default)]
    pub auth: AuthConfig,
    /// Additional headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Query parameters.
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// Form body; excludes `json`.
    pub form: Option<BTreeMap<String, String>>,
    /// JSON body; excludes `form`. A text that ends in `|number` becomes a number.
    pub json: Option<serde_json::Value>,
    /// Whether the gateway recognizes a repeated message by the id in the request.
    #[serde(default)]
    pub idempotent: bool,
}

/// Authentication at the gateway. Each `secret` is the name of an entry under `secrets`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum AuthConfig {
    /// No authentication.
    #[default]
    None,
    /// HTTP Basic.
    Basic {
        /// User name; may contain `{setting:NAME}`.
        username: String,
        /// Name of the password.
        secret: String,
    },
    /// Bearer token.
    Bearer {
        /// Name of the token.
        secret: String,
    },
    /// Arbitrary header.
    Header {
        /// Header name.
        name: String,
        /// Text before the secret: `AccessKey `.
        #[serde(default)]
        prefix: String,
        /// Name of the secret that follows the prefix.
        secret: String,
    },
    /// Query parameters. Proxies log URLs, so use this only if the gateway supports nothing else.
    Query {
        /// Parameter for the user name.
        #[serde(default = "username")]
        username_parameter: String,
        /// User name; may contain `{setting:NAME}`.
        username: Option<String>,
        /// Parameter for the password.
        #[serde(default = "password")]
        secret_parameter: String,
        /// Name of the password.
        secret: String,
    },
    /// OAuth 2 client credentials (RFC 6749 section 4.4). The token is cached until shortly before
    /// it expires.
    Oauth2 {
        /// Token endpoint: `https://…`.
        token_url: String,
        /// Client id; may contain `{setting:NAME}`.
        client_id: String,
        /// Name of the client secret.
        secret: String,
        /// Requested scope.
        scope: Option<String>,
    },
    /// JWT signed with RS256 for each request.
    Jwt {
        /// Name of the private key, in PEM.
        secret: String,
        /// Claims; may contain `{setting:NAME}`. `iat`, `exp` (15 min) and `jti` are added.
        #[serde(default)]
        claims: BTreeMap<String, String>,
    },
    /// AWS Signature Version 4.
    AwsSigv4 {
        /// Signing name of the service: `sns`.
        service: String,
        /// Region; may contain `{setting:NAME}`.
        region: String,
        /// Access key id; may contain `{setting:NAME}`.
        access_key_id: String,
        /// Name of the secret access key.
        secret: String,
    },
}

fn username() -> String {
    "username".to_owned()
}

fn password() -> String {
    "password".to_owned()
}

/// Meaning of the gateway's answers: the first matching rule decides, or the status if none
/// matches.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResponseConfig {
    /// Location of the gateway's message id.
    pub id: Option<IdConfig>,
    /// Rules, in the order in which they are tried.
    #[serde(default)]
    pub rules: Vec<RuleConfig>,
}

/// Location of the message id: exactly one of the three.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdConfig {
    /// JSON pointer into the body.
    pub json: Option<String>,
    /// Header name.
    pub header: Option<String>,
    /// Regular expression over the body; its first group is the id.
    pub regex: Option<String>,
}

/// Rule for an answer. It matches if all given conditions hold; without conditions it always
/// matches.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// Statuses, such as `202` or `5xx`.
    #[serde(default)]
    pub status: Vec<String>,
    /// JSON pointers, each with the accepted values.
    #[serde(default)]
    pub json: BTreeMap<String, Vec<String>>,
    /// Header names, each with the accepted values.
    #[serde(default)]
    pub header: BTreeMap<String, Vec<String>>,
    /// Texts of which at least one must occur in the body.
    #[serde(default)]
    pub body_contains: Vec<String>,
    /// Regular expression that must match somewhere in the body.
    pub body_regex: Option<String>,
    /// Outcome class of the attempt.
    pub class: AttemptClass,
    /// Delay before the next attempt, if the answer has no `Retry-After`.
    pub retry_after_seconds: Option<u64>,
}

/// Receipts of the gateway. Locations are JSON pointers into a document with `/query/…` for the
/// parameters of the URL and `/body/…` for the body, which may be JSON or a form.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptConfig {
    /// Verification of the sender.
    pub verify: VerifyConfig,
    /// List of receipts, if a call can bring several. The other locations are then relative to its
    /// items, unless they begin with `/query/`.
    pub each: Option<String>,
    /// Watchword's delivery id: `/query/d` if the gateway calls `{callback}`.
    pub reference: Option<String>,
    /// Message id of the gateway.
    pub id: Option<String>,
    /// State of the message, as the gateway words it.
    pub state: String,
    /// State for each word of the gateway. Receipts with other words are acknowledged and ignored.
    pub states: BTreeMap<String, ReceiptState>,
    /// Error code to show to operators.
    pub error: Option<String>,
}

/// Content of a preset file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// Settings with their defaults. A setting with the default `""` is required.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// Required secrets.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// Secrets that are required only for receipts.
    #[serde(default)]
    pub receipt_secrets: Vec<String>,
    /// Request to the gateway.
    pub request: RequestConfig,
    /// Meaning of the gateway's answers.
    #[serde(default)]
    pub response: ResponseConfig,
    /// Receipts of the gateway.
    pub receipt: Option<ReceiptConfig>,
    /// Recorded answers, used to test the rules.
    #[serde(default)]
    pub answers: Vec<RecordedAnswer>,
    /// Recorded receipts, used to test `receipt`.
    #[serde(default)]
    pub receipts: Vec<RecordedReceipt>,
}

/// Recorded answer with its expected outcome.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedAnswer {
    /// HTTP status.
    pub status: u16,
    /// Response body.
    #[serde(default)]
    pub body: String,
    /// Expected outcome class.
    pub class: AttemptClass,
    /// Expected message id, if the answer has one.
    pub id: Option<String>,
}

/// Recorded receipt with its expected content.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedReceipt {
    /// Query of the URL.
    #[serde(default)]
    pub query: String,
    /// Request body.
    #[serde(default)]
    pub body: String,
    /// Expected delivery or message id.
    pub id: Option<String>,
    /// Expected state; `None` if the word is not configured.
    pub state: Option<ReceiptState>,
}
