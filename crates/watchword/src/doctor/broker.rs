//! The broker: login, queues, who reads them, what lies aside, alarms.

use watchword_broker::{Examined, Publishing, QueueState, examine};

use super::Findings;
use crate::config::Config;
use crate::engine::distributed::rabbitmq_settings;

pub(super) async fn look(config: &Config, findings: &mut Findings) {
    let settings = match rabbitmq_settings(config) {
        Ok(settings) => settings,
        Err(error) => return findings.wrong("rabbitmq", error.to_string()),
    };
    match examine(&settings).await {
        Ok(examined) => {
            report(&examined, findings);
            tenants(config, findings);
        }
        Err(error) => findings.wrong(
            "rabbitmq",
            format!("{error}; is it running at rabbitmq.url, and are user, password and virtual host right?"),
        ),
    }
}

/// Watchword's user cannot read the permissions of others: the broker shows them to administrators
/// only.
fn tenants(config: &Config, findings: &mut Findings) {
    let users = config
        .services
        .values()
        .map(|section| section.broker_users.len());
    let count: usize = users.sum();
    if count > 0 {
        findings.fine(
            "broker users",
            format!("{count} may publish requests; their permissions cannot be checked from here: `watchword topology --permissions` prints what they should be"),
        );
    }
}

fn report(examined: &Examined, findings: &mut Findings) {
    findings.fine("rabbitmq", "connected and logged in");
    match examined.publishing {
        Publishing::Taken => {}
        Publishing::Blocked => findings.wrong(
            "rabbitmq",
            "it refuses messages: an alarm of memory or disk; see `rabbitmq-diagnostics alarms`, free what is short",
        ),
        Publishing::Forbidden => findings.wrong(
            "rabbitmq",
            "the user may not write to the default exchange, by which messages wait and are put aside: give it the right (`amq.default`)",
        ),
    }
    match (examined.missing.len(), examined.queues.len()) {
        (0, standing) => findings.fine("topology", format!("{standing} queues stand as they should")),
        (missing, 0) => findings.careful(
            "topology",
            format!("none of the {missing} queues stands yet: a role declares them when it connects, or `watchword topology --apply`"),
        ),
        (missing, _) => findings.wrong(
            "topology",
            format!("{missing} queues are missing, {} among them: `watchword topology --apply`", examined.missing[0]),
        ),
    }
    for name in &examined.mismatched {
        findings.wrong(
            "topology",
            format!("{name} stands with other arguments: drain it, delete it, then `watchword topology --apply`"),
        );
    }
    for queue in &examined.queues {
        read(queue, findings);
    }
}

/// Whether a queue is read, and what lies in it.
fn read(queue: &QueueState, findings: &mut Findings) {
    let QueueState {
        name,
        messages,
        consumers,
    } = queue;
    if name.ends_with(".parked") {
        if *messages > 0 {
            let lane = name
                .trim_start_matches("watchword.")
                .trim_end_matches(".parked");
            findings.careful(
                name,
                format!(
                    "{messages} put aside: `watchword dead-letters list --queue {lane}` says why"
                ),
            );
        }
        return;
    }
    // A wait queue has no reader.
    if name.contains(".retry.") {
        return;
    }
    match (*consumers, *messages) {
        (0, 0) => findings.careful(name, "nobody reads it: is its role running?"),
        (0, waiting) => findings.wrong(
            name,
            format!("nobody reads it and {waiting} messages wait: start its role"),
        ),
        (readers, waiting) => {
            findings.fine(name, format!("{waiting} waiting, {readers} readers"));
        }
    }
}
