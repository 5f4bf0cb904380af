//! The distributed engine as separate processes: two workers per channel, `RabbitMQ`, Redis, Kannel
//! and an SMTP relay. Half of the requests come by HTTP and half by event.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde_json::{Value, json};
use watchword_tests::gateway::PASSWORD as KANNEL_PASSWORD;
use watchword_tests::pipeline::code_in;
use watchword_tests::{Gateway, Pipeline, RabbitMq, RedisServer, Settings, Sink, until};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_verifications_each_delivered_and_approved_once() {
    const COUNT: usize = 2_000;
    let world = world().await;
    let mut portal = Portal::connect(&world.rabbitmq).await;

    // Half by HTTP, 50 at a time; half by event.
    let ids = stream::iter((0..COUNT).filter(|number| number % 4 < 2))
        .map(|number| {
            let pipeline = &world.pipeline;
            async move {
                let (channel, to) = recipient(number);
                let answer = pipeline.ask("issuer", channel, &to).await;
                assert_eq!(answer.status, 202, "{:?}", answer.body);
                (to, answer.text("id").to_owned())
            }
        })
        .buffer_unordered(50)
        .collect::<HashMap<_, _>>()
        .await;
    let mut ids = ids;
    let mut asked = HashMap::new();
    for number in (0..COUNT).filter(|number| number % 4 >= 2) {
        let (channel, to) = recipient(number);
        portal.request(&format!("r{number}"), channel, &to).await;
        asked.insert(format!("r{number}"), to);
    }
    for _ in 0..asked.len() {
        let answer = portal.answer().await;
        let data = &answer["data"];
        assert_eq!(data["status"], "pending", "{answer}");
        let to = asked
            .remove(data["request_id"].as_str().unwrap())
            .expect("one answer a request");
        ids.insert(to, data["verification_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), COUNT);

    until(60, "every message arrived", || async {
        (delivered(&world).len() == COUNT).then_some(())
    })
    .await;
    let messages = delivered(&world);
    let ids = Arc::new(ids);
    stream::iter(messages.clone())
        .for_each_concurrent(50, |(to, texts)| {
            let (pipeline, ids) = (&world.pipeline, ids.clone());
            async move {
                assert_eq!(texts.len(), 1, "{to} got {} messages", texts.len());
                let id = &ids[&to];
                let code = code_of(&texts[0]);
                let approved = pipeline.check("verifier", id, &code).await;
                assert_eq!(
                    approved.body["valid"], true,
                    "{to} {code} {:?}",
                    approved.body
                );
                let again = pipeline.check("verifier", id, &code).await;
                assert_eq!(again.body["valid"], false);
            }
        })
        .await;

    // The metrics of all processes add up.
    let pipeline = &world.pipeline;
    let count = COUNT as u64;
    until(10, "every outcome is recorded", || async {
        (pipeline
            .total("watchword_deliveries_ended_total", &["accepted"])
            .await
            == count)
            .then_some(())
    })
    .await;
    assert_eq!(
        pipeline
            .total("watchword_requests_total", &["accepted", "http"])
            .await,
        count / 2
    );
    assert_eq!(
        pipeline
            .total("watchword_requests_total", &["accepted", "event"])
            .await,
        count / 2
    );
    assert_eq!(
        pipeline
            .total("watchword_verifications_opened_total", &[])
            .await,
        count
    );
    assert_eq!(
        pipeline
            .total("watchword_sends_published_total", &["confirmed"])
            .await,
        count
    );
    assert_eq!(
        pipeline
            .total("watchword_attempts_total", &["accepted"])
            .await,
        count
    );
    assert_eq!(pipeline.total("watchword_attempts_total", &[]).await, count);
    assert_eq!(
        pipeline
            .total("watchword_deliveries_ended_total", &[])
            .await,
        count
    );
    assert_eq!(
        pipeline
            .total("watchword_handover_age_seconds_count", &[])
            .await,
        count
    );
    assert_eq!(
        pipeline
            .total("watchword_checks_total", &["approved"])
            .await,
        count
    );
    assert_eq!(
        pipeline.total("watchword_checks_total", &["refused"]).await,
        count
    );
    assert_eq!(
        pipeline
            .total("watchword_verifications_ended_total", &["approved"])
            .await,
        count
    );
    assert_eq!(
        pipeline
            .total("watchword_sends_past_deadline_total", &[])
            .await,
        0
    );
    assert_eq!(
        pipeline
            .total("watchword_possible_duplicates_total", &[])
            .await,
        0
    );
    // The last acknowledgements follow the last outcomes.
    until(10, "the queues are empty", || async {
        let full = |(queue, count): &(String, u64)| queue.starts_with("watchword.") && *count > 0;
        (!world.rabbitmq.all_messages().iter().any(full)).then_some(())
    })
    .await;

    // Every role shuts down cleanly.
    let mut world = world;
    for role in world.pipeline.processes.values_mut() {
        role.process.signal("TERM");
    }
    for (name, role) in &mut world.pipeline.processes {
        assert!(
            role.process.wait(30).success(),
            "{name}: {}",
            role.process.output()
        );
    }
    drop(world.redis);
}

/// Sends requests while `during` interferes with the processes. Afterwards every accepted message
/// must be delivered, with at most `spare` duplicates.
async fn survives<F: AsyncFnOnce(&mut Pipeline)>(world: &mut World, spare: usize, during: F) {
    const COUNT: usize = 400;
    let mut accepted = Vec::new();
    let mut during = Some(during);
    for number in 0..COUNT {
        if number == COUNT / 3
            && let Some(during) = during.take()
        {
            during(&mut world.pipeline).await;
        }
        let (channel, to) = recipient(number);
        let answer = until(30, "the request is accepted", || async {
            let answer = world.pipeline.ask("issuer", channel, &to).await;
            assert!(
                answer.status == 202 || answer.status == 503,
                "{:?}",
                answer.body
            );
            (answer.status == 202).then_some(answer)
        })
        .await;
        accepted.push((to, answer.text("id").to_owned()));
    }
    until(90, "every accepted message arrived", || async {
        let messages = delivered(world);
        accepted
            .iter()
            .all(|(to, _)| messages.contains_key(to))
            .then_some(())
    })
    .await;
    let messages = delivered(world);
    let repeats = messages.values().map(Vec::len).sum::<usize>() - messages.len();
    assert!(repeats <= spare, "{repeats} repeats");
    for (to, id) in &accepted {
        let code = code_of(&messages[to][0]);
        let approved = world.pipeline.check("verifier", id, &code).await;
        assert_eq!(approved.body["valid"], true, "{to}");
    }
    until(60, "the queues are empty", || async {
        let full = |(queue, count): &(String, u64)| queue.starts_with("watchword.") && *count > 0;
        (!world.rabbitmq.all_messages().iter().any(full)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_is_told_to_stop_finishes_and_loses_nothing() {
    let mut world = world().await;
    survives(&mut world, 0, async |pipeline| {
        for (name, roles) in [
            ("sms-1", "sms-worker"),
            ("email-1", "email-worker"),
            ("verifier", "verifier"),
        ] {
            let role = pipeline.processes.get_mut(name).unwrap();
            role.process.signal("TERM");
            let ended = role.process.wait(30);
            let log = role.process.output();
            assert!(ended.success(), "{name}: {log}");
            let last = log.lines().last().unwrap_or_default();
            assert!(last.ends_with("stopped"), "{name}: {log}");
            let stopping = log.split(": stopping").last().unwrap_or_default();
            assert!(!stopping.contains("ERROR"), "{name}: {log}");
            pipeline.processes.remove(name);
            pipeline.start(name, &[roles]).await;
        }
    })
    .await;
    assert_eq!(
        world
            .pipeline
            .total("watchword_possible_duplicates_total", &[])
            .await,
        0
    );
    let issuer = world.pipeline.processes.get_mut("issuer").unwrap();
    issuer.process.signal("TERM");
    assert!(issuer.process.wait(30).success());
}

/// Otherwise the broker would reach the delivery limit and dead-letter the whole request, with a
/// recipient in clear.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_cannot_be_read_is_not_parked_whole_while_nothing_can_be_published() {
    let mut world = world_alone().await;
    let portal = Portal::connect(&world.rabbitmq).await;
    let issuer = world.pipeline.processes.get_mut("issuer").unwrap();
    issuer.process.signal("TERM");
    assert!(issuer.process.wait(30).success());
    world.pipeline.processes.remove("issuer");
    let document = request_document("bad", "sms", "+4915112345678");
    let document = document.replace("\"channel\":", "\"ttl\":9,\"channel\":");
    portal.publish("bad", &document).await;
    until(10, "the request waits in the queue", || async {
        (world.rabbitmq.messages("watchword.requests") == 1).then_some(())
    })
    .await;
    world.rabbitmq.disk_alarm(true);
    launch(&mut world.pipeline, "issuer", &["issuer"]);
    // Long enough for 20 redeliveries, the delivery limit of the queue.
    tokio::time::sleep(std::time::Duration::from_secs(15)).await;
    world.rabbitmq.disk_alarm(false);
    until(
        30,
        "a note is dead-lettered and the request is gone",
        || async {
            let messages = |queue| world.rabbitmq.messages(queue);
            (messages("watchword.requests.parked") > 0 && messages("watchword.requests") == 0)
                .then_some(())
        },
    )
    .await;
    let parked = world.rabbitmq.peek("watchword.requests.parked").await;
    let parked = parked.to_string();
    assert!(
        parked.contains("request.parked") && !parked.contains("4915112345678"),
        "{parked}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_killed_loses_nothing() {
    let mut world = world().await;
    // Two workers of each channel hold at most 256 messages each; with this load only a few are in
    // flight.
    survives(&mut world, 20, async |pipeline| {
        for name in ["sms-1", "email-1"] {
            let role = pipeline.processes.get_mut(name).unwrap();
            role.process.signal("KILL");
            role.process.wait(10);
            pipeline.processes.remove(name);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_by_event_are_refused_repeated_and_parked_as_they_should() {
    let world = world().await;
    let mut portal = Portal::connect(&world.rabbitmq).await;
    // The same event three times opens one verification; each repeat gets the same answer.
    let document = request_document("same", "sms", "+4915112345678");
    for _ in 0..3 {
        portal.publish("same", &document).await;
    }
    let first = portal.answer().await;
    let id = first["data"]["verification_id"].clone();
    assert!(id.is_string(), "{first}");
    for _ in 0..2 {
        assert_eq!(portal.answer().await["data"]["verification_id"], id);
    }
    until(20, "the message", || async {
        (!delivered(&world).is_empty()).then_some(())
    })
    .await;
    // An invalid number is refused with the error code of the HTTP API.
    portal.request("wrong", "sms", "004915112345678").await;
    let refused = portal.answer().await;
    assert_eq!(
        (
            &refused["data"]["request_id"],
            &refused["data"]["refusal"]["code"]
        ),
        (&json!("wrong"), &json!("invalid_phone"))
    );
    assert!(refused["data"].get("verification_id").is_none());
    // Unreadable requests are dead-lettered without their content: not JSON, another event type,
    // unknown fields.
    let parked = [
        "{".to_owned(),
        document.replace("requested.v1", "requested.v9"),
        document.replace("\"channel\":", "\"ttl\":9,\"channel\":"),
        document.replace("\"1.0\"", "\"0.3\""),
        "[".repeat(30_000),
        "x".repeat(100_000),
    ];
    for (number, document) in parked.iter().enumerate() {
        portal.publish(&format!("bad{number}"), document).await;
    }
    // A user that no service lists in its `broker_users`.
    world.rabbitmq.add_user("mallory", "mallory-secret").await;
    let url = world.rabbitmq.url_of("mallory", "mallory-secret");
    let connection = Connection::connect(&url, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let publish = async |user: Option<&str>| {
        let mut properties = BasicProperties::default().with_message_id("m".into());
        if let Some(user) = user {
            properties = properties.with_user_id(user.into());
        }
        let options = BasicPublishOptions::default();
        channel
            .basic_publish(
                "watchword.requests".into(),
                "requests".into(),
                options,
                document.as_bytes(),
                properties,
            )
            .await
    };
    publish(Some("mallory")).await.unwrap();
    publish(None).await.unwrap();
    let count = parked.len() as u64 + 2;
    // The issuer holds the request of an unknown user for 5 s here.
    until(25, "all are dead-lettered", || async {
        (world.rabbitmq.messages("watchword.requests.parked") == count).then_some(())
    })
    .await;
    // The broker itself refuses a message that names another user (validated user-id).
    publish(Some("portal")).await.unwrap();
    until(20, "the broker closed the channel", || async {
        (!channel.status().connected()).then_some(())
    })
    .await;
    let text = world
        .rabbitmq
        .peek("watchword.requests.parked")
        .await
        .to_string();
    assert!(
        text.contains("unknown_user") && !text.contains("4915112345678"),
        "{text}"
    );
    assert_eq!(delivered(&world).values().map(Vec::len).sum::<usize>(), 1);
    assert_eq!(
        world
            .pipeline
            .total("watchword_verifications_opened_total", &[])
            .await,
        1
    );
}

/// No code and no recipient appears anywhere but in the message, even at log level `trace`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_any_log_metric_queue_or_store() {
    let mut world = world_on(RabbitMq::shared().await, "trace").await;
    let (phone, mail) = ("+4915157700991", "canary.person@example.org");
    let mut secrets = vec![
        phone.trim_start_matches('+').to_owned(),
        mail.to_owned(),
        "canary.person".to_owned(),
    ];
    // With the workers stopped the orders stay in their queues, where the test can read them.
    for name in ["sms-1", "sms-2", "email-1", "email-2"] {
        world
            .pipeline
            .processes
            .get_mut(name)
            .unwrap()
            .process
            .signal("TERM");
        world
            .pipeline
            .processes
            .get_mut(name)
            .unwrap()
            .process
            .wait(30);
        world.pipeline.processes.remove(name);
    }
    let sms = world.pipeline.ask("issuer", "sms", phone).await;
    let email = world.pipeline.ask("issuer", "email", mail).await;
    let mut seen = format!("{:?} {:?}", sms.body, email.body);
    for queue in ["watchword.sms", "watchword.email"] {
        let messages = world.rabbitmq.peek(queue).await;
        assert_eq!(messages.as_array().map(Vec::len), Some(1), "{queue}");
        seen.push_str(&messages.to_string());
    }
    for (name, roles) in [("sms-1", "sms-worker"), ("email-1", "email-worker")] {
        launch(&mut world.pipeline, name, &[roles]);
        world.pipeline.ready(name).await;
    }
    until(30, "both arrived", || async {
        (delivered(&world).len() == 2).then_some(())
    })
    .await;
    let messages = delivered(&world);
    let codes = [(sms, phone), (email, mail)]
        .map(|(answer, to)| (answer.text("id").to_owned(), code_of(&messages[to][0])));
    secrets.extend(codes.iter().map(|(_, code)| code.clone()));
    // A damaged order is dead-lettered and invalid requests are refused, without any of their
    // content in a log or error.
    let answer = world
        .pipeline
        .ask("issuer", "sms", &format!("{phone} "))
        .await;
    seen.push_str(&answer.body.to_string());
    for (id, code) in &codes {
        world.pipeline.check("verifier", id, "000000").await;
        let answer = world.pipeline.check("verifier", id, code).await;
        assert_eq!(answer.body["valid"], true);
        seen.push_str(&world.pipeline.status("verifier", id).await.body.to_string());
    }
    let names: Vec<_> = world.pipeline.processes.keys().cloned().collect();
    for name in &names {
        for (series, value) in world.pipeline.metrics(name).await {
            seen.extend([series, value.to_string()]);
        }
    }
    for queue in [
        "watchword.requests.parked",
        "watchword.sms.parked",
        "watchword.email.parked",
    ] {
        seen.push_str(&world.rabbitmq.peek(queue).await.to_string());
    }
    world.redis.command(&["BGREWRITEAOF"]).await;
    let logs = world.pipeline.logs();
    assert!(
        logs.contains("TRACE") || logs.contains("DEBUG") || logs.contains("attempt"),
        "the logs are being written"
    );
    seen.push_str(&logs);
    seen.push_str(&world.rabbitmq.logs());
    // The store's files are binary and are searched as bytes.
    for secret in &secrets {
        assert!(!seen.contains(secret.as_str()), "{secret} was seen");
        for file in world.redis.files() {
            let found = file
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} is in the store's files");
        }
    }
}

/// The Python example works as its first lines describe.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_example_asks_reads_and_checks() {
    use std::io::Write;
    let world = world().await;
    for user in ["portal", "portal-reader"] {
        world.rabbitmq.add_user(user, "portal-secret").await;
    }
    let python = std::env::var("WATCHWORD_PYTHON").unwrap_or_else(|_| "python3".into());
    let mut example = std::process::Command::new(python)
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../examples/auth_service.py"
        ))
        .args(["test", "email", "python@example.org"])
        .env("AMQP_URL", world.rabbitmq.url_of("portal", "portal-secret"))
        .env(
            "AMQP_READER_URL",
            world.rabbitmq.url_of("portal-reader", "portal-secret"),
        )
        .env("WATCHWORD_URL", world.pipeline.raw("verifier").1)
        .env("WATCHWORD_KEY", watchword_tests::pipeline::KEY)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3 with pika: tests/run installs it");
    let message = until(30, "the mail", || async {
        delivered(&world).remove("python@example.org")
    })
    .await;
    writeln!(example.stdin.take().unwrap(), "{}", code_of(&message[0])).unwrap();
    let output = example.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("approved"),
        "{text}"
    );
}

/// A request while a peer is away gets a fast 503, and readiness shows it. The same request
/// afterwards continues the same verification.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_peer_is_said_at_once_and_nothing_is_approved_meanwhile() {
    let world = world_alone().await;
    let pipeline = &world.pipeline;
    let to = "+4915112345678";
    let id = pipeline
        .ask("issuer", "sms", to)
        .await
        .text("id")
        .to_owned();
    let ready = async |name: &str| {
        let (http, _) = pipeline.raw(name);
        let url = format!("http://127.0.0.1:{}/readyz", pipeline.processes[name].admin);
        watchword_tests::pipeline::Answer::of(http.get(url).send().await.unwrap()).await
    };
    let refused = async |to: &str| {
        let begun = std::time::Instant::now();
        let answer = pipeline.ask("issuer", "sms", to).await;
        assert_eq!(answer.status, 503, "{:?}", answer.body);
        assert!(answer.headers.contains_key("retry-after"));
        assert!(
            begun.elapsed() < std::time::Duration::from_millis(2_500),
            "{:?}",
            begun.elapsed()
        );
        answer
    };

    // The disk alarm makes RabbitMQ refuse publishes.
    world.rabbitmq.disk_alarm(true);
    let unconfirmed = "+4915112345679";
    assert_eq!(
        refused(unconfirmed).await.text("code"),
        "broker_unavailable"
    );
    assert_eq!(
        refused(unconfirmed).await.text("code"),
        "broker_unavailable"
    );
    let report = until(10, "the issuer is not ready", || async {
        let report = ready("issuer").await;
        (report.status == 503).then_some(report)
    })
    .await;
    assert_eq!(report.body["dependencies"]["rabbitmq"], "down");
    assert_eq!(ready("verifier").await.status, 200, "it needs no broker");
    world.rabbitmq.disk_alarm(false);
    let accepted = until(30, "requests are accepted again", || async {
        let answer = pipeline.ask("issuer", "sms", unconfirmed).await;
        (answer.status == 202).then_some(answer)
    })
    .await;
    assert_eq!(
        accepted.body["sends"], 1,
        "the repeat continued the same message"
    );
    until(20, "the message", || async {
        delivered(&world).contains_key(unconfirmed).then_some(())
    })
    .await;

    // While Redis is suspended no code is approved, and the answer still comes in time.
    world.redis.pause(true);
    let code = code_of(&delivered(&world)[to][0]);
    let answer = pipeline.check("verifier", &id, &code).await;
    assert_eq!(
        (answer.status.as_u16(), answer.text("code")),
        (503, "store_unavailable")
    );
    assert_eq!(
        refused("+4915112345670").await.text("code"),
        "store_unavailable"
    );
    until(10, "the verifier is not ready", || async {
        (ready("verifier").await.status == 503).then_some(())
    })
    .await;
    world.redis.pause(false);
    until(10, "the verifier is ready", || async {
        (ready("verifier").await.status == 200).then_some(())
    })
    .await;
    // The check that timed out may have run after all. A check with another id is then refused as
    // used.
    let answer = pipeline.check("verifier", &id, &code).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        pipeline.status("verifier", &id).await.text("status"),
        "approved"
    );
    let series = pipeline.metrics("verifier").await;
    assert!((series["watchword_dependency_up{dependency=\"redis\"}"] - 1.0).abs() < f64::EPSILON);
}

/// A process with the role verifier alone starts without a broker and exports none of its metrics.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes_are_checked_where_there_is_no_broker() {
    let redis = RedisServer::start().await;
    let mut settings = Settings::distributed("amqp://nobody@127.0.0.1:1/", &redis.url());
    settings.providers = "[sms.providers.inbox]\nkind = \"inbox\"\n".into();
    let mut pipeline = Pipeline::configure(&settings);
    pipeline.start("verifier", &["verifier"]).await;
    let answer = pipeline.check("verifier", &"a".repeat(32), "123456").await;
    assert_eq!(
        (answer.status.as_u16(), &answer.body["valid"]),
        (200, &json!(false)),
        "{:?}",
        answer.body
    );
    let series = pipeline.metrics("verifier").await;
    let of_the_broker = |name: &&String| name.contains("broker") || name.contains("rabbitmq");
    assert_eq!(series.keys().find(of_the_broker), None);
}
