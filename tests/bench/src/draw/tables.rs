//! Tables of a measurement by rounds.

use std::fmt::Write;

use serde_json::Value;

use super::figure;
use crate::figures::show;

/// Systems with their names in tables and plots.
pub const SYSTEMS: [(&str, &str); 6] = [
    ("lean", "lean"),
    ("lean_calls", "lean, with the calls of our promises"),
    ("one_process", "one process"),
    ("four_processes", "four processes"),
    ("embedded", "embedded"),
    ("email_way", "one process, email"),
];
/// Loads at which latency is measured, with their titles.
const LOADS: [(&str, &str); 4] = [
    ("300", "300 a second"),
    ("25pc", "25 %"),
    ("50pc", "50 %"),
    ("75pc", "75 %"),
];

/// Column: title and figures.
type Column<'a> = (&'a str, &'a [&'a str]);

/// Returns all tables.
pub fn all(all: &Value) -> String {
    if figure(all, "noise.others_share").is_none() {
        return String::new();
    }
    let run = &all["run"];
    let mut text = format!(
        "{} processors, RabbitMQ {}, Redis {} (AOF everysec); {} rounds; {} users in a closed loop for {} s, then open loops of {} s each. \
         Medians; where there are three values they are min / **median** / max.\n",
        run["on"]["processors"],
        run["on"]["rabbitmq"].as_str().unwrap_or("?"),
        run["on"]["redis"].as_str().unwrap_or("?"),
        run["rounds"],
        run["users"],
        run["closed_s"],
        run["open_s"],
    );
    systems(all, &mut text);
    for (what, title) in [("handover", "Request to hand-over"), ("check", "Check")] {
        latency(all, what, title, &mut text);
    }
    ratios(all, &mut text);
    noise(all, &mut text);
    text
}

fn systems(all: &Value, text: &mut String) {
    let columns: [Column; 4] = [
        (
            "processor us: own / broker / store / load",
            &["own_us", "broker_us", "store_us", "driver_us"],
        ),
        (
            "bytes to disk: own / broker / store",
            &["own_disk_bytes", "broker_disk_bytes", "store_disk_bytes"],
        ),
        ("MB idle / full load", &["idle_mb", "full_load_mb"]),
        ("bytes of Redis, open", &["store_bytes"]),
    ];
    let _ = write!(text, "\n| one code | codes a second |");
    for (title, _) in &columns {
        let _ = write!(text, " {title} |");
    }
    let _ = writeln!(text, "\n|---|--:|--:|--:|--:|--:|");
    for (kind, title) in SYSTEMS {
        let Some(rate) = figure(all, &format!("{kind}.per_s")) else {
            continue;
        };
        let _ = write!(text, "| {title} | {} |", three(rate));
        for (_, names) in &columns {
            let _ = write!(text, " {} |", medians(all, kind, names));
        }
        let _ = writeln!(text);
    }
}

fn latency(all: &Value, what: &str, title: &str, text: &mut String) {
    let loads: Vec<_> = LOADS
        .into_iter()
        .filter(|(load, _)| figure(all, &format!("lean.{what}_p50_ms_{load}")).is_some())
        .collect();
    if loads.is_empty() {
        return;
    }
    let _ = write!(text, "\n| {title}, ms, p50 / p99 / p99.9 |");
    for (_, title) in &loads {
        let _ = write!(text, " {title} |");
    }
    let _ = writeln!(text, "\n|---|{}", "--:|".repeat(loads.len()));
    for (kind, title) in SYSTEMS {
        if figure(all, &format!("{kind}.{what}_p50_ms_300")).is_none() {
            continue;
        }
        let _ = write!(text, "| {title} |");
        for (load, _) in &loads {
            let names = ["p50", "p99", "p999"].map(|q| format!("{what}_{q}_ms_{load}"));
            let names = names.each_ref().map(String::as_str);
            let _ = write!(text, " {}", medians(all, kind, &names));
            let failed = figure(all, &format!("{kind}.failed_{load}")).unwrap_or_default();
            // Failed arrivals are in no quantile, so name their number.
            if failed[2] > 0.0 {
                let [least, median, most] = failed.map(show);
                let _ = write!(text, " (failed: {least} / {median} / {most})");
            }
            let _ = write!(text, " |");
        }
        let _ = writeln!(text);
    }
}

fn ratios(all: &Value, text: &mut String) {
    let rows = [
        ("ratio_one_process", "rate, one process to lean"),
        ("ratio_four_processes", "rate, four processes to lean"),
        (
            "ratio_lean_calls",
            "rate, lean with the calls of our promises to lean",
        ),
        (
            "ratio_one_process_to_lean_calls",
            "rate, one process to lean with those calls",
        ),
        (
            "ratio_four_processes_to_lean_calls",
            "rate, four processes to lean with those calls",
        ),
        ("cpu_ratio", "own processor time, one process to lean"),
        ("email_ratio", "rate, email way to SMS way"),
        ("smtp_ratio", "mails alone, ours to smtp-source"),
        (
            "slow_provider_share",
            "rate with a provider of 100 ms, to what 256 messages on the way allow",
        ),
    ];
    let _ = writeln!(
        text,
        "\n| ratio, same round | min / **median** / max |\n|---|--:|"
    );
    for (name, title) in rows {
        if let Some(values) = figure(all, name) {
            let _ = writeln!(text, "| {title} | {} |", three(values));
        }
    }
}

fn noise(all: &Value, text: &mut String) {
    let rounds = |name: &str| all[name]["rounds"].as_array().cloned().unwrap_or_default();
    let noisy = rounds("noise.noisy");
    let is_set = |value: &&Value| value.as_f64() == Some(1.0);
    let count = noisy.iter().filter(is_set).count();
    let others = figure(all, "noise.others_share").unwrap_or_default();
    let _ = writeln!(
        text,
        "\n{count} of {} rounds are noisy: a lean pipeline more than 15 % from its median, or other work and the host took more than 10 % of the machine \
         (median {:.0} %, at most {:.0} %).",
        noisy.len(),
        others[1] * 100.0,
        others[2] * 100.0,
    );
}

fn medians(all: &Value, kind: &str, names: &[&str]) -> String {
    let one = |name: &&str| {
        let value = figure(all, &format!("{kind}.{name}"));
        value.map_or_else(|| "-".to_owned(), |value| show(value[1]))
    };
    let values: Vec<_> = names.iter().map(one).collect();
    if values.iter().all(|value| value == "-") {
        return "-".to_owned();
    }
    values.join(" / ")
}

fn three([least, median, most]: [f64; 3]) -> String {
    format!("{} / **{}** / {}", show(least), show(median), show(most))
}
