//! Checks of the process at `admin.listen` by its metrics: whether it runs, its roles, providers
//! whose calls fail, and providers that send no receipts. The probes of the other checks send no
//! message, so only these metrics show that a provider rejects messages.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use watchword_core::Channel;

use super::Findings;
use crate::cli::Role;
use crate::client::client;
use crate::config::{Config, EngineKind};
use crate::operator::running_warnings;
use crate::output::counted;
use crate::reach::Unreached;

const DEADLINE: Duration = Duration::from_secs(2);
const BUILD: &str = "watchword_build_info{";
const ROLES: &str = "watchword_role_info{";
const SERIES: &str = "watchword_provider_failures_in_a_row{";
/// The number of consecutive failures from which a provider is reported as an error.
const DEAD: f64 = 3.0;
const ATTEMPTS: &str = "watchword_attempts_total{";
/// A provider with receipts has this series from the start of its process.
const RECEIPTS: &str = "watchword_receipt_calls_total{";
const REFUSED: &str = "watchword_config_last_reload_successful";
const WAITING: &str = "watchword_config_restart_needed";
const SHARES: &str = "watchword_provider_share_tenths{";
/// Where to find the names that metrics do not contain.
const NAMES: &str =
    "`watchword status`, or this command with WATCHWORD_ADMIN_KEY, shows the details";
/// The number of accepted messages from which a provider without receipts is reported.
const MISSED: u64 = 5;

/// Checks the process, which should run the roles `named`. If none is named, any roles will do.
pub(super) async fn look(path: &Path, config: &Config, named: &[Role], findings: &mut Findings) {
    let mut address = config.admin.listen;
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let metrics = match metrics(address).await {
        Ok(metrics) => metrics,
        Err(what) => return findings.careful("process", what),
    };
    if !metrics.lines().any(|line| line.starts_with(BUILD)) {
        let what =
            format!("another program answers at {address}: stop it, or set another admin.listen");
        return findings.careful("process", what);
    }
    report_roles(&metrics, config, named, address, findings);
    let warnings = match running_warnings(path).await {
        Some(warnings) => warnings,
        None => warnings_of(&metrics),
    };
    for warning in warnings {
        findings.careful("process", warning);
    }
    for (provider, accepted) in silent(&metrics) {
        findings.careful(
            &format!("sms {provider}"),
            format!(
                "accepted {accepted} messages and sent no receipt: is it set to report to sms.public_url, and can it reach that \
                 address?"
            ),
        );
    }
    report(&metrics, findings);
}

/// Returns the metrics at `address`. The error is the text of a finding.
async fn metrics(address: SocketAddr) -> Result<String, String> {
    let base = format!("http://{address}");
    let client = client().map_err(|error| error.to_string())?;
    let request = client.get(format!("{base}/metrics")).timeout(DEADLINE);
    let answer = match request.send().await {
        Ok(answer) => answer,
        Err(error) => {
            return Err(match Unreached::of(&error) {
                Unreached::Nobody => format!(
                    "nothing answers at {address} (admin.listen): start it with `watchword run`, or set admin.listen to \
                     its address"
                ),
                // The program serves no TLS, so this is another program.
                Unreached::NotHttp => format!(
                    "another program answers at {address}, and not in HTTP: stop it, or set another admin.listen"
                ),
                other => other.advice(&base, "admin.listen"),
            });
        }
    };
    answer
        .text()
        .await
        .map_err(|_| Unreached::Silent.advice(&base, "admin.listen"))
}

/// Reports the roles of the process and the roles in `named` that it lacks.
fn report_roles(
    metrics: &str,
    config: &Config,
    named: &[Role],
    address: SocketAddr,
    findings: &mut Findings,
) {
    let roles = metrics.lines().filter_map(|line| line.strip_prefix(ROLES));
    let roles: Vec<_> = roles
        .filter_map(|rest| label(rest.split_once('}')?.0, "role"))
        .collect();
    if roles.is_empty() {
        let what = format!(
            "the process at {address} runs no role yet: `curl http://{address}/readyz` shows the dependency it waits for"
        );
        return findings.careful("process", what);
    }
    let lacks = |role: &&Role| !roles.contains(&role.as_str());
    let names = |roles: Vec<&Role>| {
        let names: Vec<_> = roles.into_iter().map(|role| role.as_str()).collect();
        names.join(", ")
    };
    let missing: Vec<_> = named.iter().filter(lacks).collect();
    let elsewhere: Vec<_> = Role::ALL.iter().filter(lacks).collect();
    let mut what = format!("{} at {address}", roles.join(", "));
    if !elsewhere.is_empty() && config.engine == EngineKind::Distributed {
        let others = names(elsewhere);
        what =
            format!("{what}; not {others}: set WATCHWORD_ADMIN__LISTEN to check another process");
    }
    findings.fine("process", what);
    if !missing.is_empty() {
        let missing = names(missing);
        let what = format!(
            "{missing} does not run in the process at {address}: start it with `watchword run {}`",
            missing.replace(", ", " ")
        );
        findings.careful("process", what);
    }
}

/// Returns those warnings of `watchword status` that follow from `metrics`.
fn warnings_of(metrics: &str) -> Vec<String> {
    let value = |series: &str| {
        let mut lines = metrics.lines();
        let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.and_then(|value| value.trim().parse::<u64>().ok())
    };
    let mut warnings = Vec::new();
    if value(REFUSED) == Some(0) {
        warnings.push(format!(
            "the process refused the last reload and keeps its earlier configuration. {NAMES}"
        ));
    }
    if let Some(keys) = value(WAITING).filter(|keys| *keys > 0) {
        let keys = counted(keys, "key");
        warnings.push(format!("the process keeps the earlier values of {keys} of the configuration until it is restarted. {NAMES}"));
    }
    for channel in Channel::ALL {
        let shares = metrics.lines().filter_map(|line| {
            let (labels, share) = line.strip_prefix(SHARES)?.split_once("} ")?;
            (label(labels, "channel") == Some(channel.as_str())).then_some(share.trim() == "0")
        });
        let shares: Vec<bool> = shares.collect();
        if !shares.is_empty() && shares.iter().all(|is_zero| *is_zero) {
            warnings.push(format!(
                "every provider of {channel} has an open circuit. {NAMES}"
            ));
        }
    }
    warnings
}

/// Reports the providers whose last calls failed.
fn report(metrics: &str, findings: &mut Findings) {
    for line in metrics.lines() {
        let Some((labels, value)) = line
            .strip_prefix(SERIES)
            .and_then(|rest| rest.split_once("} "))
        else {
            continue;
        };
        let (Some(channel), Some(name)) = (label(labels, "channel"), label(labels, "provider"))
        else {
            continue;
        };
        let failures: f64 = value.trim().parse().unwrap_or(0.0);
        let about = format!("{channel} {name}");
        let calls = if failures > 1.0 {
            "calls in a row"
        } else {
            "call"
        };
        let what = format!(
            "{failures} {calls} failed in the running process: `watchword provider test {name} --to ADDRESS` shows the answer"
        );
        if failures >= DEAD {
            findings.wrong(&about, what);
        } else if failures > 0.0 {
            findings.careful(&about, what);
        }
    }
}

/// Returns the providers that should send receipts and sent none, with the number of messages that
/// they accepted.
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

/// Returns the value of the label `name`. It does not unescape, because names of channels and
/// providers contain no escaped characters.
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
    fn a_pending_restart_a_refused_reload_and_a_standstill_are_reported() {
        let sound = "watchword_config_last_reload_successful 1\n\
            watchword_config_restart_needed 0\n\
            watchword_provider_share_tenths{channel=\"sms\",provider=\"a\"} 0\n\
            watchword_provider_share_tenths{channel=\"sms\",provider=\"b\"} 10\n";
        assert_eq!(warnings_of(sound), [""; 0]);
        let broken = "watchword_config_last_reload_successful 0\n\
            watchword_config_restart_needed 1\n\
            watchword_provider_share_tenths{channel=\"email\",provider=\"a\"} 10\n\
            watchword_provider_share_tenths{channel=\"sms\",provider=\"a\"} 0\n";
        let warnings = warnings_of(broken);
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        for (warning, words) in warnings.iter().zip([
            "refused the last reload",
            "the earlier values of 1 key of",
            "every provider of sms",
        ]) {
            assert!(warning.contains(words), "{warning}");
        }
    }

    #[test]
    fn a_provider_whose_last_calls_failed_is_reported() {
        let mut findings = Findings::default();
        let metrics = "# HELP watchword_provider_failures_in_a_row Calls.\n\
            watchword_provider_failures_in_a_row{channel=\"sms\",provider=\"dead\"} 3\n\
            watchword_provider_failures_in_a_row{channel=\"sms\",provider=\"weak\"} 1\n\
            watchword_provider_failures_in_a_row{channel=\"email\",provider=\"sound\"} 0\n";
        report(metrics, &mut findings);
        let found: Vec<_> = findings
            .0
            .iter()
            .map(|one| (one.state, &*one.about))
            .collect();
        let expected = [(State::Wrong, "sms dead"), (State::Careful, "sms weak")];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_roles_that_run_and_those_that_are_missed_are_named() {
        let metrics =
            "watchword_role_info{role=\"issuer\"} 1\nwatchword_role_info{role=\"verifier\"} 1\n";
        let look = |text: &str, metrics: &str, named: &[Role]| {
            let mut findings = Findings::default();
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), format!("engine = \"{text}\"\n[services]")).unwrap();
            let config = Config::read_under(file.path(), std::iter::empty()).unwrap();
            let address = SocketAddr::from(([127, 0, 0, 1], 9090));
            report_roles(metrics, &config, named, address, &mut findings);
            let found = findings.0.into_iter().map(|one| (one.state, one.what));
            found.collect::<Vec<_>>()
        };
        let found = look("distributed", metrics, &[]);
        assert!(
            found.len() == 1
                && found[0].0 == State::Fine
                && found[0].1.contains("; not sms-worker, email-worker:"),
            "{found:?}"
        );
        let found = look("distributed", metrics, &[Role::Issuer, Role::SmsWorker]);
        assert!(
            found.len() == 2
                && found[1].0 == State::Careful
                && found[1].1.contains("`watchword run sms-worker`"),
            "{found:?}"
        );
        let found = look("embedded", "", &[]);
        assert!(
            found.len() == 1 && found[0].0 == State::Careful && found[0].1.contains("/readyz"),
            "{found:?}"
        );
    }
}
