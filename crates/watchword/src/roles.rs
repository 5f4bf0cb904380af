//! From engine and configuration to running roles.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::Router;
use tokio::sync::Semaphore;
use watchword_chassis::lifecycle::Lifecycle;
use watchword_chassis::spans::Spans;
use watchword_chassis::{Services, SystemEntropy, telemetry};
use watchword_core::{Channel, Clock, Key, KeyRing, Live, ProviderName, ServiceName, Subject};
use watchword_delivery::{
    Courier, CourierParts, DeliveryMetrics, Inbox, Receipts, ReceiptsParts, Reporter, Worker,
    prefetch,
};
use watchword_events::{Lane, Sealer};
use watchword_issuer::http::IssuerState;
use watchword_issuer::{
    Intake, IntakeParts, Issuer, IssuerMetrics, IssuerParts, MessageCheck, Stepper, StepperParts,
};
use watchword_metrics::prometheus::Registry;
use watchword_sms_worker::{ReceiptMetrics, ReceiptRouteState};
use watchword_verifier::http::VerifierState;
use watchword_verifier::{Index, Verifier, VerifierMetrics, VerifierParts};

use crate::certificates::Watch;
use crate::channels::{self, LiveChannel};
use crate::cli::Role;
use crate::config::Config;
use crate::engine::Engine;
use crate::reload::Reloads;
use crate::texts::{self, Texts};

/// Requests by event in work at once.
const REQUESTS_IN_WORK: u16 = 128;

/// Fallback steps in work at once.
const STEPS_IN_WORK: u16 = 64;
/// Receipts in work at once.
const RECEIPTS_IN_WORK: u16 = 64;

/// What all roles of a process share.
pub struct Shared {
    /// The configuration.
    pub config: Config,
    /// State and queues.
    pub engine: Engine,
    /// Who asks for codes.
    pub services: Live<Services>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where everything counts.
    pub registry: Registry,
    /// The demo's inbox.
    pub inbox: Inbox,
    /// Where the way of requests is recorded.
    pub spans: Spans,
    /// Counts when the configuration was read anew.
    pub reloads: Reloads,
    pub(crate) index: Key,
    pub(crate) digest_keys: Live<KeyRing>,
    pub(crate) sealer: Live<Sealer>,
    pub(crate) channels: Mutex<Vec<LiveChannel>>,
    pub(crate) issuer_metrics: OnceLock<IssuerMetrics>,
    pub(crate) texts: OnceLock<Live<Box<dyn MessageCheck>>>,
    verifier: Arc<Verifier>,
}

impl Shared {
    /// Reads the keys and builds what roles share.
    pub fn new(
        config: Config,
        engine: Engine,
        services: Services,
        clock: Arc<dyn Clock>,
        registry: Registry,
        spans: Spans,
    ) -> anyhow::Result<Self> {
        let keys = config.keys.resolve()?;
        let sealer = Live::new(sealer_of(keys.sealing));
        let digest_keys = Live::new(keys.digest);
        let verifier = Arc::new(Verifier::new(VerifierParts {
            store: engine.verifications.clone(),
            index: Index::new(keys.index.clone()),
            digest_keys: digest_keys.clone(),
            sealer: sealer.clone(),
            clock: clock.clone(),
            entropy: Arc::new(SystemEntropy),
            metrics: VerifierMetrics::register(&registry)?,
        }));
        Ok(Self {
            config,
            engine,
            services: Live::new(services),
            clock,
            spans,
            reloads: Reloads::register(&registry)?,
            registry,
            inbox: Inbox::default(),
            index: keys.index,
            digest_keys,
            sealer,
            channels: Mutex::default(),
            issuer_metrics: OnceLock::new(),
            texts: OnceLock::new(),
            verifier,
        })
    }

    /// Starts `roles`; gives the public routes of those that have some.
    pub async fn start(&self, roles: &[Role], lifecycle: &mut Lifecycle) -> anyhow::Result<Router> {
        let mut routes = Router::new();
        let names: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
        telemetry::runs(&self.registry, &names)?;
        for role in roles {
            match role {
                Role::Issuer => routes = routes.merge(self.issuer(lifecycle).await?),
                Role::Verifier => routes = routes.merge(self.verifier_routes()),
                Role::SmsWorker => {
                    let worker = self.worker(Channel::Sms, lifecycle);
                    routes = routes.merge(worker.await?);
                }
                Role::EmailWorker => {
                    let worker = self.worker(Channel::Email, lifecycle);
                    routes = routes.merge(worker.await?);
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
        Ok(routes)
    }

    /// Forgets the wrong guesses of a subject.
    pub async fn unlock(&self, service: &ServiceName, subject: &Subject) -> anyhow::Result<()> {
        Ok(self.verifier.unlock(service, subject).await?)
    }

    async fn issuer(&self, lifecycle: &mut Lifecycle) -> anyhow::Result<Router> {
        let metrics = IssuerMetrics::register(&self.registry)?;
        metrics.serves(&self.services.get());
        // Set once: a process has one issuer.
        let _ = self.issuer_metrics.set(metrics.clone());
        let texts = Texts::load(self.config.templates.as_deref())?;
        let texts: Live<Box<dyn MessageCheck>> = Live::new(Box::new(texts));
        let _ = self.texts.set(texts.clone());
        let broker = self.engine.queues()?;
        let publisher = broker.publisher();
        let issuer = Arc::new(Issuer::new(IssuerParts {
            verifier: self.verifier.clone(),
            limiter: self.engine.limiter.clone(),
            ledger: self.engine.ledger.clone(),
            publisher: publisher.clone(),
            sealer: self.sealer.clone(),
            clock: self.clock.clone(),
            metrics: metrics.clone(),
            texts,
        }));
        if self.engine.takes_requests {
            let intake = Intake::new(IntakeParts {
                issuer: issuer.clone(),
                verifier: self.verifier.clone(),
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

    fn verifier_routes(&self) -> Router {
        watchword_verifier::http::routes(VerifierState {
            verifier: self.verifier.clone(),
            ledger: self.engine.ledger.clone(),
            services: self.services.clone(),
            spans: self.spans.clone(),
        })
    }

    /// Starts the worker of `channel`; gives the route of its receipts, if it takes some.
    async fn worker(&self, channel: Channel, lifecycle: &mut Lifecycle) -> anyhow::Result<Router> {
        let broker = self.engine.queues()?;
        let setup = channels::build(&self.config, channel, &self.inbox, &self.clock)?;
        if channel == Channel::Sms {
            texts::check_sms(self.config.templates.as_deref(), &self.services.get())?;
        }
        let providers = setup.router.providers();
        let names: Vec<_> = providers.iter().map(|provider| provider.name()).collect();
        let metrics = DeliveryMetrics::register(&self.registry, channel, &names)?;
        let reporter = Arc::new(Reporter::new(
            broker.publisher(),
            self.clock.clone(),
            metrics.clone(),
        ));
        let concurrency = setup.concurrency;
        let takers: Vec<_> = setup.receipts.keys().cloned().collect();
        let (live, heard) = LiveChannel::start(channel, setup);
        let mut routes = Router::new();
        if channel == Channel::Sms {
            let (publisher, clock) = (broker.publisher(), self.clock.clone());
            let stop = lifecycle.stop().cancelled_owned();
            lifecycle.spawn("smpp-receipts", heard.queue(publisher, clock, stop));
            routes = self
                .receipts(&live, &takers, &reporter, &metrics, lifecycle)
                .await?;
        }
        let courier = Courier::new(
            CourierParts {
                channel,
                router: live.router.clone(),
                rules: live.rules.clone(),
                ledger: self.engine.ledger.clone(),
                sealer: self.sealer.clone(),
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
            Worker::new(courier).run(consumer, lifecycle.stop().cancelled_owned()),
        );
        Ok(routes)
    }

    /// Starts the taker of receipts; gives the route by which gateways bring them.
    async fn receipts(
        &self,
        live: &LiveChannel,
        takers: &[ProviderName],
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
            metrics: ReceiptMetrics::register(&self.registry, takers.iter())?,
        }))
    }
}

/// A sealer over these keys.
pub fn sealer_of(keys: KeyRing) -> Sealer {
    Sealer::new(keys, Arc::new(SystemEntropy))
}
