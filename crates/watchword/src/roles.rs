//! Starts the roles of a process from its engine and configuration.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::Context;
use axum::Router;
use tokio::sync::Semaphore;
use watchword_admin::AdminKeys;
use watchword_admin::configuration::Loaded;
use watchword_admin::operate::{OperatedChannel, Operator};
use watchword_chassis::lifecycle::Lifecycle;
use watchword_chassis::spans::Spans;
use watchword_chassis::{Services, SystemEntropy, http, telemetry};
use watchword_core::{Channel, Clock, Key, KeyRing, Live, Sealer};
use watchword_delivery::{
    DeliveryMetrics, Dispatcher, DispatcherParts, Inbox, Receipts, ReceiptsParts, Reporter, Worker,
    prefetch,
};
use watchword_events::Lane;
use watchword_issuer::http::IssuerState;
use watchword_issuer::{
    Intake, IntakeParts, Issuer, IssuerMetrics, IssuerParts, MessageCheck, Stepper, StepperParts,
};
use watchword_metrics::prometheus::Registry;
use watchword_sms_worker::{ReceiptMetrics, ReceiptRouteState};
use watchword_verifier::http::VerifierState;
use watchword_verifier::{Index, Opener, Verifier, VerifierMetrics, VerifierParts};

use crate::certificates::Watch;
use crate::channels::{self, LiveChannel};
use crate::cli::Role;
use crate::config::Config;
use crate::engine::Engine;
use crate::needs::Needs;
use crate::otlp::{Exporter, Traces};
use crate::reload::Reloads;
use crate::texts::Texts;

/// The most requests by event in flight.
const REQUESTS_IN_WORK: u16 = 128;

/// The most fallback steps in flight.
const STEPS_IN_WORK: u16 = 64;
/// The most receipts in flight.
const RECEIPTS_IN_WORK: u16 = 64;

/// The parts that all roles of a process share.
pub struct Shared {
    /// The configuration at the start. The `Live` fields have the values of the last reload.
    pub config: Config,
    /// The stores and queues.
    pub engine: Engine,
    /// The services that may request codes.
    pub services: Live<Services>,
    /// The clock of the engine.
    pub clock: Arc<dyn Clock>,
    /// The registry of all series.
    pub registry: Registry,
    /// The messages of providers of the kind `inbox`.
    pub inbox: Inbox,
    /// The recorder of spans.
    pub spans: Spans,
    /// The metrics of reloads.
    pub reloads: Reloads,
    pub(crate) exporter: Option<Live<Exporter>>,
    pub(crate) needs: Needs,
    pub(crate) index: Option<Key>,
    pub(crate) digest_keys: Option<Live<KeyRing>>,
    pub(crate) sealer: Option<Live<Sealer>>,
    pub(crate) channels: Mutex<Vec<LiveChannel>>,
    /// The keys of the admin API.
    pub admin_keys: Live<AdminKeys>,
    /// The configuration as it was loaded, without secrets, for the admin API.
    pub shown: Live<Loaded>,
    issuer: OnceLock<Arc<Issuer>>,
    pub(crate) issuer_metrics: OnceLock<IssuerMetrics>,
    pub(crate) texts: OnceLock<Live<Box<dyn MessageCheck>>>,
    verifier: Option<Arc<Verifier>>,
}

impl Shared {
    /// Reads the keys that a process with these `needs` uses, and builds the shared parts.
    pub fn new(
        config: Config,
        needs: Needs,
        engine: Engine,
        services: Services,
        registry: Registry,
        traces: Traces,
    ) -> anyhow::Result<Self> {
        let clock = engine.clock.clone();
        let keys = config.keys.resolve(needs.keys)?;
        let admin_keys = Live::new(AdminKeys::from_config(&config.admin)?);
        let shown = Live::new(Loaded::new(&config.source, Vec::new()));
        let sealer = keys.sealing.map(|keys| Live::new(sealer_of(keys)));
        let digest_keys = keys.digest.map(Live::new);
        let verifier = match (&keys.index, &digest_keys) {
            (Some(index), Some(digest_keys)) => Some(Arc::new(Verifier::new(VerifierParts {
                store: engine.verifications.clone(),
                index: Index::new(index.clone()),
                digest_keys: digest_keys.clone(),
                clock: clock.clone(),
                entropy: Arc::new(SystemEntropy),
                metrics: VerifierMetrics::register(&registry)?,
            }))),
            _ => None,
        };
        Ok(Self {
            config,
            needs,
            engine,
            services: Live::new(services),
            clock,
            spans: traces.spans,
            exporter: traces.exporter,
            reloads: Reloads::register(&registry)?,
            registry,
            inbox: Inbox::default(),
            index: keys.index,
            digest_keys,
            sealer,
            channels: Mutex::default(),
            admin_keys,
            shown,
            issuer: OnceLock::new(),
            issuer_metrics: OnceLock::new(),
            texts: OnceLock::new(),
            verifier,
        })
    }

    /// Replaces the admin keys by those that the admin listener already uses.
    #[must_use]
    pub fn with_admin_keys(mut self, keys: Live<AdminKeys>) -> Self {
        self.admin_keys = keys;
        self
    }

    /// Starts `roles` and returns their public routes.
    pub async fn start(&self, roles: &[Role], lifecycle: &mut Lifecycle) -> anyhow::Result<Router> {
        let (mut api, mut receipts) = (Router::new(), Router::new());
        let names: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
        telemetry::runs(&self.registry, &names)?;
        for role in roles {
            match role {
                Role::Issuer => api = api.merge(self.issuer(lifecycle).await?),
                Role::Verifier => api = api.merge(self.verifier_routes()?),
                Role::SmsWorker => {
                    let worker = self.worker(Channel::Sms, lifecycle);
                    receipts = receipts.merge(worker.await?);
                }
                Role::EmailWorker => {
                    let worker = self.worker(Channel::Email, lifecycle);
                    receipts = receipts.merge(worker.await?);
                }
            }
        }
        let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let routers = channels.iter().map(|live| live.router.clone()).collect();
        drop(channels);
        let watch = Watch::new(
            &self.registry,
            &self.config,
            self.engine.broker.is_some(),
            routers,
        )?;
        let stop = lifecycle.stop().cancelled_owned();
        lifecycle.spawn("certificates", async move {
            tokio::select! {
                () = stop => {}
                () = watch.run() => {}
            }
        });
        Ok(http::within(api, self.config.http.max_in_flight).merge(receipts))
    }

    /// Returns the operations of this process. Those of roles that were not started are absent.
    pub fn operator(&self) -> Operator {
        let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let operated = |live: &LiveChannel| OperatedChannel {
            channel: live.channel,
            router: live.router.clone(),
            metrics: live.metrics.clone(),
        };
        Operator {
            services: self.services.clone(),
            clock: self.clock.clone(),
            verifications: self.engine.verifications.clone(),
            ledger: self.engine.ledger.clone(),
            limiter: self.engine.limiter.clone(),
            broker: self.engine.broker.clone(),
            verifier: self.verifier.clone(),
            issuer: self.issuer.get().cloned(),
            channels: channels.iter().map(operated).collect(),
            searching: Semaphore::new(1),
            reading_dead_letters: Semaphore::new(1),
            auditing: Semaphore::new(1),
        }
    }

    fn verifier(&self) -> anyhow::Result<&Arc<Verifier>> {
        let verifier = self.verifier.as_ref();
        verifier.context("keys.digest and keys.index are needed")
    }

    fn sealer(&self) -> anyhow::Result<&Live<Sealer>> {
        self.sealer.as_ref().context("keys.sealing is needed")
    }

    async fn issuer(&self, lifecycle: &mut Lifecycle) -> anyhow::Result<Router> {
        let metrics = IssuerMetrics::register(&self.registry)?;
        metrics.serves(&self.services.get());
        // A process has at most one issuer, so this cannot be set already.
        let _ = self.issuer_metrics.set(metrics.clone());
        let texts = Texts::load(self.config.templates.as_deref())?;
        let texts: Live<Box<dyn MessageCheck>> = Live::new(Box::new(texts));
        let _ = self.texts.set(texts.clone());
        let broker = self.engine.queues()?;
        let publisher = broker.publisher();
        let opener = Opener::new(self.verifier()?.clone(), self.sealer()?.clone());
        let issuer = Arc::new(Issuer::new(IssuerParts {
            opener: Arc::new(opener),
            limiter: self.engine.limiter.clone(),
            ledger: self.engine.ledger.clone(),
            publisher: publisher.clone(),
            sealer: self.sealer()?.clone(),
            clock: self.clock.clone(),
            metrics: metrics.clone(),
            texts,
        }));
        let _ = self.issuer.set(issuer.clone());
        if self.engine.takes_requests {
            let intake = Intake::new(IntakeParts {
                issuer: issuer.clone(),
                verifier: self.verifier()?.clone(),
                requests: self.engine.requests.clone(),
                services: self.services.clone(),
                publisher,
                clock: self.clock.clone(),
                metrics: metrics.clone(),
                spans: self.spans.clone(),
            });
            let consumer = broker.consume(Lane::Requests, REQUESTS_IN_WORK).await;
            lifecycle.spawn(
                "intake",
                intake.run(consumer, lifecycle.stop().cancelled_owned()),
            );
        }
        let stepper = Stepper::new(StepperParts {
            issuer: issuer.clone(),
            ledger: self.engine.ledger.clone(),
            services: self.services.clone(),
            clock: self.clock.clone(),
            metrics: metrics.clone(),
        });
        let consumer = broker.consume(Lane::Timers, STEPS_IN_WORK).await;
        lifecycle.spawn(
            "stepper",
            stepper.run(consumer, lifecycle.stop().cancelled_owned()),
        );
        Ok(watchword_issuer::http::routes(IssuerState {
            issuer,
            services: self.services.clone(),
            metrics,
            spans: self.spans.clone(),
        }))
    }

    fn verifier_routes(&self) -> anyhow::Result<Router> {
        Ok(watchword_verifier::http::routes(VerifierState {
            verifier: self.verifier()?.clone(),
            ledger: self.engine.ledger.clone(),
            services: self.services.clone(),
            spans: self.spans.clone(),
        }))
    }

    /// Starts the worker of `channel` and returns the route of its receipts, if it has one.
    async fn worker(&self, channel: Channel, lifecycle: &mut Lifecycle) -> anyhow::Result<Router> {
        let broker = self.engine.queues()?;
        let setup = channels::build(&self.config, channel, &self.inbox, &self.clock)?;
        let providers = setup.router.providers();
        let names: Vec<_> = providers.iter().map(|provider| provider.name()).collect();
        let metrics = DeliveryMetrics::register(&self.registry, channel, &names)?;
        let reporter = Arc::new(Reporter::new(
            broker.publisher(),
            self.clock.clone(),
            metrics.clone(),
        ));
        let concurrency = setup.concurrency;
        // Providers whose receipts arrive over HTTP or over an SMPP bind.
        let by_bind = providers.iter().filter(|provider| provider.wants_name());
        let by_bind = by_bind.map(|provider| provider.name());
        let takers: BTreeSet<_> = setup.receipts.keys().chain(by_bind).cloned().collect();
        let (live, heard) = LiveChannel::start(channel, setup, metrics.clone());
        let shares = LiveChannel::watch_providers(
            channel,
            live.router.clone(),
            metrics.clone(),
            self.clock.clone(),
            lifecycle.stop(),
        );
        lifecycle.spawn("shares", shares);
        let mut routes = Router::new();
        if channel == Channel::Sms {
            let (publisher, clock) = (broker.publisher(), self.clock.clone());
            let stop = lifecycle.stop().cancelled_owned();
            let calls = ReceiptMetrics::register(&self.registry, takers.iter())?;
            let heard = heard.queue(publisher, clock, calls.clone(), stop);
            lifecycle.spawn("smpp-receipts", heard);
            routes = self
                .receipts(&live, calls, &reporter, &metrics, lifecycle)
                .await?;
        }
        let dispatcher = Dispatcher::new(
            DispatcherParts {
                channel,
                router: live.router.clone(),
                rules: live.rules.clone(),
                ledger: self.engine.ledger.clone(),
                sealer: self.sealer()?.clone(),
                services: self.services.clone(),
                calls: Semaphore::new(usize::from(concurrency)),
                stop: lifecycle.stop(),
                clock: self.clock.clone(),
                metrics,
                spans: self.spans.clone(),
            },
            reporter,
        );
        let lane = Lane::Send(channel);
        let consumer = broker.consume(lane, prefetch(concurrency)).await;
        self.channels
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(live);
        let name = match channel {
            Channel::Sms => "sms-worker",
            Channel::Email => "email-worker",
        };
        lifecycle.spawn(
            name,
            Worker::new(dispatcher).run(consumer, lifecycle.stop().cancelled_owned()),
        );
        Ok(routes)
    }

    /// Starts the consumer of receipts. Returns the route to which gateways send them, or an empty
    /// router if `sms.public_url` is not set.
    async fn receipts(
        &self,
        live: &LiveChannel,
        calls: ReceiptMetrics,
        reporter: &Arc<Reporter>,
        metrics: &DeliveryMetrics,
        lifecycle: &mut Lifecycle,
    ) -> anyhow::Result<Router> {
        let taker = Receipts::new(ReceiptsParts {
            router: live.router.clone(),
            ledger: self.engine.ledger.clone(),
            reporter: reporter.clone(),
            clock: self.clock.clone(),
            metrics: metrics.clone(),
        });
        let broker = self.engine.queues()?;
        let consumer = broker.consume(Lane::Receipts, RECEIPTS_IN_WORK).await;
        lifecycle.spawn(
            "receipts",
            taker.run(consumer, lifecycle.stop().cancelled_owned()),
        );
        let section = self.config.sms.as_ref();
        let Some(public_url) = section.and_then(|sms| sms.public_url.clone()) else {
            return Ok(Router::new());
        };
        Ok(watchword_sms_worker::routes(ReceiptRouteState {
            plans: live.plans.clone(),
            public_url,
            publisher: broker.publisher(),
            clock: self.clock.clone(),
            metrics: calls,
        }))
    }
}

/// Creates a sealer with these keys.
pub fn sealer_of(keys: KeyRing) -> Sealer {
    Sealer::new(keys, Arc::new(SystemEntropy))
}
