//! The section `[email]` and what is built from it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use watchword_chassis::config::{ConfigError, SecretRef};
use watchword_core::{Clock, ProviderName};
use watchword_delivery::{DEFAULT_CONCURRENCY, Inbox, Provider, RouteConfig, Rules};

use crate::dkim::DkimConfig;
use crate::inbox::InboxProvider;
use crate::message::EmailText;
use crate::smtp::SmtpProvider;

/// `[email]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmailConfig {
    /// Calls of relays at once.
    #[serde(default = "default_concurrency")]
    pub concurrency: u16,
    /// How often an attempt of unknown outcome is followed by another.
    #[serde(default = "one")]
    pub unknown_retries: u32,
    /// Whether a mail that one relay refused is offered to another.
    #[serde(default)]
    pub rejected_elsewhere: bool,
    /// Who sends, by name.
    pub providers: BTreeMap<ProviderName, EmailProviderConfig>,
    /// Who gets what; needed with more than one provider.
    #[serde(default)]
    pub routes: Vec<RouteConfig>,
}

const fn one() -> u32 {
    1
}

const fn default_concurrency() -> u16 {
    DEFAULT_CONCURRENCY
}

/// `[email.providers.NAME]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum EmailProviderConfig {
    /// Keeps mails in memory; for the demo.
    Inbox {},
    /// An SMTP relay.
    Smtp(Box<SmtpConfig>),
}

/// An SMTP relay.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmtpConfig {
    /// The relay's host.
    pub host: String,
    /// Its port: 465 for implicit TLS, 587 for STARTTLS.
    pub port: u16,
    /// How the connection is protected.
    pub tls: TlsMode,
    /// The name in EHLO. Without it: the host name if it has a dot, else an address literal.
    pub hello: Option<String>,
    /// A PEM file with certificate authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// The user, if the relay wants one.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<SecretRef>,
    /// The sender: `Example <no-reply@example.org>`.
    pub from: String,
    /// The longest an attempt takes: 1 to 20 s.
    #[serde(default = "fifteen")]
    pub timeout_seconds: u64,
    /// Connections at most. Mails to one domain use a quarter of them, at least one.
    #[serde(default = "sixteen")]
    pub max_connections: usize,
    /// Keys that sign the mails.
    #[serde(default)]
    pub dkim: Vec<DkimConfig>,
}

impl SmtpConfig {
    /// Whether EHLO says a full name. Many relays mistrust others, except one on the same machine.
    pub fn has_full_hello(&self) -> bool {
        crate::smtp::has_full_hello(self)
    }
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

/// What is built from `[email]`.
pub struct EmailChannel {
    /// Who sends, in the order of their names.
    pub providers: Vec<Arc<dyn Provider>>,
    /// What follows where there is a choice.
    pub rules: Rules,
}

/// Builds the providers of `[email]`. Templates lie in `templates`, if given.
pub fn build(
    config: &EmailConfig,
    templates: Option<&Path>,
    inbox: &Inbox,
    clock: &Arc<dyn Clock>,
) -> Result<EmailChannel, ConfigError> {
    if config.unknown_retries > 3 {
        return Err(ConfigError::new("email.unknown_retries", "must be 0 to 3"));
    }
    let mut providers = Vec::new();
    for (name, provider) in &config.providers {
        let text = EmailText::load(templates)
            .map_err(|error| ConfigError::new("templates", error.to_string()))?;
        let built: Arc<dyn Provider> = match provider {
            EmailProviderConfig::Inbox {} => Arc::new(InboxProvider {
                name: name.clone(),
                text,
                inbox: inbox.clone(),
                clock: clock.clone(),
            }),
            EmailProviderConfig::Smtp(smtp) => {
                let provider = SmtpProvider::new(name.clone(), smtp, text);
                Arc::new(
                    provider.map_err(|error| error.within(&format!("email.providers.{name}")))?,
                )
            }
        };
        providers.push(built);
    }
    Ok(EmailChannel {
        providers,
        rules: Rules {
            unknown_retries: config.unknown_retries,
            rejected_elsewhere: config.rejected_elsewhere,
        },
    })
}
