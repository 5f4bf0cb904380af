//! The process that runs beside the doctor, by its metrics: which providers fail its calls, and which
//! send no receipts. A probe sends no message, so it cannot see that a provider refuses ours.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::Findings;
use crate::client::client;
use crate::config::Config;

const DEADLINE: Duration = Duration::from_secs(2);
const SERIES: &str = "watchword_provider_failures_in_a_row{";
/// From this many failures in a row on a provider counts as dead.
const DEAD: f64 = 3.0;
const ATTEMPTS: &str = "watchword_attempts_total{";
/// A provider that is asked for receipts has this series from the start of its process.
const RECEIPTS: &str = "watchword_receipt_calls_total{";
/// From this many accepted messages on a receipt is missed.
const MISSED: u64 = 5;

pub(super) async fn look(config: &Config, findings: &mut Findings) {
    let mut address = config.admin.listen;
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let metrics = metrics(address).await.unwrap_or_default();
    for (provider, accepted) in silent(&metrics) {
        findings.careful(
            &format!("sms {provider}"),
            format!(
                "accepted {accepted} messages and sent no receipt: does it report to sms.public_url, and does that lead here \
                 from where it is?"
            ),
        );
    }
    if !report(&metrics, findings) {
        findings.fine(
            "process",
            format!("no worker answers at admin.listen ({address}), whose calls of providers would show whether they refuse us"),
        );
    }
}

async fn metrics(address: SocketAddr) -> Option<String> {
    let url = format!("http://{address}/metrics");
    let request = client().ok()?.get(url).timeout(DEADLINE);
    let answer = request.send().await.ok()?.error_for_status().ok()?;
    answer.text().await.ok()
}

/// Reports the providers whose last calls failed. Returns whether `metrics` are those of a worker.
fn report(metrics: &str, findings: &mut Findings) -> bool {
    let mut is_worker = false;
    for line in metrics.lines() {
        let Some((labels, value)) = line
            .strip_prefix(SERIES)
            .and_then(|rest| rest.split_once("} "))
        else {
            continue;
        };
        is_worker = true;
        let (Some(channel), Some(name)) = (label(labels, "channel"), label(labels, "provider"))
        else {
            continue;
        };
        let failures: f64 = value.trim().parse().unwrap_or(0.0);
        let about = format!("{channel} {name}");
        let what = format!(
            "{failures} calls in a row failed in the running process: `watchword provider test {name} --to ADDRESS` shows the answer"
        );
        if failures >= DEAD {
            findings.wrong(&about, what);
        } else if failures > 0.0 {
            findings.careful(&about, what);
        }
    }
    is_worker
}

/// The providers that are asked for receipts and sent none, with the messages that they accepted.
fn silent(metrics: &str) -> Vec<(&str, u64)> {
    let labels_and_value = |series| {
        metrics
            .lines()
            .filter_map(move |line: &str| line.strip_prefix(series)?.split_once("} "))
    };
    let mut providers: Vec<_> = labels_and_value(RECEIPTS)
        .filter_map(|(labels, _)| label(labels, "provider"))
        .collect();
    providers.dedup();
    let count = |series, provider, (name, value)| -> u64 {
        let of_it = labels_and_value(series).filter(|(labels, _)| {
            label(labels, "provider") == Some(provider) && label(labels, name) == Some(value)
        });
        of_it
            .filter_map(|(_, count)| count.trim().parse::<u64>().ok())
            .sum()
    };
    let silent = providers.into_iter().filter_map(|provider| {
        let accepted = count(ATTEMPTS, provider, ("class", "accepted"));
        let received = count(RECEIPTS, provider, ("result", "queued"));
        (accepted >= MISSED && received == 0).then_some((provider, accepted))
    });
    silent.collect()
}

/// The value of a label. Names of channels and providers hold nothing that is escaped.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.split(',').find_map(|label| {
        let (found, value) = label.split_once('=')?;
        (found == name).then(|| value.trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_provider_that_accepts_and_never_reports_is_found() {
        let metrics = "# HELP x\n\
            watchword_attempts_total{channel=\"sms\",class=\"accepted\",provider=\"loud\"} 9\n\
            watchword_attempts_total{channel=\"sms\",class=\"accepted\",provider=\"mute\"} 7\n\
            watchword_attempts_total{channel=\"sms\",class=\"transient\",provider=\"mute\"} 90\n\
            watchword_attempts_total{channel=\"sms\",class=\"accepted\",provider=\"new\"} 4\n\
            watchword_attempts_total{channel=\"sms\",class=\"accepted\",provider=\"inbox\"} 99\n\
            watchword_receipt_calls_total{provider=\"loud\",result=\"forged\"} 0\n\
            watchword_receipt_calls_total{provider=\"loud\",result=\"queued\"} 1\n\
            watchword_receipt_calls_total{provider=\"mute\",result=\"forged\"} 3\n\
            watchword_receipt_calls_total{provider=\"mute\",result=\"queued\"} 0\n\
            watchword_receipt_calls_total{provider=\"new\",result=\"queued\"} 0\n";
        assert_eq!(silent(metrics), [("mute", 7)]);
    }

    #[test]
    fn a_provider_whose_last_calls_failed_is_reported() {
        let mut findings = Findings::default();
        let metrics = "# HELP watchword_provider_failures_in_a_row Calls.\n\
            watchword_provider_failures_in_a_row{channel=\"sms\",provider=\"dead\"} 3\n\
            watchword_provider_failures_in_a_row{channel=\"sms\",provider=\"weak\"} 1\n\
            watchword_provider_failures_in_a_row{channel=\"email\",provider=\"sound\"} 0\n";
        assert!(report(metrics, &mut findings));
        let found: Vec<_> = findings
            .0
            .iter()
            .map(|one| (one.state, &*one.about))
            .collect();
        let expected = [(State::Wrong, "sms dead"), (State::Careful, "sms weak")];
        assert_eq!(found, expected);
        assert!(
            !report("go_threads 7\n", &mut findings),
            "of another program"
        );
    }
}
