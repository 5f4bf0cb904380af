//! The `RabbitMQ` engine. A supervisor owns two connections, one for publishing and one for
//! consuming (a blocked connection stops acknowledgements too), and builds both anew whenever one
//! is lost. The client's own recovery is not used: once its retries are spent it waits for ever
//! without a word (facts L2), and it does not cover channel errors.

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

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use watchword_core::{Live, SecretString};
use watchword_events::Lane;

use crate::parked::{ParkedError, ParkedLook};
use crate::port::{Broker, Consumer, LinkState, Publisher};
use crate::telemetry::BrokerMetrics;
use consumer::RabbitConsumer;
use dial::Address;
use publisher::RabbitPublisher;
use supervisor::Supervisor;
use topology::Topology;

/// Where the broker is.
#[derive(Debug, Clone)]
pub struct RabbitMqSettings {
    /// `amqp://user@host:port/vhost` or `amqps://…`; may hold a password.
    pub url: SecretString,
    /// The password, if the URL has none.
    pub password: Option<SecretString>,
    /// How long one connection may take to stand, in milliseconds.
    pub connect_timeout_ms: u64,
    /// What is declared after each connect.
    pub topology: Topology,
    /// Whether `amqp://` may lead to a host beyond loopback.
    pub allow_cleartext: bool,
}

impl RabbitMqSettings {
    /// Settings for `url` with the standard topology.
    pub fn new(url: SecretString) -> Self {
        Self {
            url,
            password: None,
            connect_timeout_ms: 3_000,
            topology: Topology::standard(),
            allow_cleartext: false,
        }
    }
}

impl RabbitMqSettings {
    /// Whether the URL can be used.
    pub fn check(&self) -> Result<(), UrlError> {
        Address::parse(self).map(|_| ())
    }
}

/// The URL cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("config key `rabbitmq.url`: {0}")]
pub struct UrlError(pub(crate) &'static str);

/// The broker.
pub struct RabbitMq {
    supervisor: Arc<Supervisor>,
    publisher: Arc<RabbitPublisher>,
    stop: CancellationToken,
    address: Live<Address>,
    settings: Live<RabbitMqSettings>,
}

impl RabbitMq {
    /// Starts connecting in the background.
    pub fn start(
        settings: RabbitMqSettings,
        metrics: BrokerMetrics,
    ) -> Result<Arc<Self>, UrlError> {
        let address = Live::new(Address::parse(&settings)?);
        let stop = CancellationToken::new();
        let supervisor = Supervisor::start(
            address.clone(),
            settings.topology.clone(),
            metrics.clone(),
            stop.clone(),
        );
        let publisher = Arc::new(RabbitPublisher::new(supervisor.clone(), metrics));
        Ok(Arc::new(Self {
            supervisor,
            publisher,
            stop,
            address,
            settings: Live::new(settings),
        }))
    }

    /// Dials by `settings` from the next connection on: the broker's password is another one now.
    pub fn redirect(&self, settings: RabbitMqSettings) -> Result<(), UrlError> {
        self.address.replace(Address::parse(&settings)?);
        self.settings.replace(settings);
        Ok(())
    }

    /// The state of the link.
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
