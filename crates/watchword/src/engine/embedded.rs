//! The embedded engine: everything in one `SQLite` file.

use std::sync::Arc;

use watchword_broker::{BrokerMetrics, EMBEDDED_MIGRATIONS, EmbeddedBroker, EmbeddedSettings};
use watchword_chassis::admin::Readiness;
use watchword_chassis::config::ConfigError;
use watchword_core::Clock;
use watchword_issuer::limits::SqliteLimiter;
use watchword_issuer::requests::SqliteRequests;
use watchword_ledger::{LedgerSettings, SqliteLedger};
use watchword_metrics::prometheus::Registry;
use watchword_storage::{Sqlite, StorageMetrics};
use watchword_verifier::store::SqliteVerifications;

use super::Engine;
use crate::config::Config;

pub(super) async fn start(
    config: &Config,
    registry: &Registry,
    readiness: &Readiness,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Engine> {
    let section = config
        .embedded
        .as_ref()
        .ok_or_else(|| ConfigError::new("embedded", "is missing"))?;
    let migrations = [
        &EMBEDDED_MIGRATIONS[..],
        &watchword_ledger::MIGRATIONS,
        &watchword_verifier::store::MIGRATIONS,
        &watchword_issuer::limits::MIGRATIONS,
        &[watchword_issuer::requests::MIGRATION],
    ]
    .concat();
    let sqlite = Sqlite::open(&section.path, &migrations)?;
    let sqlite = sqlite.counted(StorageMetrics::sqlite(registry)?);
    let metrics = BrokerMetrics::register(registry)?;
    let broker =
        EmbeddedBroker::start(sqlite.clone(), clock, EmbeddedSettings::default(), metrics).await?;
    let file = sqlite.clone();
    readiness.require("sqlite", move || file.is_healthy());
    let settings = LedgerSettings {
        retention_ms: config.ledger.retention_hours * 3_600_000,
    };
    Ok(Engine {
        broker: Some(broker),
        verifications: Arc::new(SqliteVerifications::new(sqlite.clone())),
        ledger: Arc::new(SqliteLedger::new(sqlite.clone(), settings)),
        limiter: Arc::new(SqliteLimiter::new(sqlite.clone())),
        requests: Arc::new(SqliteRequests::new(sqlite)),
        peers: None,
        takes_requests: false,
    })
}
