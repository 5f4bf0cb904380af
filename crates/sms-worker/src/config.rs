//! Configuration section `[sms]`, and the channel that is built from it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use tokio::sync::mpsc;
use watchword_chassis::config::{ConfigError, SecretRef};
use watchword_core::{Clock, ProviderName, Recipient, SecretString};
use watchword_delivery::{DEFAULT_CONCURRENCY, Inbox, Provider, RouteConfig, Rules, attempt_limit};

use crate::http::{
    HttpProvider, HttpProviderParts, Preset, ReceiptConfig, RequestConfig, ResponseConfig,
};
use crate::inbox::InboxProvider;
use crate::presets::preset;
use crate::receipt::{HeardReceipt, ReceiptPlan};
use crate::smpp::{SmppConfig, SmppProvider};
use crate::text::SmsText;

/// `[sms]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmsConfig {
    /// Maximum number of concurrent provider calls.
    #[serde(default = "default_concurrency")]
    pub concurrency: u16,
    /// Public base URL to which gateways send receipts: `https://otp.example.org`. Without it no
    /// receipts are requested.
    pub public_url: Option<String>,
    /// How long receipts signed with a replaced secret are accepted after a reload: 0 to 60
    /// minutes. 0 revokes the old secret at once, for a secret that was stolen.
    #[serde(default = "fifteen")]
    pub receipt_grace_minutes: u64,
    /// How often an attempt with an unknown outcome is followed by another one: 0 to 3.
    #[serde(default = "one")]
    pub unknown_retries: u32,
    /// Whether a message that one provider rejected is offered to another.
    #[serde(default)]
    pub rejected_elsewhere: bool,
    /// Providers, by name.
    pub providers: BTreeMap<ProviderName, SmsProviderConfig>,
    /// Routes; required with more than one provider.
    #[serde(default)]
    pub routes: Vec<RouteConfig>,
}

const fn default_concurrency() -> u16 {
    DEFAULT_CONCURRENCY
}

const fn fifteen() -> u64 {
    15
}

const fn one() -> u32 {
    1
}

/// `[sms.providers.NAME]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmsProviderConfig {
    /// `inbox`, `http`, `smpp`, or the name of a preset.
    pub kind: String,
    /// Sender shown to the recipient.
    #[serde(default)]
    pub sender: String,
    /// Sender for numbers of a country (ISO 3166), where another sender is registered.
    #[serde(default)]
    pub senders: BTreeMap<String, String>,
    /// Maximum duration of an attempt: 1 to 20 s, default 10 s.
    pub timeout_seconds: Option<u64>,
    /// Values for `{setting:NAME}`.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// Secrets that `auth` and `receipt` refer to by name.
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretRef>,
    /// Request to the gateway, with `kind = "http"`.
    pub request: Option<RequestConfig>,
    /// Meaning of the gateway's answers, with `kind = "http"`.
    pub response: Option<ResponseConfig>,
    /// Receipts of the gateway, with `kind = "http"`.
    pub receipt: Option<ReceiptConfig>,
    /// Peer and account, with `kind = "smpp"`.
    pub smpp: Option<SmppConfig>,
}

/// Resolved secrets of one provider.
#[derive(Default)]
pub(crate) struct Secrets(BTreeMap<String, SecretString>);

impl Secrets {
    fn read(config: &BTreeMap<String, SecretRef>) -> Result<Self, ConfigError> {
        let read = |(name, secret): (&String, &SecretRef)| {
            let value = secret
                .resolve()
                .map_err(|error| error.within(&format!("secrets.{name}")))?;
            Ok((name.clone(), value))
        };
        config.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// Returns the secret `name`, which the config key `key` refers to.
    pub(crate) fn get(&self, name: &str, key: &str) -> Result<SecretString, ConfigError> {
        self.0.get(name).cloned().ok_or_else(|| {
            ConfigError::new(key, "names a secret that is not defined under `secrets`")
        })
    }

    #[cfg(test)]
    pub(crate) fn of(pairs: &[(&str, &str)]) -> Self {
        let own = |(name, value): &(&str, &str)| {
            ((*name).to_owned(), SecretString::new((*value).to_owned()))
        };
        Self(pairs.iter().map(own).collect())
    }
}

/// Senders shown to recipients, by country.
#[derive(Debug, Clone, Default)]
pub(crate) struct Senders {
    usual: String,
    by_country: BTreeMap<String, String>,
}

impl Senders {
    fn new(config: &SmsProviderConfig) -> Result<Self, ConfigError> {
        let is_country =
            |code: &String| code.len() == 2 && code.bytes().all(|b| b.is_ascii_uppercase());
        if !config.senders.keys().all(is_country) {
            return Err(ConfigError::new(
                "senders",
                "has a key that is not a country code of two capital letters",
            ));
        }
        Ok(Self {
            usual: config.sender.clone(),
            by_country: config.senders.clone(),
        })
    }

    /// Returns the sender for `recipient`.
    pub(crate) fn of(&self, recipient: &Recipient) -> &str {
        let Recipient::Sms(number) = recipient else {
            return &self.usual;
        };
        if self.by_country.is_empty() {
            return &self.usual;
        }
        number
            .country()
            .and_then(|country| self.by_country.get(country))
            .unwrap_or(&self.usual)
    }
}

/// SMS channel built from `[sms]`.
pub struct SmsChannel {
    /// Providers, ordered by name.
    pub providers: Vec<Arc<dyn Provider>>,
    /// Receipt plans of the providers that send receipts.
    pub receipts: BTreeMap<ProviderName, Arc<ReceiptPlan>>,
    /// Receipts that arrive over SMPP binds.
    pub heard: mpsc::Receiver<HeardReceipt>,
    /// Rules for unknown outcomes and rejected messages.
    pub rules: Rules,
}

/// Builds the providers of `[sms]`. Files under `templates`, if given, override the embedded
/// templates.
///
/// # Errors
///
/// Names the config key that is wrong.
pub fn build(
    config: &SmsConfig,
    templates: Option<&Path>,
    inbox: &Inbox,
    clock: &Arc<dyn Clock>,
) -> Result<SmsChannel, ConfigError> {
    if let Some(url) = &config.public_url {
        let is_url = url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "https" | "http"));
        if !is_url {
            return Err(ConfigError::new(
                "sms.public_url",
                "must be an http or https URL",
            ));
        }
    }
    if config.unknown_retries > 3 {
        return Err(ConfigError::new("sms.unknown_retries", "must be 0 to 3"));
    }
    if config.receipt_grace_minutes > 60 {
        return Err(ConfigError::new(
            "sms.receipt_grace_minutes",
            "must be 0 to 60",
        ));
    }
    let (told, heard) = crate::smpp::receipts();
    let mut channel = SmsChannel {
        heard,
        providers: Vec::new(),
        receipts: BTreeMap::new(),
        rules: Rules {
            unknown_retries: config.unknown_retries,
            rejected_elsewhere: config.rejected_elsewhere,
        },
    };
    for (name, provider) in &config.providers {
        let text = SmsText::load(templates)
            .map_err(|error| ConfigError::new("templates", error.to_string()))?;
        if provider.kind == "smpp" {
            let built = build_smpp(name, provider, text, told.clone())
                .map_err(|error| error.within(&format!("sms.providers.{name}")))?;
            channel.providers.push(built);
            continue;
        }
        let built = build_one(
            name,
            provider,
            config.public_url.as_deref(),
            text,
            inbox,
            clock,
        );
        let (built, receipts) =
            built.map_err(|error| error.within(&format!("sms.providers.{name}")))?;
        channel.providers.push(built);
        if let Some(plan) = receipts {
            channel.receipts.insert(name.clone(), plan);
        }
    }
    Ok(channel)
}

fn build_smpp(
    name: &ProviderName,
    config: &SmsProviderConfig,
    text: SmsText,
    told: mpsc::Sender<HeardReceipt>,
) -> Result<Arc<dyn Provider>, ConfigError> {
    let smpp = config.smpp.as_ref();
    let smpp = smpp.ok_or_else(|| ConfigError::new("smpp", "is missing"))?;
    let limit = attempt_limit(config.timeout_seconds.unwrap_or(10))?;
    let provider = SmppProvider::new(
        name.clone(),
        Senders::new(config)?,
        limit,
        smpp,
        &Secrets::read(&config.secrets)?,
        text,
        told,
    )?;
    Ok(Arc::new(provider))
}

type Built = (Arc<dyn Provider>, Option<Arc<ReceiptPlan>>);

fn build_one(
    name: &ProviderName,
    config: &SmsProviderConfig,
    public_url: Option<&str>,
    text: SmsText,
    inbox: &Inbox,
    clock: &Arc<dyn Clock>,
) -> Result<Built, ConfigError> {
    if config.kind == "inbox" {
        let provider = InboxProvider {
            name: name.clone(),
            text,
            inbox: inbox.clone(),
            clock: clock.clone(),
        };
        return Ok((Arc::new(provider), None));
    }
    let mut preset = described(config)?;
    let mut settings = preset.settings.clone();
    for (key, value) in &config.settings {
        if config.kind != "http" && !settings.contains_key(key) {
            return Err(ConfigError::new(
                format!("settings.{key}"),
                "is not a setting of this preset",
            ));
        }
        settings.insert(key.clone(), value.clone());
    }
    if let Some((key, _)) = settings.iter().find(|(_, value)| value.is_empty()) {
        return Err(ConfigError::new(format!("settings.{key}"), "is missing"));
    }
    if let Some(receipt) = preset.receipt.as_mut() {
        receipt.verify.apply_settings(&settings)?;
    }
    let secrets = Secrets::read(&config.secrets)?;
    let mut needed: Vec<_> = preset.secrets.iter().collect();
    // Receipts need a public URL and their secrets; without either, the provider works without
    // receipts.
    let has_receipt_secrets = preset
        .receipt_secrets
        .iter()
        .all(|name| config.secrets.contains_key(name));
    let wanted = public_url
        .zip(preset.receipt.as_ref())
        .filter(|_| has_receipt_secrets);
    if wanted.is_some() {
        needed.extend(&preset.receipt_secrets);
    }
    for secret in needed {
        secrets
            .get(secret, &format!("secrets.{secret}"))
            .map_err(|_| ConfigError::new(format!("secrets.{secret}"), "is missing"))?;
    }
    let receipts = match wanted {
        Some((url, receipt)) => {
            let plan = ReceiptPlan::compile(name.clone(), receipt, &secrets)
                .map_err(|error| error.within("receipt"))?;
            Some((url.to_owned(), Arc::new(plan)))
        }
        None => None,
    };
    let plan = receipts.as_ref().map(|(_, plan)| plan.clone());
    let provider = HttpProvider::new(HttpProviderParts {
        name: name.clone(),
        senders: Senders::new(config)?,
        timeout_seconds: config.timeout_seconds.unwrap_or(10),
        settings,
        secrets: &secrets,
        request: &preset.request,
        response: &preset.response,
        receipts,
        text,
        clock: clock.clone(),
    })?;
    Ok((Arc::new(provider), plan))
}

/// Returns the description of a gateway: from the configuration, or from the preset it names.
fn described(config: &SmsProviderConfig) -> Result<Preset, ConfigError> {
    if config.kind == "http" {
        let request = config.request.clone();
        return Ok(Preset {
            settings: BTreeMap::new(),
            secrets: Vec::new(),
            receipt_secrets: Vec::new(),
            request: request.ok_or_else(|| ConfigError::new("request", "is missing"))?,
            response: config.response.clone().unwrap_or_default(),
            receipt: config.receipt.clone(),
            answers: Vec::new(),
            receipts: Vec::new(),
        });
    }
    let own = [
        ("request", config.request.is_some()),
        ("response", config.response.is_some()),
        ("receipt", config.receipt.is_some()),
        ("smpp", config.smpp.is_some()),
    ];
    if let Some((key, _)) = own.iter().find(|(_, given)| *given) {
        return Err(ConfigError::new(
            *key,
            "is only allowed with kind = \"http\", not with a preset",
        ));
    }
    preset(&config.kind)
}
