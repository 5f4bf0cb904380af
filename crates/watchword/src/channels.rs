//! Builds the providers and routes of a channel from the sections `[sms]` and `[email]`, and
//! replaces them at a reload.

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

/// The validated configuration of a channel's worker.
pub struct ChannelSetup {
    /// The providers and routes.
    pub router: Router,
    /// The configured choices after an attempt, such as `unknown_retries`.
    pub rules: Rules,
    /// The most messages in flight, 1 to 10,000.
    pub concurrency: u16,
    /// The receipt plans of the providers whose receipts arrive over HTTP.
    pub receipts: BTreeMap<ProviderName, Arc<ReceiptPlan>>,
    /// The receipts that arrive over SMPP binds; `None` for email.
    pub heard: Option<mpsc::Receiver<HeardReceipt>>,
}

/// The capacity of the channel that hands each configuration's SMPP receipts to [`Heard`].
const CONFIGURATIONS: usize = 8;
/// How often the series of the providers' shares are updated.
const SHOW_EVERY: Duration = Duration::from_secs(5);

/// The parts of a running channel that a reload replaces.
pub struct LiveChannel {
    /// The channel.
    pub channel: Channel,
    /// The metrics of its worker.
    pub metrics: DeliveryMetrics,
    /// The providers and routes.
    pub router: Live<Router>,
    /// The configured choices after an attempt.
    pub rules: Live<Rules>,
    /// The receipt plans, current and recent ones.
    pub plans: Live<ReceiptPlans>,
    heard: mpsc::Sender<mpsc::Receiver<HeardReceipt>>,
}

/// The receipts that arrive over SMPP binds: a receiver for each configuration.
pub struct Heard(mpsc::Receiver<mpsc::Receiver<HeardReceipt>>);

/// A validated configuration that is to replace the running one of a channel.
pub struct Change {
    router: Router,
    rules: Rules,
    receipts: BTreeMap<ProviderName, Arc<ReceiptPlan>>,
    grace_minutes: u64,
    heard: Option<mpsc::Receiver<HeardReceipt>>,
}

impl LiveChannel {
    /// Creates a running channel with `setup`.
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

    /// Builds the next configuration of the channel from `config`.
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

    /// Replaces the running configuration by `change`. Deliveries in flight keep the providers that
    /// they started with.
    pub fn replace(&self, change: Change, now: Timestamp) {
        let plans = self.plans.get();
        let plans = plans.followed_by(change.receipts, now, change.grace_minutes);
        self.plans.replace(plans);
        self.rules.replace(change.rules);
        replace_router(&self.router, change.router, now);
        self.hear(change.heard);
    }

    /// Updates the series of the providers' shares and logs standstills until `stop`. It polls,
    /// because a circuit that an operator holds ends at a time, not with a message.
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
            // Sending fails only if the process is stopping or eight reloads are pending. The
            // receipts of these binds are then dropped.
            let _ = self.heard.try_send(heard);
        }
    }
}

impl Heard {
    /// Publishes the receipts of all binds until `stop`.
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

/// Logs each standstill in `now` that is not in `known`, and the end of the last one. Returns
/// `now`.
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

/// Returns every independent error of the section of `channel`: those of its own keys, of each
/// provider and, only if there are none of these, of the routes.
pub fn errors(config: &Config, channel: Channel, clock: &Arc<dyn Clock>) -> Vec<ConfigError> {
    let inbox = Inbox::default();
    let mut config = config.clone();
    let mut errors = Vec::new();
    // Without providers only the section's own keys can cause an error.
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

/// Sets `key` to a valid value, so that the rest of the section can be checked. Returns whether the
/// key is known.
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

/// Returns `config` with the provider `name` as the only one of `channel`, or with none.
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

/// Builds `channel` from its section. An error names the key.
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

/// The parts of a section, before the routes are validated.
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
