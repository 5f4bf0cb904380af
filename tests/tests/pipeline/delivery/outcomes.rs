//! The decision for each outcome class, and how status, events and metrics show it.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use reqwest::StatusCode;
use serde_json::{Value, json};
use watchword_simulator::{Outcome, SmtpBehaviour};
use watchword_tests::pipeline::secret;
use watchword_tests::{Pipeline, RabbitMq, Settings, until};

use super::{
    distributed, gateway, number, outcome_is, ports, simulator, sms, two_providers, with_secrets,
};

/// Events about deliveries of the service `test`, bound as an auth service would bind them.
struct Events {
    _connection: lapin::Connection,
    _channel: lapin::Channel,
    consumer: lapin::Consumer,
}

impl Events {
    async fn bind(rabbitmq: &RabbitMq) -> Self {
        let connection =
            lapin::Connection::connect(&rabbitmq.url(), lapin::ConnectionProperties::default())
                .await
                .unwrap();
        let channel = connection.create_channel().await.unwrap();
        let options = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = channel
            .queue_declare("".into(), options, FieldTable::default())
            .await
            .unwrap();
        let key = "delivery.updated.test";
        channel
            .queue_bind(
                queue.name().clone(),
                "watchword.events".into(),
                key.into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap();
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let consumer = channel
            .basic_consume(
                queue.name().clone(),
                "".into(),
                options,
                FieldTable::default(),
            )
            .await
            .unwrap();
        Self {
            _connection: connection,
            _channel: channel,
            consumer,
        }
    }

    /// Returns the next event about `id` and skips all others.
    async fn about(&mut self, id: &str) -> Value {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(30), self.consumer.next());
            let delivery = next.await.expect("an event").unwrap().unwrap();
            let event: Value = serde_json::from_slice(&delivery.data).unwrap();
            if event["data"]["verification_id"] == id {
                return event["data"].clone();
            }
        }
    }
}

/// Every outcome class, on both channels, leads to its decision and shows in status, events and
/// metrics. The first provider misbehaves for one recipient only; the second always works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_outcome_class_has_its_decision_and_its_trace() {
    let world = distributed().await;
    let mut events = Events::bind(&world.rabbitmq).await;
    // Outcome at the first provider, class of that attempt, outcome of the delivery, number of
    // attempts.
    let table = [
        (Outcome::Accepted, "accepted", "accepted", 1),
        (Outcome::RecipientInvalid, "recipient_invalid", "failed", 1),
        (Outcome::RecipientBlocked, "recipient_blocked", "failed", 1),
        (Outcome::MessageRejected, "message_rejected", "failed", 1),
        (Outcome::Transient, "transient", "accepted", 2),
        (Outcome::DropAfterAccept, "unknown_outcome", "accepted", 2),
        (
            Outcome::DestinationRefused,
            "destination_refused",
            "accepted",
            2,
        ),
        (Outcome::ConfigFault, "config_fault", "accepted", 2),
    ];
    for (channel, first, second, worker) in [
        ("sms", "first", "second", "sms"),
        ("email", "alpha", "beta", "email"),
    ] {
        for (row, (outcome, class, ended, attempts)) in table.into_iter().enumerate() {
            // A relay's 550 5.7.1 may refuse the sender or the recipient, so it is not tested here.
            if channel == "email" && outcome == Outcome::RecipientBlocked {
                continue;
            }
            // The relay requires a login at RCPT, which may apply to this recipient's domain only.
            let class = match (channel, outcome) {
                ("email", Outcome::ConfigFault) => "destination_refused",
                _ => class,
            };
            let to = if channel == "sms" {
                number(100 + row)
            } else {
                format!("row{row}@example.org")
            };
            world.first.set_sms(sms(|sms| {
                sms.numbers = BTreeMap::from([(to.clone(), outcome)]);
            }));
            world.first.set_smtp(SmtpBehaviour {
                addresses: BTreeMap::from([(to.clone(), outcome)]),
                ..SmtpBehaviour::default()
            });
            let series = format!(
                "watchword_attempts_total{{channel=\"{channel}\",class=\"{class}\",provider=\"{first}\"}}"
            );
            let before = world.pipeline.metrics(worker).await[&series];
            let asked = world.pipeline.ask("issuer", channel, &to).await;
            assert_eq!(asked.status, StatusCode::ACCEPTED, "{:?}", asked.body);
            let id = asked.text("id").to_owned();
            let status = outcome_is(&world.pipeline, "verifier", &id, 1, ended).await;
            let tried = status["deliveries"][0]["attempts"].as_array().unwrap();
            let shown = format!("{channel} {class}: {tried:?}");
            assert_eq!(tried.len(), attempts, "{shown}");
            assert_eq!(
                (&tried[0]["provider"], &tried[0]["class"]),
                (&json!(first), &json!(class)),
                "{shown}"
            );
            if attempts == 2 {
                assert_eq!(
                    (&tried[1]["provider"], &tried[1]["class"]),
                    (&json!(second), &json!("accepted")),
                    "{shown}"
                );
            }
            let trace = &status["deliveries"][0]["trace_id"];
            assert_eq!(trace.as_str().map(str::len), Some(32), "{shown}");
            let event = events.about(&id).await;
            assert_eq!(
                (&event["outcome"], &event["attempts"]),
                (&json!(ended), &json!(attempts)),
                "{shown}"
            );
            assert_eq!(&event["trace_id"], trace, "{shown}");
            let after = world.pipeline.metrics(worker).await[&series];
            assert!((after - before - 1.0).abs() < 0.1, "{shown}");
        }
    }
    // A configuration fault opens the provider's circuit at once, so it gets no more messages.
    let metrics = world.pipeline.metrics("sms").await;
    let share = metrics["watchword_provider_share_tenths{channel=\"sms\",provider=\"first\"}"];
    assert!(share.abs() < 0.1, "{share}");
    // The audit balances.
    let audit = world.pipeline.command().arg("audit").output().unwrap();
    let text = String::from_utf8_lossy(&audit.stdout).into_owned();
    assert!(
        audit.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&audit.stderr)
    );
    assert!(
        text.contains("accepted      15") && text.contains("lost        0"),
        "{text}"
    );
}

/// A message whose only provider has a wrong secret waits and is sent once the secret is corrected.
/// With a fallback step the next channel sends it sooner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_waits_for_the_secret_of_its_only_provider() {
    let first = simulator().await;
    let mut settings = Settings::embedded();
    settings.providers = gateway("first", ports(&first).0, 2).replace(
        "token = { env = \"SIMULATOR_TOKEN\" }",
        "token = { file = \"FOLDER/token\" }",
    ) + "[email.providers.inbox]\nkind = \"inbox\"\n";
    let mut pipeline = with_secrets(Pipeline::configure(&settings));
    secret(pipeline.folder(), "token", "wrong");
    pipeline.start("all", &[]).await;
    let step = json!({ "channel": "email", "to": "jane@example.org", "after_seconds": 200 });
    let body = json!({ "channel": "sms", "to": number(2), "fallback": [step] });
    let asked = pipeline.post("all", "/v1/verifications", body).await;
    let id = asked.text("id").to_owned();
    outcome_is(&pipeline, "all", &id, 2, "accepted").await;
    outcome_is(&pipeline, "all", &id, 1, "failed").await;

    let asked = pipeline.ask("all", "sms", &number(1)).await;
    let id = asked.text("id").to_owned();
    let waiting = until(20, "the gateway refused us", || async {
        let status = pipeline.status("all", &id).await.body;
        let class = &status["deliveries"][0]["attempts"][0]["class"];
        (class == "config_fault").then_some(status)
    })
    .await;
    assert_eq!(waiting["deliveries"][0]["outcome"], "queued", "{waiting}");
    assert_eq!(waiting["status"], "pending");

    // The doctor finds the fault without sending a message.
    let (_, admin) = pipeline.ports("all");
    let mut command = pipeline.command();
    command.env("WATCHWORD_ADMIN__LISTEN", format!("127.0.0.1:{admin}"));
    let found = command.arg("doctor").output().unwrap();
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    let tells = |line: &str| line.contains("sms first") && line.contains("in a row failed");
    assert!(found.lines().any(tells), "{found}");
    assert!(first.messages().is_empty());

    secret(pipeline.folder(), "token", "simulator");
    outcome_is(&pipeline, "all", &id, 1, "accepted").await;
    assert_eq!(first.messages().len(), 1);
}

/// A check and the status agree about a verification whose messages all failed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_code_for_a_message_that_failed_says_so() {
    let (pipeline, first, _second) = two_providers().await;
    first.set_sms(sms(|sms| {
        sms.numbers = BTreeMap::from([(number(1), Outcome::RecipientInvalid)]);
    }));
    for (to, outcome, status) in [
        (number(1), "failed", "failed"),
        (number(2), "accepted", "pending"),
    ] {
        let asked = pipeline.ask("all", "sms", &to).await;
        let id = asked.text("id").to_owned();
        let shown = outcome_is(&pipeline, "all", &id, 1, outcome).await;
        assert_eq!(shown["status"], status);
        let checked = pipeline.check("all", &id, "0000000000").await;
        assert_eq!(
            (&checked.body["status"], &checked.body["valid"]),
            (&json!(status), &json!(false)),
        );
    }
}
