//! The distributed engine: `RabbitMQ` and Redis. It starts without the broker, which is then dialed
//! in the background, but not without the store.

use std::collections::BTreeSet;
use std::sync::Arc;

use watchword_admin::trail::RedisTrail;
use watchword_broker::{Broker, BrokerMetrics, LinkState, RabbitMq, RabbitMqSettings};
use watchword_chassis::admin::Readiness;
use watchword_chassis::config::ConfigError;
use watchword_core::{Clock, ServiceName};
use watchword_issuer::limits::RedisLimiter;
use watchword_issuer::requests::RedisRequests;
use watchword_ledger::{LedgerSettings, RedisLedger};
use watchword_metrics::prometheus::Registry;
use watchword_storage::{Redis, RedisSettings, StorageMetrics};
use watchword_verifier::store::RedisVerifications;

use super::{Engine, NO_SECTION, Peers};
use crate::config::Config;

pub(super) async fn start(
    config: &Config,
    registry: &Registry,
    readiness: &Readiness,
    clock: Arc<dyn Clock>,
    queues: bool,
) -> anyhow::Result<Engine> {
    let redis = Redis::connect(redis_settings(config)?).await?;
    let redis = redis.counted(StorageMetrics::redis(registry)?);
    let store = redis.clone();
    readiness.require("redis", move || store.is_healthy());
    let rabbitmq = if queues {
        Some(link(config, registry, readiness, clock.clone())?)
    } else {
        None
    };
    let settings = LedgerSettings {
        retention_ms: config.ledger.retention_hours * 3_600_000,
    };
    Ok(Engine {
        broker: rabbitmq.clone().map(|broker| broker as Arc<dyn Broker>),
        verifications: Arc::new(RedisVerifications::new(redis.clone())),
        ledger: Arc::new(RedisLedger::new(redis.clone(), settings)),
        limiter: Arc::new(RedisLimiter::new(redis.clone())),
        requests: Arc::new(RedisRequests::new(redis.clone())),
        clock,
        trail: Arc::new(RedisTrail::new(redis.clone())),
        peers: Some(Peers { rabbitmq, redis }),
        takes_requests: true,
    })
}

/// Starts to dial the broker and adds it to `readiness`.
fn link(
    config: &Config,
    registry: &Registry,
    readiness: &Readiness,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Arc<RabbitMq>> {
    let metrics = BrokerMetrics::register(registry)?;
    let broker = RabbitMq::start(rabbitmq_settings(config)?, clock, metrics)?;
    let link = broker.clone();
    readiness.require("rabbitmq", move || link.state() == LinkState::Up);
    Ok(broker)
}

/// Returns the settings of the configured broker, or an error if its URL is invalid.
pub fn rabbitmq_settings(config: &Config) -> Result<RabbitMqSettings, ConfigError> {
    let section = config
        .rabbitmq
        .as_ref()
        .ok_or_else(|| ConfigError::new("rabbitmq", NO_SECTION))?;
    let (url, password) = section.resolve("rabbitmq")?;
    let settings = RabbitMqSettings {
        password,
        allow_cleartext: section.allow_cleartext,
        ..RabbitMqSettings::new(url)
    };
    let checked = settings.check();
    checked.map_err(|error| ConfigError::new("rabbitmq.url", error.problem()))?;
    Ok(settings.with_request_queues(request_services(config)))
}

/// Returns the services that request codes by event. Each has a separate request queue.
pub fn request_services(config: &Config) -> BTreeSet<ServiceName> {
    let services = config.services.iter();
    services
        .filter(|(_, section)| !section.broker_users.is_empty())
        .map(|(name, _)| name.clone())
        .collect()
}

/// Returns the settings of the configured store, or an error if its URL is invalid.
pub fn redis_settings(config: &Config) -> Result<RedisSettings, ConfigError> {
    let section = config
        .redis
        .as_ref()
        .ok_or_else(|| ConfigError::new("redis", NO_SECTION))?;
    let (url, password) = section.resolve("redis")?;
    let settings = RedisSettings {
        password,
        allow_cleartext: section.allow_cleartext,
        ..RedisSettings::new(url)
    };
    let checked = settings.check();
    checked.map_err(|error| ConfigError::new("redis.url", error.to_string()))?;
    Ok(settings)
}
