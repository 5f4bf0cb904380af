//! The two engines behind a common type: queues, code state, ledger, send limits, answered requests
//! and the audit trail.

pub mod distributed;
pub mod embedded;

use std::sync::Arc;

use anyhow::Context;
use watchword_admin::trail::AuditTrail;
use watchword_broker::{Broker, RabbitMq};
use watchword_chassis::admin::Readiness;
use watchword_core::Clock;
use watchword_issuer::limits::SendLimiter;
use watchword_issuer::requests::RequestLog;
use watchword_ledger::LedgerStore;
use watchword_metrics::prometheus::Registry;
use watchword_storage::Redis;
use watchword_verifier::store::VerificationStore;

use crate::config::{Config, EngineKind};

/// The error about a section that the configured engine needs.
pub const NO_SECTION: &str = "is missing: the configured engine needs this section";

/// The stores and queues of a process.
pub struct Engine {
    /// The queues; `None` in a process that neither publishes nor consumes.
    pub broker: Option<Arc<dyn Broker>>,
    /// The store of code state.
    pub verifications: Arc<dyn VerificationStore>,
    /// The outcomes of deliveries.
    pub ledger: Arc<dyn LedgerStore>,
    /// The counters of the send limits.
    pub limiter: Arc<dyn SendLimiter>,
    /// The requests by event that were answered.
    pub requests: Arc<dyn RequestLog>,
    /// The clock of all parts of the process.
    pub clock: Arc<dyn Clock>,
    /// The store of the audit trail.
    pub trail: Arc<dyn AuditTrail>,
    /// The peers of the distributed engine, whose passwords a reload may change.
    pub peers: Option<Peers>,
    /// Whether auth services can publish requests to the broker.
    pub takes_requests: bool,
}

/// The connections of the distributed engine.
pub struct Peers {
    /// The broker; `None` in a process without queues.
    pub rabbitmq: Option<Arc<RabbitMq>>,
    /// The store.
    pub redis: Redis,
}

impl Peers {
    /// Uses the URLs and passwords of `config` from the next connection on.
    pub fn redirect(&self, config: &Config) -> anyhow::Result<()> {
        let redis = distributed::redis_settings(config)?;
        let Some(broker) = &self.rabbitmq else {
            return Ok(self.redis.redirect(redis)?);
        };
        let rabbitmq = distributed::rabbitmq_settings(config)?;
        self.redis.redirect(redis)?;
        Ok(broker.redirect(rabbitmq)?)
    }
}

impl Engine {
    /// Starts the configured engine with the wall clock `clock`, and adds its dependencies to
    /// `readiness`. Without `queues` the distributed engine does not connect to the broker.
    pub async fn start(
        config: &Config,
        registry: &Registry,
        readiness: &Readiness,
        clock: Arc<dyn Clock>,
        queues: bool,
    ) -> anyhow::Result<Self> {
        match config.engine {
            EngineKind::Embedded => embedded::start(config, registry, readiness, clock).await,
            EngineKind::Distributed => {
                distributed::start(config, registry, readiness, clock, queues).await
            }
        }
        .context("the engine cannot start")
    }

    /// Returns the queues, or an error in a process without them.
    pub fn queues(&self) -> anyhow::Result<&Arc<dyn Broker>> {
        self.broker.as_ref().context("this process has no queues")
    }

    /// Closes the connections to the broker, if there is one.
    pub async fn close(&self) {
        if let Some(broker) = &self.broker {
            broker.close().await;
        }
    }
}
