//! The embedded engine: all state and queues in an `SQLite` file.

use std::sync::Arc;

use watchword_admin::trail::SqliteTrail;
use watchword_broker::{BrokerMetrics, EMBEDDED_MIGRATIONS, EmbeddedBroker, EmbeddedSettings};
use watchword_chassis::admin::Readiness;
use watchword_chassis::config::ConfigError;
use watchword_chassis::{Uptime, boot_id};
use watchword_core::Clock;
use watchword_issuer::limits::SqliteLimiter;
use watchword_issuer::requests::SqliteRequests;
use watchword_ledger::{LedgerSettings, SqliteLedger};
use watchword_metrics::prometheus::Registry;
use watchword_storage::{Migration, Sqlite, StorageMetrics};
use watchword_verifier::store::{MachineClocks, SqliteVerifications, SteadyClock};

use super::{Engine, NO_SECTION};
use crate::config::{Config, EmbeddedConfig};

pub(super) async fn start(
    config: &Config,
    registry: &Registry,
    readiness: &Readiness,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Engine> {
    let section = section(config)?;
    let sqlite = Sqlite::open(&section.path, &migrations())?;
    let sqlite = sqlite.counted(StorageMetrics::sqlite(registry)?);
    let machine = MachineClocks {
        wall: clock,
        uptime: Arc::new(Uptime),
        // Without a boot id the time since boot is ignored; only the newest time in the file
        // bounds the clock.
        boot: boot_id().ok(),
    };
    let clock = SteadyClock::load(&sqlite, machine).await?;
    let verifications = SqliteVerifications::new(sqlite.clone(), clock.clone());
    let metrics = BrokerMetrics::register(registry)?;
    let clock: Arc<dyn Clock> = clock;
    let broker = EmbeddedBroker::start(
        sqlite.clone(),
        clock.clone(),
        EmbeddedSettings::default(),
        metrics,
    )
    .await?;
    let file = sqlite.clone();
    readiness.require("sqlite", move || file.is_healthy());
    let settings = LedgerSettings {
        retention_ms: config.ledger.retention_hours * 3_600_000,
    };
    Ok(Engine {
        broker: Some(broker),
        verifications: Arc::new(verifications),
        ledger: Arc::new(SqliteLedger::new(sqlite.clone(), settings)),
        limiter: Arc::new(SqliteLimiter::new(sqlite.clone())),
        requests: Arc::new(SqliteRequests::new(sqlite.clone())),
        trail: Arc::new(SqliteTrail::new(sqlite)),
        clock,
        peers: None,
        takes_requests: false,
    })
}

/// Returns the section `[embedded]`.
pub fn section(config: &Config) -> Result<&EmbeddedConfig, ConfigError> {
    config
        .embedded
        .as_ref()
        .ok_or_else(|| ConfigError::new("embedded", NO_SECTION))
}

/// Returns the migrations of all crates, in the order in which they run.
pub fn migrations() -> Vec<Migration> {
    [
        &EMBEDDED_MIGRATIONS[..],
        &watchword_ledger::MIGRATIONS,
        &watchword_verifier::store::MIGRATIONS,
        &watchword_issuer::limits::MIGRATIONS,
        &[watchword_issuer::requests::MIGRATION],
        &[watchword_admin::trail::MIGRATION],
    ]
    .concat()
}
