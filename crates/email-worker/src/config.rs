//! The section `[email]` and what is built from it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use watchword_chassis::config::{ConfigError, SecretRef};
use watchword_core::{Clock, ProviderName};
use watchword_delivery::{DEFAULT_CONCURRENCY, Inbox, Provider};

use crate::inbox::InboxProvider;
use crate::message::EmailText;
use crate::smtp::SmtpProvider;

/// `[email]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmailConfig {
    /// Messages in work at once.
    #[serde(default = "default_concurrency")]
    pub concurrency: u16,
    /// Who sends.
    pub provider: EmailProviderConfig,
}

const fn default_concurrency() -> u16 {
    DEFAULT_CONCURRENCY
}

/// `[email.provider]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum EmailProviderConfig {
    /// Keeps mails in memory; for the demo.
    Inbox {},
    /// An SMTP relay.
    Smtp(SmtpConfig),
}

/// An SMTP relay.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmtpConfig {
    /// Its name in ledger and labels.
    pub name: ProviderName,
    /// The relay's host.
    pub host: String,
    /// Its port: 465 for implicit TLS, 587 for STARTTLS.
    pub port: u16,
    /// How the connection is protected.
    pub tls: TlsMode,
    /// A PEM file with a certificate authority to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// The user, if the relay wants one.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<SecretRef>,
    /// The sender: `Example <no-reply@example.org>`.
    pub from: String,
    /// The longest an attempt takes: 1 to 60 s.
    #[serde(default = "fifteen")]
    pub timeout_seconds: u64,
    /// Connections at most.
    #[serde(default = "sixteen")]
    pub max_connections: usize,
}

const fn fifteen() -> u64 {
    15
}

const fn sixteen() -> usize {
    16
}

/// How the connection to a relay is protected. There is no mode that falls back to clear text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// TLS from the first byte.
    Implicit,
    /// Clear until STARTTLS, which must be offered.
    Starttls,
    /// Never; for relays on loopback only.
    None,
}

/// Builds the provider of `[email.provider]`. Templates lie in `templates`, if given.
pub fn build(
    config: &EmailConfig,
    templates: Option<&Path>,
    inbox: &Inbox,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn Provider>, ConfigError> {
    let text = EmailText::load(templates)
        .map_err(|error| ConfigError::new("templates", error.to_string()))?;
    match &config.provider {
        EmailProviderConfig::Inbox {} => {
            let name = "inbox"
                .parse()
                .map_err(|_| ConfigError::new("email.provider.name", "is no provider name"))?;
            Ok(Arc::new(InboxProvider {
                name,
                text,
                inbox: inbox.clone(),
                clock,
            }))
        }
        EmailProviderConfig::Smtp(smtp) => SmtpProvider::new(smtp, text)
            .map(|provider| Arc::new(provider) as Arc<dyn Provider>)
            .map_err(|error| error.within("email.provider")),
    }
}
