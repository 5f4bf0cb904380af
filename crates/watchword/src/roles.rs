//! From engine and configuration to running roles.

use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use watchword_chassis::lifecycle::Lifecycle;
use watchword_chassis::{Services, SystemEntropy, telemetry};
use watchword_core::{Channel, Clock, KeyRing, ServiceName, Subject};
use watchword_delivery::{
    Courier, CourierParts, DeliveryMetrics, Inbox, Provider, Receipts, ReceiptsParts, Reporter,
    Worker,
};
use watchword_events::{Lane, Sealer};
use watchword_issuer::http::IssuerState;
use watchword_issuer::{
    Intake, IntakeParts, Issuer, IssuerMetrics, IssuerParts, Stepper, StepperParts,
};
use watchword_metrics::prometheus::Registry;
use watchword_sms_worker::{ReceiptMetrics, ReceiptRouteState};
use watchword_verifier::http::VerifierState;
use watchword_verifier::{Index, Verifier, VerifierMetrics, VerifierParts};

use crate::certificates::Watch;
use crate::channels::{self, ChannelSetup};
use crate::cli::Role;
use crate::config::Config;
use crate::engine::Engine;

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
    pub services: Arc<Services>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where everything counts.
    pub registry: Registry,
    /// The demo's inbox.
    pub inbox: Inbox,
    sealer: Sealer,
    verifier: Arc<Verifier>,
}

impl Shared {
    /// Reads the keys and builds what roles share.
    pub fn new(
        config: Config,
        engine: Engine,
        services: Arc<Services>,
        clock: Arc<dyn Clock>,
        registry: Registry,
    ) -> anyhow::Result<Self> {
        let keys = config.keys.resolve()?;
        let sealer = Sealer::new(keys.sealing.clone(), Arc::new(SystemEntropy));
        let digest_keys: KeyRing = keys.digest;
        let verifier = Arc::new(Verifier::new(VerifierParts {
            store: engine.verifications.clone(),
            index: Index::new(keys.index),
            digest_keys,
            sealer: sealer.clone(),
            clock: clock.clone(),
            entropy: Arc::new(SystemEntropy),
            metrics: VerifierMetrics::register(&registry)?,
        }));
        Ok(Self {
            config,
            engine,
            services,
            clock,
            registry,
            inbox: Inbox::default(),
            sealer,
            verifier,
        })
    }

    /// Starts `roles`; gives the public routes of those that have some.
    pub async fn start(&self, roles: &[Role], lifecycle: &mut Lifecycle) -> anyhow::Result<Router> {
        let mut routes = Router::new();
        let mut providers = Vec::new();
        let names: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
        telemetry::runs(&self.registry, &names)?;
        for role in roles {
            match role {
                Role::Issuer => routes = routes.merge(self.issuer(lifecycle).await?),
                Role::Verifier => routes = routes.merge(self.verifier_routes()),
                Role::SmsWorker => {
                    let worker = self.worker(Channel::Sms, &mut providers, lifecycle);
                    routes = routes.merge(worker.await?);
                }
                Role::EmailWorker => {
                    let worker = self.worker(Channel::Email, &mut providers, lifecycle);
                    routes = routes.merge(worker.await?);
                }
            }
        }
        let watch = Watch::new(&self.registry, &self.config, providers.iter())?;
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
        metrics.serves(&self.services);
        let publisher = self.engine.broker.publisher();
        let issuer = Arc::new(Issuer::new(IssuerParts {
            verifier: self.verifier.clone(),
            limiter: self.engine.limiter.clone(),
            ledger: self.engine.ledger.clone(),
            publisher: publisher.clone(),
            sealer: self.sealer.clone(),
            clock: self.clock.clone(),
            metrics: metrics.clone(),
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
            });
            let consumer = self
                .engine
                .broker
                .consume(Lane::Requests, REQUESTS_IN_WORK)
                .await;
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
        let consumer = self
            .engine
            .broker
            .consume(Lane::Timers, STEPS_IN_WORK)
            .await;
        lifecycle.spawn(
            "stepper",
            stepper.run(consumer, lifecycle.stop().cancelled_owned()),
        );
        Ok(watchword_issuer::http::routes(IssuerState {
            issuer,
            services: self.services.clone(),
            metrics,
        }))
    }

    fn verifier_routes(&self) -> Router {
        watchword_verifier::http::routes(VerifierState {
            verifier: self.verifier.clone(),
            ledger: self.engine.ledger.clone(),
            services: self.services.clone(),
        })
    }

    /// Starts the worker of `channel`, adds its providers; gives the route of its receipts, if it
    /// takes some.
    async fn worker(
        &self,
        channel: Channel,
        all: &mut Vec<Arc<dyn Provider>>,
        lifecycle: &mut Lifecycle,
    ) -> anyhow::Result<Router> {
        let mut setup = channels::build(&self.config, channel, &self.inbox, &self.clock)?;
        if channel == Channel::Sms {
            self.check_texts()?;
        }
        let providers = setup.router.providers();
        let names: Vec<_> = providers.iter().map(|provider| provider.name()).collect();
        all.extend_from_slice(providers);
        let metrics = DeliveryMetrics::register(&self.registry, channel, &names)?;
        let reporter = Arc::new(Reporter::new(
            self.engine.broker.publisher(),
            self.clock.clone(),
            metrics.clone(),
        ));
        let mut routes = Router::new();
        if channel == Channel::Sms {
            if let Some(heard) = setup.heard.take() {
                let (publisher, clock) = (self.engine.broker.publisher(), self.clock.clone());
                let stop = lifecycle.stop().cancelled_owned();
                let queue = watchword_sms_worker::queue_heard(heard, publisher, clock, stop);
                lifecycle.spawn("smpp-receipts", queue);
            }
            routes = self
                .receipts(&setup, &reporter, &metrics, lifecycle)
                .await?;
        }
        let courier = Courier::new(
            CourierParts {
                channel,
                router: setup.router,
                rules: setup.rules,
                ledger: self.engine.ledger.clone(),
                sealer: self.sealer.clone(),
                services: self.services.clone(),
                clock: self.clock.clone(),
                metrics,
            },
            reporter,
        );
        let consumer = self
            .engine
            .broker
            .consume(Lane::Send(channel), setup.concurrency)
            .await;
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
        setup: &ChannelSetup,
        reporter: &Arc<Reporter>,
        metrics: &DeliveryMetrics,
        lifecycle: &mut Lifecycle,
    ) -> anyhow::Result<Router> {
        let taker = Receipts::new(ReceiptsParts {
            router: setup.router.clone(),
            ledger: self.engine.ledger.clone(),
            reporter: reporter.clone(),
            clock: self.clock.clone(),
            metrics: metrics.clone(),
        });
        let broker = &self.engine.broker;
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
            plans: Arc::new(setup.receipts.clone()),
            public_url,
            publisher: broker.publisher(),
            clock: self.clock.clone(),
            metrics: ReceiptMetrics::register(&self.registry, setup.receipts.keys())?,
        }))
    }

    /// Texts that take two parts cost twice: told at start. Longer ones are refused.
    fn check_texts(&self) -> anyhow::Result<()> {
        let text = watchword_sms_worker::SmsText::load(self.config.templates.as_deref())?;
        for service in self.services.iter() {
            let sender = watchword_delivery::Sender {
                app: service.app.clone(),
                host: service.host.clone(),
            };
            let costly = watchword_sms_worker::check_templates(&text, &sender)
                .with_context(|| format!("the texts of service {}", service.name))?;
            for (locale, encoding, parts) in costly {
                tracing::warn!(service = %service.name, locale, ?encoding, parts, "an SMS takes more than one part");
            }
        }
        Ok(())
    }
}
