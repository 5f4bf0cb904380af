//! Checks of the broker: login, permissions, alarms, queues, consumers and dead letters.

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

/// Reports the configured broker users. Their permissions cannot be checked, because the broker
/// shows the permissions of other users only to administrators.
fn tenants(config: &Config, findings: &mut Findings) {
    let users = config
        .services
        .values()
        .map(|section| section.broker_users.len());
    let count: usize = users.sum();
    if count > 0 {
        findings.fine(
            "broker users",
            format!("{count} may publish requests; their permissions cannot be checked from here, `watchword topology --permissions` prints the right ones"),
        );
    }
}

fn report(examined: &Examined, findings: &mut Findings) {
    findings.fine("rabbitmq", "connected and logged in");
    match examined.publishing {
        Publishing::Taken => {}
        Publishing::Blocked => findings.wrong(
            "rabbitmq",
            "it blocks publishers because of a memory or disk alarm: see `rabbitmq-diagnostics alarms`, then free memory or disk space",
        ),
        Publishing::Forbidden => findings.wrong(
            "rabbitmq",
            "the user may not write to the default exchange, through which messages reach wait and dead-letter queues: grant write permission on `amq.default`, see `watchword topology --permissions`",
        ),
    }
    match (examined.missing.len(), examined.queues.len()) {
        (0, standing) => findings.fine("topology", format!("{standing} queues are declared as expected")),
        (missing, 0) => findings.careful(
            "topology",
            format!("none of the {missing} queues exists yet: a role declares them when it connects, or run `watchword topology --apply`"),
        ),
        (missing, _) => findings.wrong(
            "topology",
            format!("{missing} queues are missing, among them {}: run `watchword topology --apply`", examined.missing[0]),
        ),
    }
    for name in &examined.mismatched {
        findings.wrong(
            "topology",
            format!("{name} exists with other arguments: drain it, delete it, then run `watchword topology --apply`"),
        );
    }
    for queue in &examined.queues {
        read(queue, findings);
    }
}

/// Reports the consumers and messages of a queue.
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
                    "{messages} dead letters: `watchword dead-letters list --queue {lane}` shows the reasons"
                ),
            );
        }
        return;
    }
    // A wait queue has no consumer.
    if name.contains(".retry.") {
        return;
    }
    match (*consumers, *messages) {
        (0, 0) => findings.careful(name, "no consumer: is its role running?"),
        (0, waiting) => findings.wrong(
            name,
            format!("no consumer, and {waiting} messages wait: start its role"),
        ),
        (readers, waiting) => {
            findings.fine(
                name,
                format!("{waiting} messages waiting, {readers} consumers"),
            );
        }
    }
}
