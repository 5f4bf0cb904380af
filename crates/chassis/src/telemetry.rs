//! Logging and the metrics registry. Libraries log from `warn` on, and the AMQP client from `error`
//! on regardless of the configured level: at `warn` it logs the bodies of returned messages.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};
use watchword_core::Clock;
use watchword_metrics::prometheus::{Error, Registry};
use watchword_metrics::{Kind, Maker, Series};

use crate::config::{LogConfig, LogFormat, LogLevel};
use crate::process_metrics::ProcessMetrics;

/// Set when the process begins to stop; silences the AMQP client.
static STOPPING: AtomicBool = AtomicBool::new(false);

/// Starts logging to standard error. Further calls change nothing.
pub fn init(config: LogConfig) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(config.level))
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE)
        .with_ansi(has_colors());
    // Fails only if a subscriber is already installed, as in tests.
    let _ = match config.format {
        LogFormat::Human => {
            let builder = builder.with_filter_reloading();
            let filters = builder.reload_handle();
            let started = builder.finish().with(client_filter()).try_init();
            started.map(|()| keep(move |level| filters.reload(filter(level)).is_ok()))
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let filters = builder.reload_handle();
            let started = builder.finish().with(client_filter()).try_init();
            started.map(|()| keep(move |level| filters.reload(filter(level)).is_ok()))
        }
    };
}

type SetLevel = Box<dyn Fn(LogLevel) -> bool + Send + Sync>;

/// Changes the level of the process-wide subscriber.
static SET_LEVEL: OnceLock<SetLevel> = OnceLock::new();

fn keep(set: impl Fn(LogLevel) -> bool + Send + Sync + 'static) {
    // Set at most once, because only one subscriber can be installed.
    let _ = SET_LEVEL.set(Box::new(set));
}

/// Sets the log level. Has no effect before [`init`].
pub fn set_level(level: LogLevel) {
    if let Some(set) = SET_LEVEL.get() {
        set(level);
    }
}

/// Returns whether to use colors: on a terminal, unless `NO_COLOR` is set.
fn has_colors() -> bool {
    let is_off = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !is_off && std::io::stderr().is_terminal()
}

/// Drops all further log lines of the AMQP client. During shutdown it reports an error for each
/// channel that closes while it still acknowledges on it. A command reports its own failures.
pub fn silence_amqp_client() {
    STOPPING.store(true, Ordering::Relaxed);
}

fn client_filter<S: Subscriber>() -> impl Layer<S> {
    let is_client = |metadata: &Metadata<'_>| metadata.target().starts_with("lapin");
    dynamic_filter_fn(move |metadata, _: &Context<'_, S>| {
        !is_client(metadata) || !STOPPING.load(Ordering::Relaxed)
    })
    // Only the decision for the client changes, so `tracing` may cache the others.
    .with_callsite_filter(move |metadata| {
        if is_client(metadata) {
            Interest::sometimes()
        } else {
            Interest::always()
        }
    })
}

/// Returns the log filter: Watchword's targets from `level` on, libraries from `warn`, the AMQP
/// client from `error`, and the audit records of the admin API at every level, because the log is
/// their permanent copy.
pub fn filter(level: LogLevel) -> EnvFilter {
    let level = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    EnvFilter::new(format!(
        "warn,watchword={level},watchword::admin_audit=info,lapin=error,amq_protocol=error"
    ))
}

/// State of each dependency; built for each scrape.
pub(crate) const DEPENDENCY: Series = Series {
    name: "watchword_dependency_up",
    kind: Kind::Gauge,
    labels: &["dependency"],
    help: "1 while the dependency is available: `rabbitmq` and `redis`, or `sqlite`; `started` is 1 once the roles run.",
    action: "0: the process does no work until the dependency is available; `/readyz` reports the same.",
};
const BUILD: Series = Series {
    name: "watchword_build_info",
    kind: Kind::Gauge,
    labels: &["version"],
    help: "Always 1; the label is the version of the process.",
    action: "Several versions for a long time mean that a rollout is stuck.",
};
const ROLE: Series = Series {
    name: "watchword_role_info",
    kind: Kind::Gauge,
    labels: &["role"],
    help: "1 for each role the process runs.",
    action: "If a role is missing, start it; its messages wait in their queues.",
};
/// Metrics that every process reports besides [`crate::process_metrics::SERIES`].
pub const SERIES: &[Series] = &[DEPENDENCY, BUILD, ROLE];

/// Creates a registry with the process metrics and the build version.
pub fn registry(clock: Arc<dyn Clock>) -> Result<Registry, Error> {
    let registry = Registry::new();
    let make = Maker::new(&registry);
    let version = env!("CARGO_PKG_VERSION");
    make.gauges(&BUILD)?.with_label_values(&[version]).set(1);
    registry.register(Box::new(ProcessMetrics::new(clock)?))?;
    Ok(registry)
}

/// Registers the roles that the process runs.
pub fn runs(registry: &Registry, roles: &[&str]) -> Result<(), Error> {
    let gauges = Maker::new(registry).gauges(&ROLE)?;
    for role in roles {
        gauges.with_label_values(&[role]).set(1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tracing::{Level, enabled};

    use super::*;

    #[test]
    fn the_level_changes_while_the_process_runs() {
        init(LogConfig::default());
        let debug = || enabled!(target: "watchword", Level::DEBUG);
        let library = || enabled!(target: "lapin", Level::WARN);
        assert!(!debug());
        set_level(LogLevel::Trace);
        assert!(debug() && !library());
        set_level(LogLevel::Warn);
        assert!(!debug() && !enabled!(target: "watchword", Level::INFO));
        for level in [LogLevel::Error, LogLevel::Warn, LogLevel::Info] {
            set_level(level);
            assert!(enabled!(target: "watchword::admin_audit", Level::INFO));
        }
        set_level(LogLevel::Error);
        assert!(!enabled!(target: "watchword", Level::WARN));
    }
}
