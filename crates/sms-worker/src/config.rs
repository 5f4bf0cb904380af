//! The section `[sms]` and what is built from it.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use watchword_chassis::config::{ConfigError, SecretRef};
use watchword_core::{Clock, ProviderName};
use watchword_delivery::{DEFAULT_CONCURRENCY, Inbox, Provider};

use crate::http::{AuthConfig, HttpProvider, HttpProviderConfig, RequestConfig, ResponseConfig};
use crate::inbox::InboxProvider;
use crate::text::SmsText;

/// `[sms]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmsConfig {
    /// Messages in work at once.
    #[serde(default = "default_concurrency")]
    pub concurrency: u16,
    /// Who sends.
    pub provider: SmsProviderConfig,
}

const fn default_concurrency() -> u16 {
    DEFAULT_CONCURRENCY
}

/// `[sms.provider]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum SmsProviderConfig {
    /// Keeps messages in memory; for the demo.
    Inbox {},
    /// Kannel's sendsms interface.
    Kannel {
        /// `http://127.0.0.1:13013/cgi-bin/sendsms`.
        url: String,
        /// The sendsms user.
        username: String,
        /// The sendsms user's password.
        password: SecretRef,
        /// What people see as sender.
        sender: String,
        /// The longest an attempt takes.
        timeout_seconds: Option<u64>,
    },
    /// Any gateway with an HTTP API.
    Http {
        /// Its name.
        name: ProviderName,
        /// What people see as sender.
        #[serde(default)]
        sender: String,
        /// The longest an attempt takes; 10 s.
        timeout_seconds: Option<u64>,
        /// The request.
        request: Box<RequestConfig>,
        /// What its answer means.
        #[serde(default)]
        response: ResponseConfig,
    },
}

/// What a preset file holds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Preset {
    pub(crate) request: RequestConfig,
    pub(crate) response: ResponseConfig,
}

pub(crate) fn kannel_preset() -> Result<Preset, ConfigError> {
    toml::from_str(include_str!("../presets/kannel.toml"))
        .map_err(|_| ConfigError::new("kind", "has a preset that cannot be read"))
}

/// Builds the provider of `[sms.provider]`. Templates lie in `templates`, if given.
pub fn build(
    config: &SmsConfig,
    templates: Option<&Path>,
    inbox: &Inbox,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn Provider>, ConfigError> {
    let text = SmsText::load(templates)
        .map_err(|error| ConfigError::new("templates", error.to_string()))?;
    let named = |name: &str| {
        name.parse()
            .map_err(|_| ConfigError::new("sms.provider.name", "is no provider name"))
    };
    let http = match config.provider.clone() {
        SmsProviderConfig::Inbox {} => {
            let provider = InboxProvider {
                name: named("inbox")?,
                text,
                inbox: inbox.clone(),
                clock,
            };
            return Ok(Arc::new(provider));
        }
        SmsProviderConfig::Kannel {
            url,
            username,
            password,
            sender,
            timeout_seconds,
        } => {
            let Preset {
                mut request,
                response,
            } = kannel_preset()?;
            request.url = url;
            request.auth = AuthConfig::Query {
                username: Some(username),
                password,
            };
            let timeout_seconds = timeout_seconds.unwrap_or(10);
            HttpProviderConfig {
                name: named("kannel")?,
                sender,
                timeout_seconds,
                request,
                response,
            }
        }
        SmsProviderConfig::Http {
            name,
            sender,
            timeout_seconds,
            request,
            response,
        } => {
            let timeout_seconds = timeout_seconds.unwrap_or(10);
            HttpProviderConfig {
                name,
                sender,
                timeout_seconds,
                request: *request,
                response,
            }
        }
    };
    HttpProvider::new(&http, text)
        .map(|provider| Arc::new(provider) as Arc<dyn Provider>)
        .map_err(|error| error.within("sms.provider"))
}
