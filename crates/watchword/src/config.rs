//! The complete configuration, composed of the sections of all crates.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::Deserialize;
use watchword_chassis::config::{
    AdminConfig, ApiKeyConfig, ConfigError, Draft, HttpConfig, KeysConfig, LogConfig, SecretRef,
    ServicesConfig, load_draft,
};
use watchword_core::SecretString;
use watchword_email_worker::EmailConfig;
use watchword_sms_worker::SmsConfig;

/// The configuration of a process. The file `config/watchword.toml` shows every key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The engine that holds state and queues.
    pub engine: EngineKind,
    /// The public listener.
    #[serde(default)]
    pub http: HttpConfig,
    /// The listener for health, metrics and the admin API.
    #[serde(default)]
    pub admin: AdminConfig,
    /// Format and level of the logs.
    #[serde(default)]
    pub log: LogConfig,
    /// The database file; required by the embedded engine.
    pub embedded: Option<EmbeddedConfig>,
    /// The broker; required by the distributed engine.
    pub rabbitmq: Option<PeerConfig>,
    /// The store; required by the distributed engine.
    pub redis: Option<PeerConfig>,
    /// The places of the cryptographic keys.
    #[serde(default)]
    pub keys: KeysConfig,
    /// The applications that request codes.
    pub services: ServicesConfig,
    /// The retention of deliveries.
    #[serde(default)]
    pub ledger: LedgerConfig,
    /// A folder with templates that override the embedded ones.
    pub templates: Option<PathBuf>,
    /// The collector of traces; without it traces are off.
    pub traces: Option<TracesConfig>,
    /// The SMS worker, its providers and routes.
    pub sms: Option<SmsConfig>,
    /// The email worker, its relays and routes.
    pub email: Option<EmailConfig>,
    /// The file as it was read, overridden by environment variables.
    #[serde(skip)]
    pub source: toml::Table,
}

/// A valid setting that is likely to be a mistake. `config check`, `doctor`, a start and a reload
/// report it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The configuration key that the warning is about.
    pub key: String,
    /// The effect, and the fix.
    pub text: String,
}

impl Warning {
    /// Creates a warning about `key`.
    pub fn new(key: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            text: text.into(),
        }
    }
}

/// The engine that holds state and queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// A single process with an `SQLite` file.
    Embedded,
    /// Separate processes with `RabbitMQ` and Redis.
    Distributed,
}

impl EngineKind {
    /// Returns the engine's name in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Distributed => "distributed",
        }
    }
}

/// The section `[embedded]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddedConfig {
    /// The path of the `SQLite` file.
    pub path: PathBuf,
}

/// The sections `[rabbitmq]` and `[redis]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// The URL of the peer. It may contain a password only if it comes from the environment.
    pub url: String,
    /// The place of the password.
    pub password: Option<SecretRef>,
    /// Whether a connection without TLS to a host beyond loopback is allowed. Only the network
    /// protects recipients and passwords then.
    #[serde(default)]
    pub allow_cleartext: bool,
}

/// The section `[traces]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TracesConfig {
    /// The collector's URL for OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`.
    pub url: String,
    /// The sampled share of the traces that begin here, 0 to 1. A trace that the caller sampled is
    /// always kept.
    #[serde(default = "all")]
    pub share: f64,
    /// Headers of each request, for a collector that requires authentication.
    #[serde(default)]
    pub headers: BTreeMap<String, SecretRef>,
}

const fn all() -> f64 {
    1.0
}

/// The section `[ledger]`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LedgerConfig {
    /// How long a delivery is kept after its last change, 1 to 8,760 hours.
    pub retention_hours: u64,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self {
            retention_hours: 24,
        }
    }
}

impl PeerConfig {
    /// Returns the URL and reads the password. An error names the key below `key`.
    pub fn resolve(&self, key: &str) -> Result<(SecretString, Option<SecretString>), ConfigError> {
        let password = self.password.as_ref().map(SecretRef::resolve).transpose();
        let password = password.map_err(|error| error.within(&format!("{key}.password")))?;
        Ok((SecretString::new(self.url.clone()), password))
    }
}

impl Config {
    /// Reads `path`, overridden by `environment`. Returns the first error if there are several.
    pub fn read_under(
        path: &Path,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let (config, errors) = Self::draft(path, environment);
        match errors.into_iter().next() {
            Some(error) => Err(error),
            None => config.ok_or_else(|| ConfigError::file(path, "cannot be read")),
        }
    }

    /// Reads `path`, overridden by `environment`. Returns the configuration without its invalid
    /// keys, and all errors.
    pub fn draft(
        path: &Path,
        environment: impl Iterator<Item = (String, String)>,
    ) -> (Option<Self>, Vec<ConfigError>) {
        let Draft {
            config,
            table,
            mut errors,
        } = load_draft::<Self>(path, environment);
        let config = config.map(|config| Self {
            source: table,
            ..config
        });
        if let Some(config) = &config {
            if !(1..=100_000).contains(&config.http.max_in_flight) {
                let problem = "must be 1 to 100000";
                errors.push(ConfigError::new("http.max_in_flight", problem));
            }
            if !(1..=8_760).contains(&config.ledger.retention_hours) {
                let problem = "must be 1 to 8760";
                errors.push(ConfigError::new("ledger.retention_hours", problem));
            }
        }
        (config, errors)
    }

    /// Returns an error if a service uses the API key of the samples of earlier versions, which is
    /// public.
    pub fn refuse_published_key(&self) -> Result<(), ConfigError> {
        for (name, service) in &self.services {
            let is_published = |key: &ApiKeyConfig| key.sha256.eq_ignore_ascii_case(PUBLISHED_KEY);
            if let Some(index) = service.api_keys.iter().position(is_published) {
                return Err(ConfigError::new(
                    format!("services.{name}.api_keys[{index}].sha256"),
                    "is the hash of a published example key. Make a key with `openssl rand -hex 24` and put its \
                     SHA-256 here (printf %s KEY | sha256sum)",
                ));
            }
        }
        Ok(())
    }
}

/// The SHA-256 of `example-key-change-me`.
const PUBLISHED_KEY: &str = "22a60ff8c666ee7f81ede927b1adfb38922412b0bbd7162b99525a22607f603b";

/// Returns the environment variables of the process whose name and value are UTF-8.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

#[cfg(test)]
mod tests;
