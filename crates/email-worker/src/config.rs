//! Configuration section `[email]`, and the channel that is built from it.

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
    /// Maximum number of concurrent relay calls.
    #[serde(default = "default_concurrency")]
    pub concurrency: u16,
    /// How often an attempt with an unknown outcome is followed by another one: 0 to 3.
    #[serde(default = "one")]
    pub unknown_retries: u32,
    /// Whether a mail that one relay rejected is offered to another.
    #[serde(default)]
    pub rejected_elsewhere: bool,
    /// Providers, by name.
    pub providers: BTreeMap<ProviderName, EmailProviderConfig>,
    /// Routes; required with more than one provider.
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
    /// Keeps mails in memory, for the demo.
    Inbox {},
    /// SMTP relay.
    Smtp(Box<SmtpConfig>),
}

/// SMTP relay and the sender of its mails.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmtpConfig {
    /// Host of the relay.
    pub host: String,
    /// TCP port: 465 for implicit TLS, 587 for STARTTLS.
    pub port: u16,
    /// Protection of the connection.
    pub tls: TlsMode,
    /// Name in EHLO. Default: the host name if it has a dot, otherwise an address literal.
    pub hello: Option<String>,
    /// PEM file with certificate authorities to trust in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// User name, if the relay requires a login.
    pub username: Option<String>,
    /// Password of the user.
    pub password: Option<SecretRef>,
    /// Sender: `Example <no-reply@example.org>`.
    pub from: String,
    /// Maximum duration of an attempt: 1 to 20 s, default 15 s.
    #[serde(default = "fifteen")]
    pub timeout_seconds: u64,
    /// Maximum number of connections, 1 to 256. Mails to one domain use at most a quarter of them,
    /// but at least one.
    #[serde(default = "sixteen")]
    pub max_connections: usize,
    /// DKIM keys; each signs every mail.
    #[serde(default)]
    pub dkim: Vec<DkimConfig>,
}

impl SmtpConfig {
    /// Whether the name in EHLO is fully qualified. Many relays distrust other names, except a
    /// relay on the same machine.
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

/// Protection of the connection to a relay. No mode falls back to clear text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// TLS from the first byte.
    Implicit,
    /// Clear text until STARTTLS, which the relay must offer.
    Starttls,
    /// No TLS; only for relays on loopback.
    None,
}

/// Email channel built from `[email]`.
pub struct EmailChannel {
    /// Providers, ordered by name.
    pub providers: Vec<Arc<dyn Provider>>,
    /// Rules for unknown outcomes and rejected mails.
    pub rules: Rules,
}

/// Builds the providers of `[email]`. Files under `templates`, if given, override the embedded
/// templates.
///
/// # Errors
///
/// Names the config key that is wrong.
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
