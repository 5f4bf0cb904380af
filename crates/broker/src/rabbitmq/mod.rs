//! The `RabbitMQ` engine. A supervisor owns two connections, one for publishing and one for
//! consuming, because a connection that the broker blocks stops acknowledgements too. It replaces
//! both whenever one is lost. The recovery of the client library (lapin) is not used: once its
//! retries are exhausted it waits forever without an error, and it does not cover channel errors.

mod acks;
mod batch;
mod consumer;
mod dial;
pub(crate) mod examine;
mod link;
mod looks;
mod parked;
mod publisher;
mod settle;
mod supervisor;
pub(crate) mod topology;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use watchword_core::{Clock, Live, SecretString, ServiceName};
use watchword_events::Lane;

use crate::parked::{ParkedError, ParkedLook};
use crate::port::{Broker, Consumer, LinkState, Publisher};
use crate::telemetry::BrokerMetrics;
use consumer::RabbitConsumer;
use dial::Address;
use publisher::RabbitPublisher;
use supervisor::{Objects, Supervisor};
use topology::Topology;

/// Address and objects of the broker.
#[derive(Debug, Clone)]
pub struct RabbitMqSettings {
    /// `amqp://user@host:port/vhost` or `amqps://…`; may hold a password.
    pub url: SecretString,
    /// The password, if the URL has none.
    pub password: Option<SecretString>,
    /// Deadline for opening one connection, in milliseconds.
    pub connect_timeout_ms: u64,
    /// The objects that are declared after each connect.
    pub topology: Topology,
    /// The services that publish requests; each has its own request queue.
    pub request_services: BTreeSet<ServiceName>,
    /// Whether `amqp://` may be used to a host beyond loopback.
    pub allow_cleartext: bool,
}

impl RabbitMqSettings {
    /// Creates settings for `url` with the standard topology.
    pub fn new(url: SecretString) -> Self {
        Self {
            url,
            password: None,
            connect_timeout_ms: 3_000,
            topology: Topology::standard(),
            request_services: BTreeSet::new(),
            allow_cleartext: false,
        }
    }

    /// Adds a request queue for each of `services`.
    #[must_use]
    pub fn with_request_queues(mut self, services: BTreeSet<ServiceName>) -> Self {
        self.topology = self.topology.with_request_queues(&services);
        self.request_services = services;
        self
    }

    /// Returns the virtual host that the URL names.
    pub fn virtual_host(&self) -> Result<String, UrlError> {
        dial::virtual_host(self)
    }

    /// Returns the user that the URL names.
    pub fn user(&self) -> Result<String, UrlError> {
        dial::user(self)
    }

    /// Checks that the URL is usable.
    pub fn check(&self) -> Result<(), UrlError> {
        Address::parse(self).map(|_| ())
    }
}

/// The configured URL is not usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("config key `rabbitmq.url`: {0}")]
pub struct UrlError(pub(crate) &'static str);

impl UrlError {
    /// Returns the fault, without the config key.
    pub const fn problem(&self) -> &'static str {
        self.0
    }
}

/// A broker on `RabbitMQ`.
pub struct RabbitMq {
    supervisor: Arc<Supervisor>,
    publisher: Arc<RabbitPublisher>,
    stop: CancellationToken,
    address: Live<Address>,
    settings: Live<RabbitMqSettings>,
}

impl RabbitMq {
    /// Validates the URL and starts connecting in the background.
    pub fn start(
        settings: RabbitMqSettings,
        clock: Arc<dyn Clock>,
        metrics: BrokerMetrics,
    ) -> Result<Arc<Self>, UrlError> {
        let address = Live::new(Address::parse(&settings)?);
        let stop = CancellationToken::new();
        let supervisor = Supervisor::start(
            address.clone(),
            Objects::of(&settings),
            metrics.clone(),
            stop.clone(),
        );
        let publisher = Arc::new(RabbitPublisher::new(supervisor.clone(), clock, metrics));
        Ok(Arc::new(Self {
            supervisor,
            publisher,
            stop,
            address,
            settings: Live::new(settings),
        }))
    }

    /// Applies changed settings: uses the address for the next connection, and declares and reads
    /// the request queues of added services immediately.
    pub fn redirect(&self, settings: RabbitMqSettings) -> Result<(), UrlError> {
        self.address.replace(Address::parse(&settings)?);
        self.supervisor.replace_objects(Objects::of(&settings));
        self.settings.replace(settings);
        Ok(())
    }

    /// Returns the state of the link.
    pub fn state(&self) -> LinkState {
        self.supervisor.state()
    }
}

#[async_trait]
impl Broker for RabbitMq {
    fn publisher(&self) -> Arc<dyn Publisher> {
        self.publisher.clone()
    }

    async fn consume(&self, lane: Lane, prefetch: u16) -> Box<dyn Consumer> {
        Box::new(RabbitConsumer::start(
            self.supervisor.clone(),
            &self.publisher,
            lane,
            prefetch,
        ))
    }

    async fn parked(&self, lane: Lane, limit: usize) -> Result<Box<dyn ParkedLook>, ParkedError> {
        let look = parked::look(&self.settings.get(), lane, limit).await?;
        Ok(Box::new(look))
    }

    async fn close(&self) {
        self.stop.cancel();
        self.supervisor.closed().await;
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
