//! From the sections `[sms]` and `[email]` to the providers of a channel and their routes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use watchword_broker::Publisher;
use watchword_chassis::config::ConfigError;
use watchword_core::{Channel, Clock, Live, ProviderName, Timestamp};
use watchword_delivery::{
    DeliveryMetrics, Inbox, Provider, RouteConfig, Router, Rules, Standstill, replace_router,
};
use watchword_sms_worker::{HeardReceipt, ReceiptMetrics, ReceiptPlan, ReceiptPlans, queue_heard};

use crate::config::Config;

/// What a worker of one channel needs of its configuration.
pub struct ChannelSetup {
    /// Who sends what.
    pub router: Router,
    /// What follows where there is a choice.
    pub rules: Rules,
    /// Messages in work at once.
    pub concurrency: u16,
    /// Whose receipts are taken.
    pub receipts: BTreeMap<ProviderName, Arc<ReceiptPlan>>,
    /// Receipts that come by SMPP binds; with SMS only.
    pub heard: Option<mpsc::Receiver<HeardReceipt>>,
}

/// Configurations, one after the other, that wait to be listened to.
const CONFIGURATIONS: usize = 8;
/// How often the shown shares of providers are updated.
const SHOW_EVERY: Duration = Duration::from_secs(5);

/// What of a running channel can be replaced.
pub struct LiveChannel {
    /// Which.
    pub channel: Channel,
    /// Where its worker counts.
    pub metrics: DeliveryMetrics,
    /// Who sends what.
    pub router: Live<Router>,
    /// What follows where there is a choice.
    pub rules: Live<Rules>,
    /// Whose receipts are taken.
    pub plans: Live<ReceiptPlans>,
    heard: mpsc::Sender<mpsc::Receiver<HeardReceipt>>,
}

/// The receipts that come by SMPP binds, of each configuration after the other.
pub struct Heard(mpsc::Receiver<mpsc::Receiver<HeardReceipt>>);

/// A channel's next configuration, checked.
pub struct Change {
    router: Router,
    rules: Rules,
    receipts: BTreeMap<ProviderName, Arc<ReceiptPlan>>,
    grace_minutes: u64,
    heard: Option<mpsc::Receiver<HeardReceipt>>,
}

impl LiveChannel {
    /// Starts with `setup`.
    pub fn start(channel: Channel, setup: ChannelSetup, metrics: DeliveryMetrics) -> (Self, Heard) {
        let (sender, receiver) = mpsc::channel(CONFIGURATIONS);
        let live = Self {
            channel,
            metrics,
            router: Live::new(setup.router),
            rules: Live::new(setup.rules),
            plans: Live::new(ReceiptPlans::new(setup.receipts)),
            heard: sender,
        };
        live.hear(setup.heard);
        (live, Heard(receiver))
    }

    /// What `config` makes of the channel.
    pub fn next(
        &self,
        config: &Config,
        inbox: &Inbox,
        clock: &Arc<dyn Clock>,
    ) -> Result<Change, ConfigError> {
        let setup = build(config, self.channel, inbox, clock)?;
        Ok(Change {
            router: setup.router,
            rules: setup.rules,
            receipts: setup.receipts,
            grace_minutes: config
                .sms
                .as_ref()
                .map_or(0, |sms| sms.receipt_grace_minutes),
            heard: setup.heard,
        })
    }

    /// Uses `change` from `now` on. What is in work ends with the providers it began with.
    pub fn replace(&self, change: Change, now: Timestamp) {
        let plans = self.plans.get();
        let plans = plans.followed_by(change.receipts, now, change.grace_minutes);
        self.plans.replace(plans);
        self.rules.replace(change.rules);
        replace_router(&self.router, change.router, now);
        self.hear(change.heard);
    }

    /// Shows the shares of the providers now and then, because a circuit that an operator holds ends
    /// without a message, and logs when all providers of a route are stopped.
    pub async fn watch_providers(
        channel: Channel,
        router: Live<Router>,
        metrics: DeliveryMetrics,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) {
        let mut looks = interval(SHOW_EVERY);
        let mut known = Vec::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => {}
            }
            let (router, now) = (router.get(), clock.now());
            metrics.show_shares(&router, now);
            known = log_standstills(channel, &known, router.standstills(now));
        }
    }

    fn hear(&self, heard: Option<mpsc::Receiver<HeardReceipt>>) {
        if let Some(heard) = heard {
            // Nobody listens once the process stops; receipts of a bind that is not heard are lost.
            let _ = self.heard.try_send(heard);
        }
    }
}

impl Heard {
    /// Queues all of them until `stop`.
    pub async fn queue(
        mut self,
        publisher: Arc<dyn Publisher>,
        clock: Arc<dyn Clock>,
        metrics: ReceiptMetrics,
        stop: impl Future<Output = ()> + Send,
    ) {
        let mut tasks = JoinSet::new();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return,
                Some(heard) = self.0.recv() => {
                    tasks.spawn(queue_heard(heard, publisher.clone(), clock.clone(), metrics.clone()));
                }
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            }
        }
    }
}

/// Logs what changed since `known` was logged; returns what is known now.
fn log_standstills(
    channel: Channel,
    known: &[Standstill],
    now: Vec<Standstill>,
) -> Vec<Standstill> {
    for standstill in now.iter().filter(|one| !known.contains(one)) {
        tracing::warn!("{}", standstill.sentence(channel));
    }
    if now.is_empty() && !known.is_empty() {
        tracing::info!("every route of {channel} has a provider that is called again");
    }
    now
}

/// Returns every independent error of the section of `channel`: of its own keys, of each provider,
/// and, once these are right, of the routes.
pub fn errors(config: &Config, channel: Channel, clock: &Arc<dyn Clock>) -> Vec<ConfigError> {
    let inbox = Inbox::default();
    let mut config = config.clone();
    let mut errors = Vec::new();
    // Without a provider only the section's own keys can be wrong.
    while let Err(error) = parts(&only(&config, channel, None), channel, &inbox, clock) {
        let is_repaired = repair(&mut config, &error.key);
        errors.push(error);
        if !is_repaired {
            return errors;
        }
    }
    for name in provider_names(&config, channel) {
        let alone = only(&config, channel, Some(&name));
        errors.extend(parts(&alone, channel, &inbox, clock).err());
    }
    if errors.is_empty() {
        errors.extend(build(&config, channel, &inbox, clock).err());
    }
    errors
}

/// Sets a value that is valid, so that the rest of the section can be checked. Returns whether
/// `key` is known.
fn repair(config: &mut Config, key: &str) -> bool {
    let (Some((channel, key)), sms, email) =
        (key.split_once('.'), &mut config.sms, &mut config.email)
    else {
        return false;
    };
    match (channel, key, sms, email) {
        ("sms", "public_url", Some(sms), _) => sms.public_url = None,
        ("sms", "unknown_retries", Some(sms), _) => sms.unknown_retries = 0,
        ("sms", "receipt_grace_minutes", Some(sms), _) => sms.receipt_grace_minutes = 0,
        ("sms", "concurrency", Some(sms), _) => sms.concurrency = 1,
        ("email", "unknown_retries", _, Some(email)) => email.unknown_retries = 0,
        ("email", "concurrency", _, Some(email)) => email.concurrency = 1,
        _ => return false,
    }
    true
}

fn provider_names(config: &Config, channel: Channel) -> Vec<ProviderName> {
    let (sms, email) = (config.sms.as_ref(), config.email.as_ref());
    match channel {
        Channel::Sms => sms.map_or_else(Vec::new, |it| it.providers.keys().cloned().collect()),
        Channel::Email => email.map_or_else(Vec::new, |it| it.providers.keys().cloned().collect()),
    }
}

/// The configuration with no provider of `channel` but `name`.
fn only(config: &Config, channel: Channel, name: Option<&ProviderName>) -> Config {
    let mut config = config.clone();
    match channel {
        Channel::Sms => {
            if let Some(sms) = &mut config.sms {
                sms.providers.retain(|one, _| Some(one) == name);
            }
        }
        Channel::Email => {
            if let Some(email) = &mut config.email {
                email.providers.retain(|one, _| Some(one) == name);
            }
        }
    }
    config
}

/// Builds `channel`; the error names the key of its section.
pub fn build(
    config: &Config,
    channel: Channel,
    inbox: &Inbox,
    clock: &Arc<dyn Clock>,
) -> Result<ChannelSetup, ConfigError> {
    let Parts {
        providers,
        routes,
        rules,
        concurrency,
        receipts,
        heard,
    } = parts(config, channel, inbox, clock)?;
    let router = Router::new(providers, routes, clock.now())
        .map_err(|error| error.within(channel.as_str()))?;
    Ok(ChannelSetup {
        router,
        rules,
        concurrency,
        receipts,
        heard,
    })
}

/// What a section holds, before the routes are checked.
struct Parts<'a> {
    providers: Vec<Arc<dyn Provider>>,
    routes: &'a [RouteConfig],
    rules: Rules,
    concurrency: u16,
    receipts: BTreeMap<ProviderName, Arc<ReceiptPlan>>,
    heard: Option<mpsc::Receiver<HeardReceipt>>,
}

fn parts<'a>(
    config: &'a Config,
    channel: Channel,
    inbox: &Inbox,
    clock: &Arc<dyn Clock>,
) -> Result<Parts<'a>, ConfigError> {
    let templates = config.templates.as_deref();
    let missing = || ConfigError::new(channel.as_str(), "is missing");
    let parts = match channel {
        Channel::Sms => {
            let section = config.sms.as_ref().ok_or_else(missing)?;
            let built = watchword_sms_worker::build(section, templates, inbox, clock)?;
            Parts {
                providers: built.providers,
                routes: &section.routes,
                rules: built.rules,
                concurrency: section.concurrency,
                receipts: built.receipts,
                heard: Some(built.heard),
            }
        }
        Channel::Email => {
            let section = config.email.as_ref().ok_or_else(missing)?;
            let built = watchword_email_worker::build(section, templates, inbox, clock)?;
            Parts {
                providers: built.providers,
                routes: &section.routes,
                rules: built.rules,
                concurrency: section.concurrency,
                receipts: BTreeMap::new(),
                heard: None,
            }
        }
    };
    if !(1..=10_000).contains(&parts.concurrency) {
        let key = format!("{channel}.concurrency");
        return Err(ConfigError::new(key, "must be 1 to 10000"));
    }
    Ok(parts)
}
