//! Configuration: a TOML file overridden by environment variables, with secrets by reference.
//! Errors name the key and contain no value except the path or the variable that a secret refers
//! to. Unknown keys are errors.

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

/// An error in the configuration. It is shown to the operator and contains no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct ConfigError {
    /// The path of the key, such as `services.jira.policy.lifetime_seconds`, or the path of the
    /// file for an error about the whole file.
    pub key: String,
    /// The problem or the rule that the key breaks.
    pub problem: String,
    is_file: bool,
}

impl ConfigError {
    /// Creates an error about `key`.
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            problem: problem.into(),
            is_file: false,
        }
    }

    /// Creates an error about the configuration file at `path` as a whole.
    pub fn file(path: &Path, problem: impl Into<String>) -> Self {
        Self {
            key: path.display().to_string(),
            problem: problem.into(),
            is_file: true,
        }
    }

    /// Whether the error is about the configuration file as a whole.
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

    /// Returns the error with `parent` prepended to its key.
    #[must_use]
    pub fn within(self, parent: &str) -> Self {
        Self {
            key: format!("{parent}.{}", self.key),
            ..self
        }
    }
}
