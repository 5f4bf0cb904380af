//! The sections of the config file that more than one role reads. Each checks itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Deserialize;
use watchword_core::{CodeLength, GuessBudget, KeyId, Policy, ResendCode, SendLimits};

use super::ConfigError;

/// `[http]`: the public listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Where the API is served; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Requests in progress at once; more are answered 503 at once (admission, facts: 100 to 250
    /// publishes in flight are best).
    pub max_in_flight: usize,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            max_in_flight: 512,
        }
    }
}

/// `[admin]`: the listener for health, metrics and the admin API.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Where `/livez`, `/readyz`, `/metrics` and `/admin/v1` are served; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether a front ends TLS before the listener. Without it the admin API is off while `listen`
    /// is not a loopback address: it would carry keys and recipients in clear.
    pub behind_tls: bool,
    /// The keys of the admin API by name. Without any the admin API is off.
    pub keys: BTreeMap<KeyId, AdminKeyConfig>,
}

/// `[admin.keys.<name>]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminKeyConfig {
    /// SHA-256 of the key, 64 hexadecimal digits (`printf %s KEY | sha256sum`). A key is at
    /// least 128 random bits, so a fast hash is enough.
    pub hash: String,
    /// The rights of the key.
    pub role: AdminRole,
}

/// The rights of a key of the admin API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdminRole {
    /// Look.
    Viewer,
    /// Look and change.
    Operator,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9090)),
            behind_tls: false,
            keys: BTreeMap::new(),
        }
    }
}

/// `[log]`.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `human` or `json`.
    pub format: LogFormat,
    /// The least level of Watchword's own lines; those of libraries are shown from `warn` on.
    pub level: LogLevel,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// The least level that is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the usual five")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// `[services.<name>]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// The name people know the service by; it stands in every message. At most 40 characters.
    pub app: String,
    /// The host whose page asks for the code: an SMS then ends with the line that lets phones
    /// fill it in there and nowhere else.
    pub host: Option<String>,
    /// The API keys that speak for the service.
    #[serde(default)]
    pub api_keys: Vec<ApiKeyConfig>,
    /// The broker users that may ask for codes of the service by event.
    #[serde(default)]
    pub broker_users: Vec<String>,
    /// Countries (ISO 3166, two letters) whose numbers get SMS; `*` is every country. None by
    /// default: name the countries of your users. Territories with a code of their own need an
    /// entry: Jersey, Guernsey and the Isle of Man (`JE`, `GG`, `IM`) are not part of `GB`.
    #[serde(default)]
    pub countries: Vec<String>,
    /// First digits (`+85246`) of numbers that get SMS although the numbering plans do not list
    /// them: a range newer than the plans' data, or one reserved for tests. If such a number has a
    /// country, `countries` must list that country too; in a shared calling code a range outside
    /// the plans has no country. Premium, satellite and other special numbers stay refused.
    #[serde(default)]
    pub unknown_prefixes: Vec<String>,
    /// First digits (`+4420`) of fixed lines that get SMS.
    #[serde(default)]
    pub fixed_line_prefixes: Vec<String>,
    /// Whether a variable may carry a link (`https://…`, `www.…`, `example.org/…`), which people
    /// would get in a message of your service.
    #[serde(default)]
    pub links_in_variables: bool,
    /// What a verification of the service is like.
    #[serde(default)]
    pub policy: PolicyConfig,
    /// How many messages go out.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// How many wrong guesses a subject has.
    #[serde(default)]
    pub guesses: GuessesConfig,
}

/// An API key by its hash.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyConfig {
    /// A name for logs.
    pub id: KeyId,
    /// SHA-256 of the key, 64 hexadecimal digits (`printf %s KEY | sha256sum`). A key is at
    /// least 128 random bits, so a fast hash is enough.
    pub sha256: String,
}

/// Declares a section of plain numbers with defaults.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name { $($(#[$fdoc])* pub $field: $type,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

section!(
    /// `[services.<name>.policy]`.
    PolicyConfig {
        /// Digits of a code: 6 to 10.
        code_length: u8 = 6,
        /// How long a code lives: 30 to 600 s.
        lifetime_seconds: u64 = 300,
        /// Codes compared for one verification: 1 to 5.
        max_checks: u8 = 5,
        /// Messages for one verification: 1 to 10.
        max_sends: u8 = 5,
        /// The least time between two messages.
        cooldown_seconds: u64 = 30,
        /// Whether a resend repeats the code.
        resend: ResendMode = ResendMode::Same,
    }
);

section!(
    /// `[services.<name>.limits]`: messages in any 60 minutes or 24 hours, by what they have in
    /// common, and requests of the service. 0 turns a limit off where its range begins with 0. The
    /// least time between messages to one recipient is the policy's `cooldown_seconds`.
    LimitsConfig {
        /// Messages to one recipient: 1 to 100. A quarter is kept for requests with a subject.
        recipient_per_hour: u32 = 10,
        /// Messages to one recipient: 1 to 100. A quarter is kept for requests with a subject.
        recipient_per_day: u32 = 20,
        /// Messages for one subject, over all its recipients: 0 to 10,000.
        subject_per_hour: u32 = 10,
        /// Messages to numbers that differ in their last four digits only: 0 to 10,000,000.
        number_block_per_hour: u32 = 100,
        /// Messages for one client that requests name, by IPv4 address or IPv6 /64: 0 to
        /// 10,000,000.
        client_per_hour: u32 = 30,
        /// Messages to the numbers of one country: 0 to 100,000,000.
        country_per_day: u32 = 50_000,
        /// Messages of the service: 0 to 100,000,000.
        service_per_day: u32 = 100_000,
        /// Requests of the service in a minute: 1 to 10,000,000.
        service_per_minute: u32 = 6_000,
    }
);

section!(
    /// `[services.<name>.guesses]`: wrong codes of one subject over all its verifications.
    GuessesConfig {
        /// In any hour.
        per_hour: u32 = 10,
        /// In any day; at most 100.
        per_day: u32 = 20,
        /// In a row, ever; at most 100.
        in_a_row: u32 = 100,
    }
);

/// What a resend sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResendMode {
    /// The same code.
    Same,
    /// A new one; the old one dies.
    Rotate,
}

impl PolicyConfig {
    /// The policy, checked.
    pub fn policy(self) -> Result<Policy, ConfigError> {
        let code_length = CodeLength::new(self.code_length)
            .map_err(|error| ConfigError::new("policy.code_length", error.rule()))?;
        let resend = match self.resend {
            ResendMode::Same => ResendCode::Same,
            ResendMode::Rotate => ResendCode::Rotate,
        };
        Policy {
            code_length,
            lifetime_ms: self.lifetime_seconds.saturating_mul(1000),
            max_checks: self.max_checks,
            max_sends: self.max_sends,
            cooldown_ms: self.cooldown_seconds.saturating_mul(1000),
            resend,
        }
        .validated()
        .map_err(|error| ConfigError::new(format!("policy.{}", error.field), error.rule))
    }
}

impl LimitsConfig {
    /// The limits, checked, with the policy's cooldown.
    pub fn limits(self, policy: &Policy) -> Result<SendLimits, ConfigError> {
        in_range(self.recipient_per_hour, 100, "limits.recipient_per_hour")?;
        in_range(self.recipient_per_day, 100, "limits.recipient_per_day")?;
        in_range(
            self.service_per_minute,
            10_000_000,
            "limits.service_per_minute",
        )?;
        for (value, most, key) in [
            (self.subject_per_hour, 10_000, "subject_per_hour"),
            (
                self.number_block_per_hour,
                10_000_000,
                "number_block_per_hour",
            ),
            (self.client_per_hour, 10_000_000, "client_per_hour"),
            (self.country_per_day, 100_000_000, "country_per_day"),
            (self.service_per_day, 100_000_000, "service_per_day"),
        ] {
            if value > most {
                let rule = format!("must be 0 (no limit) to {most}");
                return Err(ConfigError::new(format!("limits.{key}"), rule));
            }
        }
        Ok(SendLimits {
            cooldown_ms: policy.cooldown_ms,
            per_hour: self.recipient_per_hour,
            per_day: self.recipient_per_day,
            subject_per_hour: self.subject_per_hour,
            number_block_per_hour: self.number_block_per_hour,
            client_per_hour: self.client_per_hour,
            country_per_day: self.country_per_day,
            service_per_day: self.service_per_day,
            service_per_minute: self.service_per_minute,
        })
    }
}

impl GuessesConfig {
    /// The budget, checked.
    pub fn budget(self) -> Result<GuessBudget, ConfigError> {
        in_range(self.per_hour, 100, "guesses.per_hour")?;
        in_range(self.per_day, 100, "guesses.per_day")?;
        in_range(self.in_a_row, 100, "guesses.in_a_row")?;
        Ok(GuessBudget {
            per_hour: self.per_hour,
            per_day: self.per_day,
            in_a_row: self.in_a_row,
        })
    }
}

fn in_range(value: u32, most: u32, key: &str) -> Result<(), ConfigError> {
    if (1..=most).contains(&value) {
        Ok(())
    } else {
        Err(ConfigError::new(key, format!("must be 1 to {most}")))
    }
}

/// `[services]`: every service by name.
pub type ServicesConfig = BTreeMap<watchword_core::ServiceName, ServiceConfig>;
