//! `watchword topology`: the broker's objects, printed or declared, and the permissions of its users.

use std::path::Path;

use anyhow::Context;
use watchword_broker::{RabbitMqSettings, Topology};
use watchword_chassis::telemetry;
use watchword_core::{SecretString, ServiceName};
use watchword_events::names::{EVENTS_EXCHANGE, REQUESTS_EXCHANGE};

use crate::config::Config;
use crate::engine::distributed::{rabbitmq_settings, request_services};

/// Prints the exchanges, queues and bindings, or declares them at the configured broker.
pub async fn run(path: &Path, apply: bool) -> anyhow::Result<()> {
    if apply {
        let config = Config::read(path)?;
        telemetry::init(config.log);
        let settings = rabbitmq_settings(&config)?;
        let topology = &settings.topology;
        topology.apply(&settings).await?;
        println!(
            "declared {} exchanges and {} queues",
            topology.exchanges.len(),
            topology.queues.len()
        );
        return Ok(());
    }
    // Without a configuration there are no services that publish requests.
    let topology = if path.exists() {
        let services = request_services(&Config::read(path)?);
        Topology::standard().with_request_queues(&services)
    } else {
        Topology::standard()
    };
    println!("{}", serde_json::to_string_pretty(&topology)?);
    Ok(())
}

/// Prints the commands that limit each broker user to the permissions it needs.
pub fn print_permissions(path: &Path) -> anyhow::Result<()> {
    let config = Config::read(path)?;
    let section = config.rabbitmq.as_ref();
    let section = section.context("config key `rabbitmq`: is missing")?;
    // Nothing connects here, so neither the password nor the route matters.
    let settings = RabbitMqSettings {
        allow_cleartext: true,
        ..RabbitMqSettings::new(SecretString::new(section.url.clone()))
    };
    let host = settings.virtual_host().context("rabbitmq.url")?;
    println!("# Watchword's own user");
    println!(
        "{}",
        own_permissions(&host, &settings.user().context("rabbitmq.url")?)
    );
    for (service, section) in &config.services {
        for user in &section.broker_users {
            println!("# {user}, for the service {service}");
            for command in tenant_permissions(&host, user, service) {
                println!("{command}");
            }
        }
    }
    Ok(())
}

/// Watchword's user declares and reads its own objects; by the default exchange messages reach wait
/// and dead-letter queues.
fn own_permissions(host: &str, user: &str) -> String {
    format!(
        "rabbitmqctl set_permissions -p {host} {user} '^watchword[.]' \
         '^(watchword[.]|amq[.]default$)' '^watchword[.]'"
    )
}

/// An auth service has queues of its own, whose names begin with the user's. It publishes under its
/// service's key and binds its queues to its service's events.
fn tenant_permissions(host: &str, user: &str, service: &ServiceName) -> [String; 3] {
    let exchange = |name: &str| name.replace('.', "[.]");
    let (requests, events) = (exchange(REQUESTS_EXCHANGE), exchange(EVENTS_EXCHANGE));
    let own = format!("{}[.]", literal(user));
    [
        format!(
            "rabbitmqctl set_permissions -p {host} {user} '^{own}' '^({requests}$|{own})' '^({events}$|{own})'"
        ),
        format!(
            "rabbitmqctl set_topic_permissions -p {host} {user} {REQUESTS_EXCHANGE} '^requests[.]{service}$' '^$'"
        ),
        // RabbitMQ compares the key of a binding as it is written, its wildcards included.
        format!(
            "rabbitmqctl set_topic_permissions -p {host} {user} {EVENTS_EXCHANGE} '^$' '^([*]|[a-z]+)[.]updated[.]{service}$'"
        ),
    ]
}

/// Returns `text` as a regular expression that matches it alone.
fn literal(text: &str) -> String {
    let escape = |c: char| {
        if c.is_ascii_alphanumeric() || "-_".contains(c) {
            c.to_string()
        } else {
            format!("[{c}]")
        }
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_its_own_names_and_keys_only() {
        let service = "shop".parse().unwrap();
        let commands = tenant_permissions("/", "shop.eu", &service);
        assert_eq!(
            commands,
            [
                "rabbitmqctl set_permissions -p / shop.eu '^shop[.]eu[.]' \
                 '^(watchword[.]requests$|shop[.]eu[.])' '^(watchword[.]events$|shop[.]eu[.])'",
                "rabbitmqctl set_topic_permissions -p / shop.eu watchword.requests '^requests[.]shop$' '^$'",
                "rabbitmqctl set_topic_permissions -p / shop.eu watchword.events '^$' \
                 '^([*]|[a-z]+)[.]updated[.]shop$'",
            ]
        );
    }
}
