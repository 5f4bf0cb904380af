//! From engine and configuration to running roles.

use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use prometheus::Registry;
use watchword_chassis::config::ConfigError;
use watchword_chassis::lifecycle::Lifecycle;
use watchword_chassis::{Services, SystemEntropy};
use watchword_core::{Channel, Clock, KeyRing, ServiceName, Subject};
use watchword_delivery::{
    Courier, CourierParts, DeliveryMetrics, Inbox, Provider, Reporter, Worker,
};
use watchword_events::{Lane, Sealer};
use watchword_issuer::http::IssuerState;
use watchword_issuer::{Intake, IntakeParts, Issuer, IssuerMetrics, IssuerParts};
use watchword_verifier::http::VerifierState;
use watchword_verifier::{Index, Verifier, VerifierMetrics, VerifierParts};

use crate::cli::Role;
use crate::config::Config;
use crate::engine::Engine;

/// Requests by event in work at once.
const REQUESTS_IN_WORK: u16 = 128;

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
        for role in roles {
            match role {
                Role::Issuer => routes = routes.merge(self.issuer(lifecycle).await?),
                Role::Verifier => routes = routes.merge(self.verifier_routes()),
                Role::SmsWorker => self.worker(Channel::Sms, lifecycle).await?,
                Role::EmailWorker => self.worker(Channel::Email, lifecycle).await?,
            }
        }
        Ok(routes)
    }

    /// Forgets the wrong guesses of a subject.
    pub async fn unlock(&self, service: &ServiceName, subject: &Subject) -> anyhow::Result<()> {
        Ok(self.verifier.unlock(service, subject).await?)
    }

    async fn issuer(&self, lifecycle: &mut Lifecycle) -> anyhow::Result<Router> {
        let metrics = IssuerMetrics::register(&self.registry)?;
        let publisher = self.engine.broker.publisher();
        let issuer = Arc::new(Issuer::new(IssuerParts {
            verifier: self.verifier.clone(),
            limiter: self.engine.limiter.clone(),
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

    async fn worker(&self, channel: Channel, lifecycle: &mut Lifecycle) -> anyhow::Result<()> {
        let (provider, concurrency) = self.provider(channel)?;
        let metrics = DeliveryMetrics::register(&self.registry, channel, provider.name())?;
        let reporter = Reporter::new(
            self.engine.broker.publisher(),
            self.clock.clone(),
            metrics.clone(),
        );
        let courier = Courier::new(
            CourierParts {
                channel,
                provider,
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
            .consume(Lane::Send(channel), concurrency)
            .await;
        let name = match channel {
            Channel::Sms => "sms-worker",
            Channel::Email => "email-worker",
        };
        lifecycle.spawn(
            name,
            Worker::new(courier).run(consumer, lifecycle.stop().cancelled_owned()),
        );
        Ok(())
    }

    fn provider(&self, channel: Channel) -> anyhow::Result<(Arc<dyn Provider>, u16)> {
        let (provider, concurrency) =
            provider(&self.config, channel, &self.inbox, self.clock.clone())?;
        if channel == Channel::Sms {
            self.check_texts()?;
        }
        Ok((provider, concurrency))
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

/// The provider of `channel` and how many messages it has in work at once.
pub fn provider(
    config: &Config,
    channel: Channel,
    inbox: &Inbox,
    clock: Arc<dyn Clock>,
) -> Result<(Arc<dyn Provider>, u16), ConfigError> {
    let templates = config.templates.as_deref();
    let (provider, concurrency) = match channel {
        Channel::Sms => {
            let section = config
                .sms
                .as_ref()
                .ok_or_else(|| ConfigError::new("sms", "is missing"))?;
            (
                watchword_sms_worker::build(section, templates, inbox, clock)?,
                section.concurrency,
            )
        }
        Channel::Email => {
            let section = config
                .email
                .as_ref()
                .ok_or_else(|| ConfigError::new("email", "is missing"))?;
            (
                watchword_email_worker::build(section, templates, inbox, clock)?,
                section.concurrency,
            )
        }
    };
    if !(1..=10_000).contains(&concurrency) {
        return Err(ConfigError::new(
            format!("{channel}.concurrency"),
            "must be 1 to 10000",
        ));
    }
    Ok((provider, concurrency))
}
