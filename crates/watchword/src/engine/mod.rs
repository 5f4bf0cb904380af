//! The two engines under one shape: queues, code state, ledger, limits and remembered requests.

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

/// What holds state and queues.
pub struct Engine {
    /// Queues; none in a process that neither publishes nor consumes.
    pub broker: Option<Arc<dyn Broker>>,
    /// Code state.
    pub verifications: Arc<dyn VerificationStore>,
    /// What became of deliveries.
    pub ledger: Arc<dyn LedgerStore>,
    /// Send limits.
    pub limiter: Arc<dyn SendLimiter>,
    /// Answered requests.
    pub requests: Arc<dyn RequestLog>,
    /// The clock that everything in the process goes by.
    pub clock: Arc<dyn Clock>,
    /// The audit trail.
    pub trail: Arc<dyn AuditTrail>,
    /// The distributed engine's peers, whose passwords may change.
    pub peers: Option<Peers>,
    /// Whether auth services can publish requests to the broker.
    pub takes_requests: bool,
}

/// What the distributed engine is connected to.
pub struct Peers {
    /// The broker, where queues are used.
    pub rabbitmq: Option<Arc<RabbitMq>>,
    /// The store.
    pub redis: Redis,
}

impl Peers {
    /// Connects as `config` says from the next connection on.
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
    /// Starts the configured engine by the wall clock `clock`; what it needs is added to `readiness`. Without `queues` the
    /// distributed one has no link to the broker and does not miss it.
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

    /// The queues, for whoever needs them.
    pub fn queues(&self) -> anyhow::Result<&Arc<dyn Broker>> {
        self.broker.as_ref().context("there are no queues here")
    }

    /// Ends the link to the broker, if there is one.
    pub async fn close(&self) {
        if let Some(broker) = &self.broker {
            broker.close().await;
        }
    }
}
