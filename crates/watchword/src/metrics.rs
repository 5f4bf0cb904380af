//! `watchword metrics`: the reference of all series, generated from their declarations in the
//! crates, with an introduction.

use serde_json::json;
use watchword_chassis::{process_metrics, telemetry};
use watchword_metrics::{Kind, Series, markdown};

use crate::{certificates, output};

const HEAD: &str = "# Metrics

This page is the output of `watchword metrics`; a test compares the two. Each process serves its
series at `/metrics` on the admin listener, in the Prometheus text format. Give the scrape jobs
names that begin with `watchword`, because the alerts select them by that prefix. The dashboards and
alerts ([runbook](runbook.md)) use only these series.

Label values are constants or names from the configuration (of providers), not data from a request:
no label contains a recipient, a code, an id or a text of a service. Series start at 0; those with a
country start with its first message.

**Objective.** 99 % of the codes are handed to a provider within 5 s of being accepted: the bucket
`le=\"5\"` of `watchword_handover_age_seconds`, divided by all deliveries that were handed over,
expired, dead-lettered, or failed for a reason other than the recipient or a text that the provider
rejected.

**Limitations.**

- Conversion (approved / opened) has the channel as a label, but neither provider nor country. A
  check is a single call of the store for a record that contains neither. The ledger has the
  provider and the issuer the country, and reading either would cost a further call for each check.
- Receipts show the messages that a provider delivered, if it sends receipts.
  `watchword_country_attempts_total` and `watchword_verifications_opened_total` show countries.
- The age of a queue's oldest message is an upper bound, because RabbitMQ shows no message without
  taking it from the queue.
- The program serves no TLS, so only the certificates of its peers are watched. SMPP binds are made
  without TLS.
";

/// The groups of series, in the order in which a code passes them.
pub const GROUPS: [(&str, &[Series]); 11] = [
    ("Requests (issuer)", watchword_issuer::SERIES),
    (
        "Code state and checks (verifier; opened by the issuer)",
        watchword_verifier::SERIES,
    ),
    ("Deliveries (workers)", watchword_delivery::SERIES),
    (
        "Receipts over HTTP (SMS worker)",
        watchword_sms_worker::SERIES,
    ),
    (
        "Queues (every role but a verifier alone)",
        watchword_broker::SERIES,
    ),
    ("Store (every role)", watchword_storage::SERIES),
    ("Roles and dependencies (every role)", telemetry::SERIES),
    (
        "Configuration and traces (every role)",
        crate::reload::SERIES,
    ),
    ("Certificates (every role)", certificates::SERIES),
    ("Admin API (every role)", watchword_admin::SERIES),
    ("Process (every role, on Linux)", process_metrics::SERIES),
];

/// Returns the reference as Markdown.
pub fn document() -> String {
    format!("{HEAD}{}", markdown(&GROUPS))
}

/// Prints the reference, or the series as JSON.
pub fn run(as_json: bool) -> anyhow::Result<()> {
    if !as_json {
        output::data(&document());
        return Ok(());
    }
    let series = GROUPS.iter().flat_map(|(group, series)| {
        series.iter().map(move |series| {
            let kind = match series.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram(_) => "histogram",
            };
            json!({
                "group": group, "name": series.name, "kind": kind, "labels": series.labels,
                "help": series.help, "action": series.action,
            })
        })
    });
    output::json(&series.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Run with `WATCHWORD_WRITE=1` to write the page instead of comparing it.
    #[test]
    fn the_document_is_what_the_code_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
        if std::env::var_os("WATCHWORD_WRITE").is_some() {
            std::fs::write(&path, document()).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap();
        assert!(
            written == document(),
            "docs/metrics.md is not what `watchword metrics` prints"
        );
    }

    #[test]
    fn names_follow_the_conventions() {
        let mut names = BTreeSet::new();
        for series in GROUPS.iter().flat_map(|(_, series)| *series) {
            let name = series.name;
            assert!(names.insert(name), "{name} is declared twice");
            let is_total = name.ends_with("_total");
            assert_eq!(is_total, series.kind == Kind::Counter, "{name}");
            if let Kind::Histogram(buckets) = series.kind {
                assert!(name.ends_with("_seconds"), "{name}");
                assert!(buckets.is_sorted(), "{name}");
            }
            for text in [series.help, series.action] {
                assert!(text.ends_with('.'), "{name}: {text}");
                assert!(!text.contains(['|', '\n']), "{name}: {text}");
            }
            for label in series.labels {
                let secret = ["recipient", "to", "code", "subject", "purpose", "id"];
                assert!(!secret.contains(label), "{name} has the label {label}");
            }
        }
    }
}
