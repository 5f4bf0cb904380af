//! The distributed engine as separate processes: two workers per channel, `RabbitMQ`, Redis, Kannel
//! and an SMTP relay. Half of the requests come by HTTP and half by event.

mod peers;
mod processes;
mod requests;
mod secrecy;
mod volume;

use std::collections::HashMap;

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::{Value, json};
use watchword_tests::gateway::PASSWORD as KANNEL_PASSWORD;
use watchword_tests::pipeline::code_in;
use watchword_tests::{Gateway, Pipeline, RabbitMq, RedisServer, Settings, Sink};

struct World {
    rabbitmq: RabbitMq,
    redis: RedisServer,
    gateway: Gateway,
    sink: Sink,
    pipeline: Pipeline,
}

async fn world() -> World {
    world_on(RabbitMq::shared().await, "info").await
}

/// Starts a world with its own broker, for tests that raise an alarm.
async fn world_alone() -> World {
    world_on(RabbitMq::start().await, "info").await
}

async fn world_on(rabbitmq: RabbitMq, level: &str) -> World {
    let (redis, gateway, sink) =
        tokio::join!(RedisServer::start(), Gateway::start(), Sink::start());
    let mut settings = Settings::distributed(&rabbitmq.url(), &redis.url());
    settings.providers = format!(
        "[sms.providers.kannel]\nkind = \"kannel\"\nsender = \"Test\"\n\
         settings = {{ base_url = \"{}\", username = \"watchword\" }}\n\
         secrets = {{ password = {{ env = \"KANNEL_PASSWORD\" }} }}\n\
         [email.providers.relay]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\n\
         from = \"Test <no-reply@mail.example.org>\"\n",
        gateway.url(),
        sink.port()
    );
    settings.level = level.into();
    settings.service = "[services.test.limits]\nservice_per_minute = 100000".into();
    let mut pipeline = Pipeline::configure(&settings);
    for (name, roles) in ROLES {
        launch(&mut pipeline, name, roles);
    }
    for (name, _) in ROLES {
        pipeline.ready(name).await;
    }
    World {
        rabbitmq,
        redis,
        gateway,
        sink,
        pipeline,
    }
}

const ROLES: [(&str, &[&str]); 6] = [
    ("issuer", &["issuer"]),
    ("verifier", &["verifier"]),
    ("sms-1", &["sms-worker"]),
    ("sms-2", &["sms-worker"]),
    ("email-1", &["email-worker"]),
    ("email-2", &["email-worker"]),
];

fn launch(pipeline: &mut Pipeline, name: &str, roles: &[&str]) {
    pipeline.variables = vec![
        ("KANNEL_PASSWORD".into(), KANNEL_PASSWORD.into()),
        ("WATCHWORD_FAILPOINT_HOLD_MS".into(), "5000".into()),
    ];
    pipeline.launch(name, roles);
}

fn recipient(number: usize) -> (&'static str, String) {
    if number.is_multiple_of(2) {
        ("sms", format!("+4915110{number:06}"))
    } else {
        ("email", format!("person{number}@example.org"))
    }
}

/// The auth service `portal` as a broker client: publishes requests and reads answers.
struct Portal {
    channel: Channel,
    _connection: Connection,
    answers: lapin::Consumer,
}

impl Portal {
    async fn connect(rabbitmq: &RabbitMq) -> Self {
        rabbitmq.add_user("portal", "portal-secret").await;
        let url = rabbitmq.url_of("portal", "portal-secret");
        let connection = Connection::connect(&url, ConnectionProperties::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        let queue = channel
            .queue_declare(
                "".into(),
                QueueDeclareOptions {
                    exclusive: true,
                    ..Default::default()
                },
                FieldTable::default(),
            )
            .await
            .unwrap();
        channel
            .queue_bind(
                queue.name().clone(),
                "watchword.events".into(),
                "verification.updated.test".into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap();
        let answers = channel
            .basic_consume(
                queue.name().clone(),
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await
            .unwrap();
        Self {
            channel,
            _connection: connection,
            answers,
        }
    }

    async fn request(&self, id: &str, channel: &str, to: &str) {
        self.publish(id, &request_document(id, channel, to)).await;
    }

    async fn publish(&self, id: &str, document: &str) {
        let properties = BasicProperties::default()
            .with_user_id("portal".into())
            .with_message_id(id.into())
            .with_content_type("application/cloudevents+json".into());
        self.channel
            .basic_publish(
                "watchword.requests".into(),
                "requests".into(),
                BasicPublishOptions::default(),
                document.as_bytes(),
                properties,
            )
            .await
            .unwrap();
    }

    async fn answer(&mut self) -> Value {
        let delivery =
            tokio::time::timeout(std::time::Duration::from_secs(30), self.answers.next())
                .await
                .expect("an answer in time")
                .unwrap()
                .unwrap();
        delivery.ack(BasicAckOptions::default()).await.unwrap();
        serde_json::from_slice(&delivery.data).unwrap()
    }
}

fn request_document(id: &str, channel: &str, to: &str) -> String {
    let time = "2026-11-24T12:00:00Z";
    let now = std::process::Command::new("date")
        .args(["-u", "+%Y-%m-%dT%H:%M:%SZ"])
        .output();
    let now = now
        .ok()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    json!({
        "specversion": "1.0", "id": id, "source": "/portal", "type": "watchword.otp.requested.v1",
        "time": now.unwrap_or(time.to_owned()), "datacontenttype": "application/json",
        "data": { "channel": channel, "to": to },
    })
    .to_string()
}

/// Returns the messages of both providers by recipient.
fn delivered(world: &World) -> HashMap<String, Vec<String>> {
    let mut messages: HashMap<String, Vec<String>> = HashMap::new();
    for sms in world.gateway.received() {
        messages.entry(sms.to).or_default().push(sms.text);
    }
    for mail in world.sink.mails() {
        let text = mail
            .data
            .split("\r\n\r\n")
            .nth(1)
            .map(|_| mail.data.clone())
            .unwrap_or_default();
        messages.entry(mail.to).or_default().push(text);
    }
    messages
}

/// Returns the code in a message. Skips a mail's headers, which contain digits too.
fn code_of(message: &str) -> String {
    message
        .split_once("text/plain")
        .map_or_else(|| code_in(message), |(_, parts)| code_in(parts))
}
