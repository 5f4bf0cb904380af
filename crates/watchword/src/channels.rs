//! From the sections `[sms]` and `[email]` to the providers of a channel and their routes.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use watchword_chassis::config::ConfigError;
use watchword_core::{Channel, Clock, ProviderName};
use watchword_delivery::{Inbox, Router, Rules};
use watchword_events::ReceiptReceived;
use watchword_sms_worker::ReceiptPlan;

use crate::config::Config;

/// What a worker of one channel needs of its configuration.
pub struct ChannelSetup {
    /// Who sends what.
    pub router: Arc<Router>,
    /// What follows where there is a choice.
    pub rules: Rules,
    /// Messages in work at once.
    pub concurrency: u16,
    /// Whose receipts are taken.
    pub receipts: BTreeMap<ProviderName, Arc<ReceiptPlan>>,
    /// Receipts that come by SMPP binds; with SMS only.
    pub heard: Option<mpsc::Receiver<ReceiptReceived>>,
}

/// Builds `channel`; what is wrong in its section is told by key.
pub fn build(
    config: &Config,
    channel: Channel,
    inbox: &Inbox,
    clock: &Arc<dyn Clock>,
) -> Result<ChannelSetup, ConfigError> {
    let templates = config.templates.as_deref();
    let missing = || ConfigError::new(channel.as_str(), "is missing");
    let (providers, routes, rules, concurrency, receipts, heard) = match channel {
        Channel::Sms => {
            let section = config.sms.as_ref().ok_or_else(missing)?;
            let built = watchword_sms_worker::build(section, templates, inbox, clock)?;
            (
                built.providers,
                &section.routes,
                built.rules,
                section.concurrency,
                built.receipts,
                Some(built.heard),
            )
        }
        Channel::Email => {
            let section = config.email.as_ref().ok_or_else(missing)?;
            let built = watchword_email_worker::build(section, templates, inbox, clock)?;
            (
                built.providers,
                &section.routes,
                built.rules,
                section.concurrency,
                BTreeMap::new(),
                None,
            )
        }
    };
    if !(1..=10_000).contains(&concurrency) {
        return Err(ConfigError::new(
            format!("{channel}.concurrency"),
            "must be 1 to 10000",
        ));
    }
    let router = Router::new(providers, routes, clock.now())
        .map_err(|error| error.within(channel.as_str()))?;
    Ok(ChannelSetup {
        router: Arc::new(router),
        rules,
        concurrency,
        receipts,
        heard,
    })
}
