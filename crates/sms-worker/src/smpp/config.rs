//! Configuration section `[sms.providers.NAME.smpp]` and its limits.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use watchword_chassis::config::ConfigError;
use watchword_core::{AttemptClass, SecretString};

use super::receipt::MessageIds;

/// `[sms.providers.NAME.smpp]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmppConfig {
    /// Host of the SMSC or tunnel.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Account name, at most 15 characters. The password is the secret `password`.
    pub system_id: String,
    /// `system_type` of the bind, if the peer requires one.
    #[serde(default)]
    pub system_type: String,
    /// Maximum number of unanswered messages: 1 to 1,000.
    #[serde(default = "sixteen")]
    pub window: usize,
    /// Interval of `enquire_link`: 5 to 300 s.
    #[serde(default = "thirty")]
    pub enquire_link_seconds: u64,
    /// Whether the host may be beyond loopback although the connection is clear text.
    #[serde(default)]
    pub allow_cleartext: bool,
    /// How receipts write the id from the submit response: `same`, `hex_then_decimal` or
    /// `decimal_then_hex`.
    #[serde(default)]
    pub message_ids: MessageIds,
    /// Overrides of the standard's classes by `command_status`: `{ "0x401" = "config_fault" }`.
    #[serde(default)]
    pub statuses: BTreeMap<String, AttemptClass>,
}

const fn sixteen() -> usize {
    16
}

const fn thirty() -> u64 {
    30
}

impl SmppConfig {
    /// Returns an error that names the key of the first invalid value.
    pub(super) fn check(&self, password: &SecretString) -> Result<(), ConfigError> {
        let is_loopback = self.host == "localhost"
            || self
                .host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        let fits = |text: &str, most: usize| {
            text.len() <= most && text.bytes().all(|b| b.is_ascii_graphic())
        };
        let rules = [
            (
                is_loopback || self.allow_cleartext,
                "smpp.host",
                "must be on loopback, because SMPP is clear text; use a tunnel, or set allow_cleartext",
            ),
            (
                !self.system_id.is_empty() && fits(&self.system_id, 15),
                "smpp.system_id",
                "must be 1 to 15 characters",
            ),
            (
                fits(&self.system_type, 12),
                "smpp.system_type",
                "must be at most 12 characters",
            ),
            (
                fits(password.expose(), 8),
                "secrets.password",
                "must be at most 8 characters for SMPP, none of them a space or control character",
            ),
            (
                (1..=1_000).contains(&self.window),
                "smpp.window",
                "must be 1 to 1000",
            ),
            (
                (5..=300).contains(&self.enquire_link_seconds),
                "smpp.enquire_link_seconds",
                "must be 5 to 300",
            ),
        ];
        rules
            .into_iter()
            .find(|(holds, ..)| !holds)
            .map_or(Ok(()), |(_, key, problem)| {
                Err(ConfigError::new(key, problem))
            })
    }
}
