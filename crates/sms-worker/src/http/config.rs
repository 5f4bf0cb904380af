//! The configuration of an HTTP provider as it is written, in the main file or as a preset.
//! Refuses keys it does not know.

use std::collections::BTreeMap;

use serde::Deserialize;
use watchword_core::{AttemptClass, ReceiptState};

use crate::receipt::VerifyConfig;

/// A request as a structure whose leaves are texts with placeholders: `{to}`, `{to_digits}`,
/// `{text}`, `{code}`, `{app}`, `{sender}`, `{message_id}`, `{callback}`,
/// `{callback?TEXT}` (that text where the gateway is to call back), `{ttl_seconds}`,
/// `{ttl_minutes}`, `{ttl_ms}`, `{expires_at}`, `{coding}` (`0` for the GSM alphabet, `2` for
/// UCS-2), `{type}` (`text` or `unicode`) and `{setting:NAME}`. A field that comes out empty is
/// left out.
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
    /// … or a JSON body; not both. A text that ends in `|number` becomes a number.
    pub json: Option<serde_json::Value>,
    /// Whether the gateway recognises a repeat by the id we give it.
    #[serde(default)]
    pub idempotent: bool,
}

/// How the gateway knows us. Every secret is the name of one under `secrets`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum AuthConfig {
    /// It does not.
    #[default]
    None,
    /// HTTP Basic.
    Basic {
        /// The user; may hold `{setting:NAME}`.
        username: String,
        /// The password.
        secret: String,
    },
    /// A bearer token.
    Bearer {
        /// The token.
        secret: String,
    },
    /// A header of any name.
    Header {
        /// Its name.
        name: String,
        /// What stands before the secret: `AccessKey `.
        #[serde(default)]
        prefix: String,
        /// Its value.
        secret: String,
    },
    /// Query parameters. Proxies log URLs: only for gateways that know no other way.
    Query {
        /// The parameter of the user.
        #[serde(default = "username")]
        username_parameter: String,
        /// The user; may hold `{setting:NAME}`.
        username: Option<String>,
        /// The parameter of the secret.
        #[serde(default = "password")]
        secret_parameter: String,
        /// The password.
        secret: String,
    },
    /// OAuth 2 client credentials (RFC 6749 §4.4); the token is kept until shortly before its end.
    Oauth2 {
        /// Where tokens are given: `https://…`.
        token_url: String,
        /// The client's id; may hold `{setting:NAME}`.
        client_id: String,
        /// The client's secret.
        secret: String,
        /// The scope asked for.
        scope: Option<String>,
    },
    /// A JWT signed with RS256, made for each request.
    Jwt {
        /// The private key, PEM.
        secret: String,
        /// Claims; may hold `{setting:NAME}`. `iat`, `exp` (15 min) and `jti` are added.
        #[serde(default)]
        claims: BTreeMap<String, String>,
    },
    /// AWS Signature Version 4.
    AwsSigv4 {
        /// The service's signing name: `sns`.
        service: String,
        /// The region; may hold `{setting:NAME}`.
        region: String,
        /// The access key's id; may hold `{setting:NAME}`.
        access_key_id: String,
        /// The secret access key.
        secret: String,
    },
}

fn username() -> String {
    "username".to_owned()
}

fn password() -> String {
    "password".to_owned()
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

/// Where the message id stands: exactly one of the three.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdConfig {
    /// A JSON pointer.
    pub json: Option<String>,
    /// A header's name.
    pub header: Option<String>,
    /// A regular expression over the body; its first group is the id.
    pub regex: Option<String>,
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
    /// Headers and the values of which one each must have.
    #[serde(default)]
    pub header: BTreeMap<String, Vec<String>>,
    /// Texts of which one must stand in the body.
    #[serde(default)]
    pub body_contains: Vec<String>,
    /// A regular expression that must match in the body.
    pub body_regex: Option<String>,
    /// What the attempt then was.
    pub class: AttemptClass,
    /// How long to wait before the next one, if the answer does not say.
    pub retry_after_seconds: Option<u64>,
}

/// What the gateway says later. Places are JSON pointers into a document of two parts: `/query/…`
/// for the parameters of the URL, `/body/…` for the body, be it JSON or a form.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptConfig {
    /// How it is known to be the gateway's.
    pub verify: VerifyConfig,
    /// The list, if one call can bring several; the other places are then within its items,
    /// unless they begin with `/query/`.
    pub each: Option<String>,
    /// Our reference, which is the delivery's id: `/query/d` if the gateway calls `{callback}`.
    pub reference: Option<String>,
    /// The gateway's message id.
    pub id: Option<String>,
    /// The word for what became of the message.
    pub state: String,
    /// What the words mean. Others are taken and change nothing.
    pub states: BTreeMap<String, ReceiptState>,
    /// An error code to show.
    pub error: Option<String>,
}

/// What a preset file holds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// Settings with their defaults; one without (`""`) must be given.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// Secrets that must be given.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// Secrets that are needed only where receipts are wanted.
    #[serde(default)]
    pub receipt_secrets: Vec<String>,
    /// The request.
    pub request: RequestConfig,
    /// What its answer means.
    #[serde(default)]
    pub response: ResponseConfig,
    /// What the gateway says later.
    pub receipt: Option<ReceiptConfig>,
    /// Recorded answers, which the tests hold the rules to.
    #[serde(default)]
    pub answers: Vec<RecordedAnswer>,
    /// Recorded receipts, likewise.
    #[serde(default)]
    pub receipts: Vec<RecordedReceipt>,
}

/// An answer and what it means.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedAnswer {
    /// Its status.
    pub status: u16,
    /// Its body.
    #[serde(default)]
    pub body: String,
    /// What the attempt was.
    pub class: AttemptClass,
    /// The message's id, if it has one.
    pub id: Option<String>,
}

/// A receipt and what it means.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedReceipt {
    /// The query of its URL.
    #[serde(default)]
    pub query: String,
    /// Its body.
    #[serde(default)]
    pub body: String,
    /// The id it names.
    pub id: Option<String>,
    /// What it says; nothing for a word that changes nothing.
    pub state: Option<ReceiptState>,
}
