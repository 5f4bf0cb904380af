//! `watchword topology`: prints or declares the broker's exchanges and queues, and prints the
//! permissions of its users.

use std::path::Path;

use anyhow::Context;
use serde_json::json;
use watchword_broker::{RabbitMqSettings, Topology};
use watchword_chassis::config::ConfigError;
use watchword_chassis::telemetry;
use watchword_core::{SecretString, ServiceName};
use watchword_events::names::{EVENTS_EXCHANGE, REQUESTS_EXCHANGE};

use crate::engine::distributed::{rabbitmq_settings, request_services};
use crate::failure::Failure;
use crate::output;
use crate::validation::{at_line, read};

/// Prints the exchanges, queues and bindings, or declares them at the configured broker.
pub async fn run(path: &Path, apply: bool, as_json: bool) -> anyhow::Result<()> {
    if apply {
        let config = read(path)?;
        telemetry::init(config.log);
        telemetry::silence_amqp_client();
        let settings = rabbitmq_settings(&config).map_err(|error| at_line(path, error.into()))?;
        let topology = &settings.topology;
        let (exchanges, queues) = (topology.exchanges.len(), topology.queues.len());
        topology.apply(&settings).await.map_err(|error| {
            let text = format!(
                "RabbitMQ did not accept the declaration: {error}. Check rabbitmq.url, or run 'watchword doctor'."
            );
            anyhow::Error::new(error).context(Failure::new(text))
        })?;
        if as_json {
            return output::json(&json!({ "exchanges": exchanges, "queues": queues }));
        }
        println!("declared {exchanges} exchanges and {queues} queues");
        return Ok(());
    }
    // Without a configuration there are no services that publish requests.
    let topology = if path.exists() {
        let services = request_services(&read(path)?);
        Topology::standard().with_request_queues(&services)
    } else {
        Topology::standard()
    };
    output::json(&topology)
}

/// Prints the commands that limit each broker user to the permissions it needs.
pub fn print_permissions(path: &Path, as_json: bool) -> anyhow::Result<()> {
    let config = read(path)?;
    let section = config.rabbitmq.as_ref().ok_or_else(|| {
        let error = ConfigError::new(
            "rabbitmq",
            "is missing; only the distributed engine has broker users",
        );
        at_line(path, error.into())
    })?;
    // Nothing connects here, so neither the password nor the route matters.
    let settings = RabbitMqSettings {
        allow_cleartext: true,
        ..RabbitMqSettings::new(SecretString::new(section.url.clone()))
    };
    let host = settings.virtual_host().context("rabbitmq.url")?;
    let own = settings.user().context("rabbitmq.url")?;
    let mut users = vec![(own.clone(), None, vec![own_permissions(&host, &own)])];
    for (service, section) in &config.services {
        for user in &section.broker_users {
            let reader = format!("{user}-reader");
            let commands = service_permissions(&host, user, &reader, service).to_vec();
            users.push((user.clone(), Some(service), commands));
        }
    }
    if as_json {
        let users = users.iter().map(|(user, service, commands)| {
            json!({ "user": user, "service": service.map(ToString::to_string), "commands": commands })
        });
        return output::json(&users.collect::<Vec<_>>());
    }
    for (user, service, commands) in users {
        match service {
            None => println!("# Watchword's own user"),
            Some(service) => {
                println!(
                    "# {service}: {user} publishes requests, {user}-reader reads answers and events."
                );
                println!("# Create both first: rabbitmqctl add_user NAME");
            }
        }
        for command in commands {
            println!("{command}");
        }
    }
    Ok(())
}

/// Returns the permissions of Watchword's user: it declares, writes and reads its own exchanges and
/// queues, and writes to the default exchange, through which messages reach wait and dead-letter
/// queues.
fn own_permissions(host: &str, user: &str) -> String {
    format!(
        "rabbitmqctl set_permissions -p {host} {user} '^watchword[.]' \
         '^(watchword[.]|amq[.]default$)' '^watchword[.]'"
    )
}

/// Returns the permissions of the two users of a service: `user` publishes under the service's
/// routing key, and `reader` binds its queues to the service's events.
///
/// A single user for both would not be safe: `RabbitMQ` checks no topic permission for messages
/// that an exchange passes on, so a user that declares exchanges and writes to `watchword.requests`
/// can bind its exchange to it and publish under the key of another service.
fn service_permissions(host: &str, user: &str, reader: &str, service: &ServiceName) -> [String; 4] {
    let exchange = |name: &str| name.replace('.', "[.]");
    let (requests, events) = (exchange(REQUESTS_EXCHANGE), exchange(EVENTS_EXCHANGE));
    let own = format!("{}[.]", literal(reader));
    [
        format!("rabbitmqctl set_permissions -p {host} {user} '^$' '^{requests}$' '^$'"),
        format!(
            "rabbitmqctl set_topic_permissions -p {host} {user} {REQUESTS_EXCHANGE} '^requests[.]{service}$' '^$'"
        ),
        format!(
            "rabbitmqctl set_permissions -p {host} {reader} '^{own}' '^{own}' '^({events}$|{own})'"
        ),
        // RabbitMQ matches the text of a binding key, including its wildcards.
        format!(
            "rabbitmqctl set_topic_permissions -p {host} {reader} {EVENTS_EXCHANGE} '^$' '^([*]|[a-z]+)[.]updated[.]{service}$'"
        ),
    ]
}

/// Returns a regular expression that matches only `text`.
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
    fn a_service_has_its_own_names_and_keys_only() {
        let service = "shop".parse().unwrap();
        let commands = service_permissions("/", "shop.eu", "shop.eu-reader", &service);
        assert_eq!(
            commands,
            [
                "rabbitmqctl set_permissions -p / shop.eu '^$' '^watchword[.]requests$' '^$'",
                "rabbitmqctl set_topic_permissions -p / shop.eu watchword.requests '^requests[.]shop$' '^$'",
                "rabbitmqctl set_permissions -p / shop.eu-reader '^shop[.]eu-reader[.]' \
                 '^shop[.]eu-reader[.]' '^(watchword[.]events$|shop[.]eu-reader[.])'",
                "rabbitmqctl set_topic_permissions -p / shop.eu-reader watchword.events '^$' \
                 '^([*]|[a-z]+)[.]updated[.]shop$'",
            ]
        );
    }
}
