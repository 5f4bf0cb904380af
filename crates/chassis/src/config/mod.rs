//! Configuration: one TOML file, environment on top, secrets by reference, and errors that name
//! the key. No error prints a value but the path of a file and the name of a variable that a secret
//! refers to. Refuses keys it does not know.

use std::path::Path;

mod draft;
mod keys;
mod line;
mod loader;
mod paths;
mod secret;
mod sections;
mod wording;

pub use draft::{Draft, load, load_draft};
pub use keys::{KeyConfig, KeyNeeds, Keys, KeysConfig};
pub use line::line_of;
pub use loader::{files_of, unreadable_secrets, variable_of};
pub use secret::SecretRef;
pub use sections::{
    AdminConfig, AdminKeyConfig, AdminRole, ApiKeyConfig, GuessesConfig, HttpConfig, LimitsConfig,
    LogConfig, LogFormat, LogLevel, PolicyConfig, ResendMode, ServiceConfig, ServicesConfig,
};

/// What is wrong with the configuration. Shown to the operator; holds no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct ConfigError {
    /// The key's path: `services.jira.policy.lifetime_seconds`; or the file, for an error about the
    /// whole file.
    pub key: String,
    /// What must be true of it.
    pub problem: String,
    is_file: bool,
}

impl ConfigError {
    /// An error about `key`.
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            problem: problem.into(),
            is_file: false,
        }
    }

    /// An error about the configuration file at `path` as a whole.
    pub fn file(path: &Path, problem: impl Into<String>) -> Self {
        Self {
            key: path.display().to_string(),
            problem: problem.into(),
            is_file: true,
        }
    }

    /// Whether it is about the configuration file as a whole.
    pub const fn is_of_file(&self) -> bool {
        self.is_file
    }

    fn text(&self) -> String {
        let Self { key, problem, .. } = self;
        if self.is_file {
            format!("{key}: {problem}")
        } else {
            format!("config key `{key}`: {problem}")
        }
    }

    /// The same error with `parent` before its key.
    #[must_use]
    pub fn within(self, parent: &str) -> Self {
        Self {
            key: format!("{parent}.{}", self.key),
            ..self
        }
    }
}
