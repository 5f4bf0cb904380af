//! The sections of the configuration that more than one role reads, with their validation.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Deserialize;
use watchword_core::{CodeLength, GuessBudget, KeyId, Policy, ResendCode, SendLimits};

use super::ConfigError;

/// The section `[http]`: the public listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// The address of the API; port 0 means any free port.
    pub listen: SocketAddr,
    /// The most API requests in flight, 1 to 100,000. A further request is answered with 503.
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

/// The section `[admin]`: the listener for health, metrics and the admin API.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// The address of `/livez`, `/readyz`, `/metrics` and `/admin/v1`; port 0 means any free port.
    pub listen: SocketAddr,
    /// Whether a proxy terminates TLS in front of the listener. Without it the admin API is off
    /// unless `listen` is a loopback address, because keys and recipients would cross the network
    /// in clear.
    pub behind_tls: bool,
    /// The keys of the admin API by name. Without a key the admin API is off.
    pub keys: BTreeMap<KeyId, AdminKeyConfig>,
}

/// The section `[admin.keys.<name>]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminKeyConfig {
    /// The SHA-256 of the key, 64 hexadecimal digits (`printf %s KEY | sha256sum`). A fast hash is
    /// enough, because a key has at least 128 random bits.
    pub hash: String,
    /// The role of the key.
    pub role: AdminRole,
}

/// The rights of a key of the admin API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdminRole {
    /// May read.
    Viewer,
    /// May read and change.
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

/// The section `[log]`.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// The format of log lines.
    pub format: LogFormat,
    /// The lowest level of Watchword's lines. Libraries log at `warn` and above.
    pub level: LogLevel,
}

/// The format of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text for people, colored on a terminal.
    #[default]
    Human,
    /// A JSON object per line.
    Json,
}

/// The lowest level that is logged.
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

/// The section `[services.<name>]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// The application name that every message shows, 1 to 40 characters.
    pub app: String,
    /// The host of the page on which people enter the code. SMS then end with the line that makes
    /// phones fill in the code only on that host.
    pub host: Option<String>,
    /// The API keys of the service.
    #[serde(default)]
    pub api_keys: Vec<ApiKeyConfig>,
    /// The broker users that may request codes of the service by event.
    #[serde(default)]
    pub broker_users: Vec<String>,
    /// The countries (ISO 3166, two letters) whose numbers get SMS; `*` means every country. Empty
    /// by default: name the countries of your users. Territories with a separate country code need
    /// an entry: Jersey, Guernsey and the Isle of Man (`JE`, `GG`, `IM`) are not part of `GB`.
    #[serde(default)]
    pub countries: Vec<String>,
    /// The first digits (`+85246`) of numbers that get SMS although the numbering plans do not list
    /// them: a range newer than the plans' data, or one reserved for tests. If such a number has a
    /// country, `countries` must list that country too; in a shared calling code a range outside
    /// the plans has no country. Premium, satellite and other special numbers never get SMS.
    #[serde(default)]
    pub unknown_prefixes: Vec<String>,
    /// The first digits (`+4420`) of fixed lines that get SMS.
    #[serde(default)]
    pub fixed_line_prefixes: Vec<String>,
    /// Whether template variables may contain links (`https://…`, `www.…`, `example.org/…`). A
    /// caller could use them for phishing in the name of the service.
    #[serde(default)]
    pub links_in_variables: bool,
    /// Length, lifetime and attempts of codes.
    #[serde(default)]
    pub policy: PolicyConfig,
    /// The send limits.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// The limits on wrong codes of a subject.
    #[serde(default)]
    pub guesses: GuessesConfig,
}

/// An API key by its hash.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyConfig {
    /// A name that identifies the key in the configuration.
    pub id: KeyId,
    /// The SHA-256 of the key, 64 hexadecimal digits (`printf %s KEY | sha256sum`). A fast hash is
    /// enough, because a key has at least 128 random bits.
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
    /// The section `[services.<name>.policy]`.
    PolicyConfig {
        /// The number of digits of a code: 6 to 10.
        code_length: u8 = 6,
        /// The lifetime of a code: 30 to 600 s.
        lifetime_seconds: u64 = 300,
        /// The most checks of a verification: 1 to 5.
        max_checks: u8 = 5,
        /// The most messages of a verification: 1 to 10.
        max_sends: u8 = 5,
        /// The minimum time between two messages.
        cooldown_seconds: u64 = 30,
        /// Whether a resend repeats the code.
        resend: ResendMode = ResendMode::Same,
    }
);

section!(
    /// The section `[services.<name>.limits]`: the most messages in any 60 minutes or 24 hours by
    /// recipient, subject, client and so on, and the most requests of the service. If the range of
    /// a limit includes 0, 0 means no limit. The minimum time between messages to a recipient is
    /// the policy's `cooldown_seconds`.
    LimitsConfig {
        /// Messages to a recipient: 1 to 100. A quarter is reserved for requests with a subject.
        recipient_per_hour: u32 = 10,
        /// Messages to a recipient: 1 to 100. A quarter is reserved for requests with a subject.
        recipient_per_day: u32 = 20,
        /// Messages for a subject, to all its recipients: 0 to 10,000.
        subject_per_hour: u32 = 10,
        /// Messages to the numbers that differ only in their last four digits: 0 to 10,000,000.
        number_block_per_hour: u32 = 100,
        /// Messages for a client address that requests name, by IPv4 address or IPv6 /64: 0 to
        /// 10,000,000.
        client_per_hour: u32 = 30,
        /// Messages to the numbers of a country: 0 to 100,000,000.
        country_per_day: u32 = 50_000,
        /// Messages of the service: 0 to 100,000,000.
        service_per_day: u32 = 100_000,
        /// Requests of the service per minute: 1 to 10,000,000.
        service_per_minute: u32 = 6_000,
    }
);

section!(
    /// The section `[services.<name>.guesses]`: the most wrong codes of a subject over all its
    /// verifications. NIST SP 800-63B limits consecutive failures to 100.
    GuessesConfig {
        /// Wrong codes in any 60 minutes: 1 to 100.
        per_hour: u32 = 10,
        /// Wrong codes in any 24 hours: 1 to 100.
        per_day: u32 = 20,
        /// Consecutive wrong codes without a limit in time: 1 to 100.
        in_a_row: u32 = 100,
    }
);

/// The code that a resend sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResendMode {
    /// The same code.
    Same,
    /// A new code; the earlier code is no longer valid.
    Rotate,
}

impl PolicyConfig {
    /// Returns the policy, or an error if a value is out of range.
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
    /// Returns the limits with the policy's cooldown, or an error if a value is out of range.
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
    /// Returns the budget, or an error if a value is out of range.
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

/// The section `[services]`: the services by name.
pub type ServicesConfig = BTreeMap<watchword_core::ServiceName, ServiceConfig>;
