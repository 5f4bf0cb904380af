//! Logs and the metrics registry. Libraries are held back: one of them writes message bodies
//! into its log when a message is returned (facts L5), so no setting lets it go below `error`.

use std::io::IsTerminal;

use prometheus::Registry;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::config::{LogConfig, LogFormat, LogLevel};

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

/// A registry with the process's own figures.
pub fn registry() -> Registry {
    Registry::new()
}
