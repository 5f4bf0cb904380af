//! The two engines under one shape: queues, code state, ledger, limits and remembered requests.

pub mod distributed;
mod embedded;

use std::sync::Arc;

use anyhow::Context;
use watchword_broker::Broker;
use watchword_chassis::admin::Readiness;
use watchword_core::Clock;
use watchword_issuer::limits::SendLimiter;
use watchword_issuer::requests::RequestLog;
use watchword_ledger::LedgerStore;
use watchword_metrics::prometheus::Registry;
use watchword_verifier::store::VerificationStore;

use crate::config::{Config, EngineKind};

/// What holds state and queues.
pub struct Engine {
    /// Queues.
    pub broker: Arc<dyn Broker>,
    /// Code state.
    pub verifications: Arc<dyn VerificationStore>,
    /// What became of deliveries.
    pub ledger: Arc<dyn LedgerStore>,
    /// Send limits.
    pub limiter: Arc<dyn SendLimiter>,
    /// Answered requests.
    pub requests: Arc<dyn RequestLog>,
    /// Whether auth services can publish requests to the broker.
    pub takes_requests: bool,
}

impl Engine {
    /// Starts the configured engine; what it needs is added to `readiness`.
    pub async fn start(
        config: &Config,
        registry: &Registry,
        readiness: &Readiness,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        match config.engine {
            EngineKind::Embedded => embedded::start(config, registry, readiness, clock).await,
            EngineKind::Distributed => distributed::start(config, registry, readiness).await,
        }
        .context("the engine cannot start")
    }
}
