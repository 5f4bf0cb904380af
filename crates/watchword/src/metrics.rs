//! `watchword metrics`: the document of every series, made of the declarations beside the code that
//! counts. Refuses to say anything of its own but how to read it.

use serde_json::json;
use watchword_chassis::{figures, telemetry};
use watchword_metrics::{Kind, Series, markdown};

use crate::{certificates, output};

const HEAD: &str = "# Metrics

Printed by `watchword metrics`; a test holds this page against the program. Each process serves its own at `/metrics` on the
admin listener, in the text form of Prometheus. Name the scrape jobs `watchword…`: the alerts look for that. The dashboards
and the alerts ([runbook](runbook.md)) need these series and no others.

Labels come from closed sets and from the configuration (names of providers), never from a request: no recipient, code, id
or text of a service is in any. Series stand at 0 from the start, those with a country from its first message.

**Objective.** 99 % of the codes are handed to a provider within 5 s of being accepted: the bucket `le=\"5\"` of
`watchword_handover_age_seconds`, of all handed over, expired, parked and failed for another cause than the recipient
or a text that a provider refused.

**Not to be had.** Conversion (approved of opened) is told by channel, not by provider or country: a check is one call of the
store for one record, which knows neither; the ledger knows the provider and issuer the country, and asking them would be a call
more for each check. What a provider delivers is told by its receipts, where it sends some; countries by
`watchword_country_attempts_total` and `watchword_verifications_opened_total`. The age of a queue's head is a bound, because
RabbitMQ shows no message without taking it. The program serves no TLS of its own, so that only the certificates of its peers are
watched. SMPP binds are made without TLS.
";

/// The groups in the way of a code.
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
    ("Process (every role, on Linux)", figures::SERIES),
];

/// The document.
pub fn document() -> String {
    format!("{HEAD}{}", markdown(&GROUPS))
}

/// Prints it, or the series as JSON.
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

    /// `WATCHWORD_WRITE=1` writes it instead.
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
