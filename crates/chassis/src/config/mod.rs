//! Configuration: one TOML file, environment on top, secrets by reference, and errors that name
//! the key and never print a value. Refuses keys it does not know.

mod keys;
mod line;
mod loader;
mod secret;
mod sections;

pub use keys::{KeyConfig, KeyNeeds, Keys, KeysConfig};
pub use line::line_of;
pub use loader::{files_of, load, variable_of};
pub use secret::SecretRef;
pub use sections::{
    AdminConfig, ApiKeyConfig, GuessesConfig, HttpConfig, LimitsConfig, LogConfig, LogFormat,
    LogLevel, PolicyConfig, ResendMode, ServiceConfig, ServicesConfig,
};

/// What is wrong with the configuration. Shown to the operator; holds no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("config key `{key}`: {problem}")]
pub struct ConfigError {
    /// The key's path: `services.jira.policy.lifetime_seconds`.
    pub key: String,
    /// What must be true of it.
    pub problem: String,
}

impl ConfigError {
    /// An error about `key`.
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            problem: problem.into(),
        }
    }

    /// The same error with `parent` before its key.
    #[must_use]
    pub fn within(self, parent: &str) -> Self {
        Self {
            key: format!("{parent}.{}", self.key),
            problem: self.problem,
        }
    }
}
