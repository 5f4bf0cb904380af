//! Tables and plots of how cost grows.

use std::fmt::Write;

use serde_json::Value;

use super::chart::{Chart, Curve};
use crate::figures::show;

/// Table: name, title, and columns with their titles.
type Table = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

const TABLES: [Table; 9] = [
    (
        "load",
        "Load: one process, open loops at parts of its highest rate, then the closed loop",
        &[
            ("offered_per_s", "offered a second"),
            ("per_s", "done a second"),
            ("failed", "failed"),
            ("own_us", "own us"),
            ("broker_us", "broker us"),
            ("store_us", "store us"),
            ("handover_p50_ms", "p50 ms"),
            ("handover_p99_ms", "p99 ms"),
        ],
    ),
    (
        "recipients",
        "Recipients: verifications that are live at once, each of somebody else",
        &[
            ("live", "live"),
            ("redis_bytes_each", "bytes of Redis each"),
            ("keys_each", "keys each"),
            ("opened_per_s", "opened a second"),
            ("store_us", "store us"),
            ("own_us", "own us"),
            ("own_mb", "own MB"),
            ("oldest_s", "age of the oldest, s"),
        ],
    ),
    (
        "providers",
        "Providers with a route each; every message takes the last route",
        &[
            ("providers", "providers"),
            ("per_s", "codes a second"),
            ("own_us", "own us"),
            ("idle_mb", "MB idle"),
            ("full_load_mb", "MB full load"),
        ],
    ),
    (
        "backlog",
        "Backlog: orders published while no worker ran, then one was started",
        &[
            ("asked", "asked for"),
            ("published", "published"),
            ("handed_over", "handed over"),
            ("expired", "expired"),
            ("first_s", "first hand-over after, s"),
            ("drain_per_s", "drained a second"),
            ("broker_empty_mb", "broker MB before"),
        ],
    ),
    (
        "backlog_publish",
        "The backlog while it grew",
        &[
            ("published", "published"),
            ("per_s", "a second"),
            ("broker_mb", "broker MB"),
            ("issuer_mb", "issuer MB"),
        ],
    ),
    (
        "backlog_drain",
        "The backlog while it was drained (at most twelve of the looks)",
        &[
            ("after_s", "after, s"),
            ("handed_over", "handed over"),
            ("per_s", "a second"),
            ("worker_mb", "worker MB"),
            ("broker_mb", "broker MB"),
        ],
    ),
    (
        "stale",
        "A fresh code behind others, from the start of the worker",
        &[
            ("before_it", "before it"),
            ("are_past", "those are past their deadline"),
            ("after_s", "handed over after, s"),
            ("handed_over_by_then", "handed over by then"),
            ("expired_by_then", "given up by then"),
        ],
    ),
    (
        "slow",
        "A slow provider",
        &[
            ("delay_ms", "it takes, ms"),
            ("on_the_way", "on the way at most"),
            ("per_s", "codes a second"),
            ("most_per_s", "possible"),
            ("share", "share"),
            ("full_load_mb", "MB"),
        ],
    ),
    (
        "workers",
        "Processes of the SMS worker, 32 messages on the way each, a provider that takes 100 ms",
        &[
            ("workers", "workers"),
            ("per_s", "codes a second"),
            ("most_per_s", "possible"),
            ("share", "share"),
            ("own_us", "own us"),
            ("worker_mb", "a worker's MB"),
        ],
    ),
];
/// Maximum number of rows of a table.
const ROWS: usize = 12;

fn rows<'a>(all: &'a Value, name: &str) -> &'a [Value] {
    all[format!("growth.{name}")]
        .as_array()
        .map_or(&[], Vec::as_slice)
}

/// Returns the tables that have rows.
pub fn tables(all: &Value) -> String {
    let mut text = String::new();
    for (name, title, columns) in TABLES {
        let rows = rows(all, name);
        if rows.is_empty() {
            continue;
        }
        let _ = write!(text, "\n**{title}.**\n\n|");
        for (_, title) in columns {
            let _ = write!(text, " {title} |");
        }
        let _ = writeln!(text, "\n|{}", "--:|".repeat(columns.len()));
        let step = rows.len().div_ceil(ROWS);
        for row in rows.iter().step_by(step) {
            let _ = write!(text, "|");
            for (column, _) in columns {
                let value = row[column].as_f64();
                let _ = write!(text, " {} |", value.map_or("-".to_owned(), whole));
            }
            let _ = writeln!(text);
        }
    }
    text
}

/// Formats a count without decimal places, and any other value with [`show`].
fn whole(value: f64) -> String {
    if value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        show(value)
    }
}

/// Returns the points of two columns of a table.
fn points(all: &Value, table: &str, x: &str, y: &str) -> Vec<(f64, f64)> {
    let one = |row: &Value| Some((row[x].as_f64()?, row[y].as_f64()?));
    rows(all, table).iter().filter_map(one).collect()
}

/// Returns the plots with their file names.
pub fn charts(all: &Value) -> Vec<(&'static str, Chart)> {
    let curve = |label: &str, table: &str, x: &str, y: &str| {
        Curve::new(label.to_owned(), points(all, table, x, y))
    };
    vec![
        (
            "growth-load.svg",
            Chart {
                title: "Processor time of one code by load",
                x: "codes a second",
                y: "microseconds",
                is_log: (true, false),
                curves: vec![
                    curve("own", "load", "per_s", "own_us"),
                    curve("broker", "load", "per_s", "broker_us"),
                    curve("store", "load", "per_s", "store_us"),
                ],
            },
        ),
        (
            "growth-recipients.svg",
            Chart {
                title: "Redis for one live verification",
                x: "live verifications",
                y: "bytes, all keys included",
                is_log: (true, false),
                curves: vec![curve("bytes", "recipients", "live", "redis_bytes_each")],
            },
        ),
        (
            "growth-providers.svg",
            Chart {
                title: "Own processor time by configured providers",
                x: "providers, each with a route",
                y: "microseconds a code",
                is_log: (true, false),
                curves: vec![curve("own", "providers", "providers", "own_us")],
            },
        ),
        (
            "growth-backlog.svg",
            Chart {
                title: "Memory while a backlog grows",
                x: "messages that wait",
                y: "MB",
                is_log: (false, false),
                curves: vec![
                    curve("broker", "backlog_publish", "published", "broker_mb"),
                    curve("issuer", "backlog_publish", "published", "issuer_mb"),
                ],
            },
        ),
        (
            "growth-drain.svg",
            Chart {
                title: "A worker that drains a backlog",
                x: "seconds after its start",
                y: "hand-overs a second",
                is_log: (false, false),
                curves: vec![curve("hand-overs", "backlog_drain", "after_s", "per_s")],
            },
        ),
        (
            "growth-drain-memory.svg",
            Chart {
                title: "Memory while a backlog is drained",
                x: "seconds after the worker's start",
                y: "MB",
                is_log: (false, false),
                curves: vec![
                    curve("broker", "backlog_drain", "after_s", "broker_mb"),
                    curve("worker", "backlog_drain", "after_s", "worker_mb"),
                ],
            },
        ),
        (
            "growth-workers.svg",
            Chart {
                title: "Workers at a provider that takes 100 ms",
                x: "worker processes",
                y: "codes a second",
                is_log: (false, false),
                curves: vec![
                    curve("measured", "workers", "workers", "per_s"),
                    curve("on the way / 100 ms", "workers", "workers", "most_per_s"),
                ],
            },
        ),
    ]
}
