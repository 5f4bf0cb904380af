//! The whole configuration: the sections of the crates under one roof.

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

/// The file `config/watchword.toml` shows every key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What holds state and queues.
    pub engine: EngineKind,
    /// The public listener.
    #[serde(default)]
    pub http: HttpConfig,
    /// The listener for health and metrics.
    #[serde(default)]
    pub admin: AdminConfig,
    /// Logs.
    #[serde(default)]
    pub log: LogConfig,
    /// The embedded engine.
    pub embedded: Option<EmbeddedConfig>,
    /// The distributed engine's broker.
    pub rabbitmq: Option<PeerConfig>,
    /// The distributed engine's store.
    pub redis: Option<PeerConfig>,
    /// Keys.
    #[serde(default)]
    pub keys: KeysConfig,
    /// Who asks for codes.
    pub services: ServicesConfig,
    /// How long deliveries are remembered.
    #[serde(default)]
    pub ledger: LedgerConfig,
    /// A folder with templates on top of the embedded ones.
    pub templates: Option<PathBuf>,
    /// Where traces go; nowhere without it.
    pub traces: Option<TracesConfig>,
    /// SMS.
    pub sms: Option<SmsConfig>,
    /// Email.
    pub email: Option<EmailConfig>,
    /// The same as it was written, with the environment over it.
    #[serde(skip)]
    pub source: toml::Table,
}

/// What is allowed and will surprise: `config check`, `doctor`, a start and a reload show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The configuration key it is about.
    pub key: String,
    /// What to know, and what to do.
    pub text: String,
}

impl Warning {
    /// A warning about `key`.
    pub fn new(key: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            text: text.into(),
        }
    }
}

/// What holds state and queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// One `SQLite` file and one process.
    Embedded,
    /// `RabbitMQ` and Redis.
    Distributed,
}

impl EngineKind {
    /// The engine's name in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Distributed => "distributed",
        }
    }
}

/// `[embedded]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddedConfig {
    /// The `SQLite` file.
    pub path: PathBuf,
}

/// `[rabbitmq]` and `[redis]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// Where it is. A password in it is refused in the file, and accepted from the environment.
    pub url: String,
    /// Its password.
    pub password: Option<SecretRef>,
    /// Whether the connection may be in clear although the host is beyond loopback: then only the
    /// network in between protects recipients and passwords.
    #[serde(default)]
    pub allow_cleartext: bool,
}

/// `[traces]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TracesConfig {
    /// The collector's address for OTLP over HTTP: `http://127.0.0.1:4318/v1/traces`.
    pub url: String,
    /// The share of traces that begin here and are kept, 0 to 1; those of a caller who keeps them
    /// are kept.
    #[serde(default = "all")]
    pub share: f64,
    /// Headers of each request, for a collector that wants to know who calls.
    #[serde(default)]
    pub headers: BTreeMap<String, SecretRef>,
}

const fn all() -> f64 {
    1.0
}

/// `[ledger]`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LedgerConfig {
    /// How long a delivery is remembered after its last change.
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
    /// URL and password, read.
    pub fn resolve(&self, key: &str) -> Result<(SecretString, Option<SecretString>), ConfigError> {
        let password = self.password.as_ref().map(SecretRef::resolve).transpose();
        let password = password.map_err(|error| error.within(&format!("{key}.password")))?;
        Ok((SecretString::new(self.url.clone()), password))
    }
}

impl Config {
    /// Reads `path` and `environment` over it; the error is the first one.
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

    /// Reads `path` and `environment` over it: the configuration without the keys that are wrong,
    /// and all errors.
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

    /// Refuses the API key that the samples of earlier versions had: everybody knows it.
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

/// The process's environment, as far as it is text.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

#[cfg(test)]
mod tests;
