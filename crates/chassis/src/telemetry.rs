//! Logs and the metrics registry. Libraries are held back: one of them writes message bodies
//! into its log when a message is returned (facts L5), so no setting lets it go below `error`.

use std::io::IsTerminal;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;
use watchword_core::Clock;
use watchword_metrics::prometheus::{Error, Registry};
use watchword_metrics::{Kind, Maker, Series};

use crate::config::{LogConfig, LogFormat, LogLevel};
use crate::figures::Figures;

/// Starts logging to standard error. A second call changes nothing.
pub fn init(config: LogConfig) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(config.level))
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE)
        .with_ansi(std::io::stderr().is_terminal());
    // Fails only if a subscriber is there already (tests).
    let _ = match config.format {
        LogFormat::Human => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Watchword's own targets from `level` on, libraries from `warn`, the AMQP client from `error`.
pub fn filter(level: LogLevel) -> EnvFilter {
    let level = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    EnvFilter::new(format!(
        "warn,watchword={level},lapin=error,amq_protocol=error"
    ))
}

/// Whether a dependency is there; made anew for each scrape.
pub(crate) const DEPENDENCY: Series = Series {
    name: "watchword_dependency_up",
    kind: Kind::Gauge,
    labels: &["dependency"],
    help: "1 while the dependency is there: `rabbitmq` and `redis`, or `sqlite`; `started` once the roles run.",
    action: "0: this process takes no part until it is there; `/readyz` says the same.",
};
const BUILD: Series = Series {
    name: "watchword_build_info",
    kind: Kind::Gauge,
    labels: &["version"],
    help: "1, for the version of the process.",
    action: "Several versions for long: a rollout is stuck.",
};
const ROLE: Series = Series {
    name: "watchword_role_info",
    kind: Kind::Gauge,
    labels: &["role"],
    help: "1 for each role the process runs.",
    action: "A role is missing: start it; what it would do waits in its queue.",
};
/// What every process tells of itself, besides [`crate::figures::SERIES`].
pub const SERIES: &[Series] = &[DEPENDENCY, BUILD, ROLE];

/// A registry with the process's own figures and its clock.
pub fn registry(clock: Arc<dyn Clock>) -> Result<Registry, Error> {
    let registry = Registry::new();
    let make = Maker::new(&registry);
    let version = env!("CARGO_PKG_VERSION");
    make.gauges(&BUILD)?.with_label_values(&[version]).set(1);
    registry.register(Box::new(Figures::new(clock)?))?;
    Ok(registry)
}

/// Shows that the process runs `roles`.
pub fn runs(registry: &Registry, roles: &[&str]) -> Result<(), Error> {
    let gauges = Maker::new(registry).gauges(&ROLE)?;
    for role in roles {
        gauges.with_label_values(&[role]).set(1);
    }
    Ok(())
}
