//! Delivery under provider faults: dead, hanging and misbehaving providers, receipts of every kind,
//! the timed fallback, and dead-lettered orders. The simulator plays the providers, configured as a
//! generic HTTP gateway.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use futures_util::StreamExt;
use futures_util::future::join_all;
use lapin::options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use watchword_simulator::{
    Outcome, ReceiptBehaviour, Simulator, SimulatorConfig, SmsBehaviour, SmtpBehaviour,
};
use watchword_tests::pipeline::{KEY, code_in, secret};
use watchword_tests::{Gateway, Pipeline, RabbitMq, RedisServer, Settings, until};

const RECEIPTS_AT_ONCE: ReceiptBehaviour = ReceiptBehaviour {
    delay_ms: 10,
    lost: 0.0,
    failed: 0.0,
    late: 0.0,
    late_ms: 0,
    duplicate: 0.0,
    reordered: 0.0,
    forged: 0.0,
};

fn sms(change: impl FnOnce(&mut SmsBehaviour)) -> SmsBehaviour {
    let mut behaviour = SmsBehaviour {
        receipts: ReceiptBehaviour {
            lost: 1.0,
            ..RECEIPTS_AT_ONCE
        },
        ..SmsBehaviour::default()
    };
    change(&mut behaviour);
    behaviour
}

async fn simulator() -> Simulator {
    watchword_tests::tls();
    let config = SimulatorConfig {
        seed: 1,
        sms: Some(sms(|_| {})),
        smtp: Some(SmtpBehaviour::default()),
    };
    Simulator::start(config).await.unwrap()
}

/// Returns the configuration of a simulator at `port` as a generic HTTP gateway.
fn gateway(name: &str, port: u16, timeout_seconds: u64) -> String {
    format!(
        r#"
[sms.providers.{name}]
kind = "http"
sender = "Test"
timeout_seconds = {timeout_seconds}
settings = {{ path = "messages" }}
secrets = {{ token = {{ env = "SIMULATOR_TOKEN" }}, webhook = {{ env = "SIMULATOR_SECRET" }} }}
[sms.providers.{name}.request]
method = "POST"
url = "http://127.0.0.1:{port}/{{setting:path}}"
auth = {{ kind = "bearer", secret = "token" }}
json = {{ to = "{{to}}", text = "{{text}}", reference = "{{message_id}}", callback = "{{callback}}", ttl = "{{ttl_seconds}}|number" }}
[sms.providers.{name}.response]
id = {{ json = "/id" }}
rules = [
  {{ status = ["202"], class = "accepted" }},
  {{ json = {{ "/error" = ["unknown_number"] }}, class = "recipient_invalid" }},
  {{ json = {{ "/error" = ["opted_out"] }}, class = "recipient_blocked" }},
  {{ json = {{ "/error" = ["content_refused"] }}, class = "message_rejected" }},
  {{ json = {{ "/error" = ["not_routable"] }}, class = "destination_refused" }},
  {{ json = {{ "/error" = ["account_suspended", "unauthorized"] }}, class = "config_fault" }},
]
[sms.providers.{name}.receipt]
verify = {{ kind = "hmac", secret = "webhook", header = "x-simulator-signature", algorithm = "sha256", content = "{{timestamp}}.{{body}}", timestamp_header = "x-simulator-timestamp" }}
reference = "/body/reference"
id = "/body/id"
state = "/body/status"
error = "/body/error"
states = {{ sent = "in_flight", delivered = "delivered", failed = "failed", expired = "expired" }}
"#
    )
}

fn relay(name: &str, port: u16) -> String {
    format!(
        "[email.providers.{name}]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\n\
         timeout_seconds = 3\nfrom = \"Test <no-reply@mail.example.org>\"\n"
    )
}

fn port(address: Option<std::net::SocketAddr>) -> u16 {
    address.unwrap().port()
}

/// Adds the providers `first` and `second`, in this order, on both channels.
fn settings_of(mut settings: Settings, first: (u16, u16), second: (u16, u16)) -> Settings {
    settings.providers = [
        gateway("first", first.0, 2),
        gateway("second", second.0, 2),
        "[[sms.routes]]\nproviders = [\"first\", \"second\"]\n".to_owned(),
        relay("alpha", first.1),
        relay("beta", second.1),
        "[[email.routes]]\nproviders = [\"alpha\", \"beta\"]\n".to_owned(),
    ]
    .concat();
    settings.service = "[services.test.limits]\nservice_per_minute = 100000".into();
    settings
}

fn with_secrets(mut pipeline: Pipeline) -> Pipeline {
    for (name, value) in [
        ("SIMULATOR_TOKEN", "simulator"),
        ("SIMULATOR_SECRET", "simulator-secret"),
    ] {
        pipeline.variables.push((name.into(), value.into()));
    }
    pipeline
}

fn ports(simulator: &Simulator) -> (u16, u16) {
    (
        port(simulator.sms_address()),
        port(simulator.smtp_address()),
    )
}

/// Starts a pipeline on the embedded engine with two simulators.
async fn two_providers() -> (Pipeline, Simulator, Simulator) {
    let (first, second) = (simulator().await, simulator().await);
    let settings = settings_of(Settings::embedded(), ports(&first), ports(&second));
    let mut pipeline = with_secrets(Pipeline::configure(&settings));
    pipeline.start("all", &[]).await;
    (pipeline, first, second)
}

fn number(n: usize) -> String {
    format!("+4915112{n:06}")
}

/// Waits until delivery `send` of `id` has this outcome and returns the status.
async fn outcome_is(
    pipeline: &Pipeline,
    name: &str,
    id: &str,
    send: usize,
    outcome: &str,
) -> Value {
    until(
        40,
        &format!("delivery {send} of {id} is {outcome}"),
        || async {
            let status = pipeline.status(name, id).await.body;
            let found = status["deliveries"][send - 1]["outcome"] == outcome;
            found.then_some(status)
        },
    )
    .await
}

/// Requests `count` codes at a steady pace and returns how long each took until a provider had it.
async fn hand_over(
    pipeline: &Pipeline,
    takers: &[&Simulator],
    from: usize,
    count: usize,
) -> Vec<Duration> {
    let asks = (from..from + count).map(|n| async move {
        tokio::time::sleep(Duration::from_millis((n - from) as u64 * 10)).await;
        let begun = Instant::now();
        let answer = pipeline.ask("all", "sms", &number(n)).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{:?}", answer.body);
        (number(n), begun)
    });
    let wanted: Vec<String> = (from..from + count).map(number).collect();
    let watch = async {
        let mut seen = BTreeMap::new();
        let deadline = Instant::now() + Duration::from_secs(60);
        while seen.len() < count && Instant::now() < deadline {
            for message in takers.iter().flat_map(|taker| taker.messages()) {
                if wanted.contains(&message.to) {
                    seen.entry(message.to).or_insert_with(Instant::now);
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        seen
    };
    let (asked, seen) = tokio::join!(join_all(asks), watch);
    assert_eq!(seen.len(), count, "every code was handed over");
    asked
        .into_iter()
        .map(|(to, begun)| seen[&to].saturating_duration_since(begun))
        .collect()
}

fn worst(times: &[Duration]) -> Duration {
    *times.iter().max().unwrap()
}

/// Codes get through while one of two providers is dead, and after it has recovered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes_get_through_with_one_provider_dead_or_hanging() {
    let (pipeline, first, second) = two_providers().await;
    let normal = hand_over(&pipeline, &[&first, &second], 0, 300).await;
    assert!(second.messages().is_empty(), "the first in order takes all");

    // The provider closes every connection before it accepts a message.
    first.set_sms(sms(|sms| {
        sms.outcomes = BTreeMap::from([(Outcome::DropBeforeAccept, 1.0)]);
    }));
    let dead = hand_over(&pipeline, &[&first, &second], 1_000, 1_000).await;
    let late = dead
        .iter()
        .filter(|took| **took > worst(&normal) + Duration::from_secs(2));
    let late = late.count();
    println!(
        "normal worst {:?}; dead worst {:?}, {late} of 1000 late",
        worst(&normal),
        worst(&dead)
    );
    assert!(
        late <= 1,
        "99.9 % within 2 s more than normal: {late} were not"
    );
    let metrics = pipeline.metrics("all").await;
    let share = metrics["watchword_provider_share_tenths{channel=\"sms\",provider=\"first\"}"];
    assert!(share < 10.0, "{share}");

    // After recovery the provider first gets half-open probes, then its share in steps.
    first.set_sms(sms(|_| {}));
    let before = first.messages().len();
    let mut seen = Vec::new();
    for round in 0..60 {
        hand_over(&pipeline, &[&first, &second], 10_000 + round * 100, 10).await;
        let metrics = pipeline.metrics("all").await;
        let share = metrics["watchword_provider_share_tenths{channel=\"sms\",provider=\"first\"}"];
        if seen.last() != Some(&share) {
            seen.push(share);
        }
        if share >= 1.0 && first.messages().len() > before {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(seen, [0.0, 1.0], "circuit open, then the first step");
}

/// A provider that may have accepted a message and recognizes repeats gets the repeat. Another
/// provider would send the person a second message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_goes_where_it_is_recognised() {
    let (first, second) = (simulator().await, simulator().await);
    let mut settings = settings_of(Settings::embedded(), ports(&first), ports(&second));
    settings.providers = settings
        .providers
        .replacen("method =", "idempotent = true\nmethod =", 1)
        .replacen(
            "[[sms.routes]]\nproviders = [\"first\", \"second\"]",
            "[[sms.routes]]\nchoose = \"weighted\"\nproviders = [\"first\", \"second\"]",
            1,
        );
    let mut pipeline = with_secrets(Pipeline::configure(&settings));
    pipeline.start("all", &[]).await;
    first.set_sms(sms(|sms| {
        sms.outcomes = BTreeMap::from([(Outcome::DropAfterAccept, 1.0)]);
    }));
    let at = |simulator: &Simulator, to: &str| {
        let messages = simulator.messages();
        messages.iter().filter(|message| message.to == to).count()
    };
    // Few enough failures for the provider's circuit to stay closed.
    let (mut ids, mut unheard) = (Vec::new(), Vec::new());
    while unheard.len() < 2 {
        let to = number(ids.len());
        let answer = pipeline.ask("all", "sms", &to).await;
        ids.push(answer.text("id").to_owned());
        until(10, "a provider has the message", || async {
            (at(&first, &to) + at(&second, &to) > 0).then_some(())
        })
        .await;
        unheard.extend((at(&first, &to) > 0).then_some(to));
    }
    // While the provider is busy with the repeat it is asked once more, and no other provider is.
    first.set_sms(sms(|sms| {
        sms.outcomes = BTreeMap::from([(Outcome::Transient, 1.0)]);
    }));
    until(10, "the provider was busy with both messages", || async {
        let busy = pipeline.total("watchword_attempts_total", &["first", "transient"]);
        (busy.await == 2).then_some(())
    })
    .await;
    first.set_sms(sms(|_| {}));
    for id in &ids {
        outcome_is(&pipeline, "all", id, 1, "accepted").await;
    }
    for to in &unheard {
        assert_eq!((at(&first, to) > 1, at(&second, to)), (true, 0), "{to}");
    }
}

/// A hanging provider delays only the first messages by its timeout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_provider_costs_the_first_ones_its_timeout() {
    let (pipeline, first, second) = two_providers().await;
    let normal = hand_over(&pipeline, &[&first, &second], 0, 100).await;
    first.set_sms(sms(|sms| {
        sms.outcomes = BTreeMap::from([(Outcome::Hang, 1.0)]);
    }));
    let hanging = hand_over(&pipeline, &[&first, &second], 1_000, 200).await;
    // The timeout of the first provider, and a second for the other one.
    let limit = Duration::from_secs(2 + 1) + worst(&normal);
    println!(
        "normal worst {:?}; hanging worst {:?}",
        worst(&normal),
        worst(&hanging)
    );
    assert!(worst(&hanging) < limit, "{:?}", worst(&hanging));
    let after = hand_over(&pipeline, &[&first, &second], 2_000, 200).await;
    // Half-open probes may still take the timeout.
    let slow = after
        .iter()
        .filter(|took| **took > worst(&normal) + Duration::from_secs(1));
    assert!(slow.count() <= 2, "{:?}", worst(&after));
}

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

struct Distributed {
    pipeline: Pipeline,
    rabbitmq: RabbitMq,
    _redis: RedisServer,
    first: Simulator,
    second: Simulator,
}

const ROLES: [(&str, &str); 4] = [
    ("issuer", "issuer"),
    ("verifier", "verifier"),
    ("sms", "sms-worker"),
    ("email", "email-worker"),
];

async fn distributed() -> Distributed {
    let (rabbitmq, redis, first, second) = tokio::join!(
        RabbitMq::shared(),
        RedisServer::start(),
        simulator(),
        simulator()
    );
    let settings = Settings::distributed(&rabbitmq.url(), &redis.url());
    let settings = settings_of(settings, ports(&first), ports(&second));
    let mut pipeline = with_secrets(Pipeline::configure(&settings));
    for (name, role) in ROLES {
        pipeline.launch(name, &[role]);
    }
    for (name, _) in ROLES {
        pipeline.ready(name).await;
    }
    Distributed {
        pipeline,
        rabbitmq,
        _redis: redis,
        first,
        second,
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

#[expect(
    clippy::disallowed_methods,
    reason = "a peer of the pipeline, with a clock of its own"
)]
fn signed(body: &str, secret: &str, age_seconds: u64) -> [(&'static str, String); 2] {
    use std::time::{SystemTime, UNIX_EPOCH};
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
        - age_seconds;
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    let tag = ring::hmac::sign(&key, format!("{now}.{body}").as_bytes());
    [
        ("x-simulator-timestamp", now.to_string()),
        ("x-simulator-signature", HEXLOWER.encode(tag.as_ref())),
    ]
}

/// Forged, replayed, reordered and late receipts change nothing that they should not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_of_every_kind_change_only_what_they_should() {
    let (pipeline, first, second) = two_providers().await;
    let id = pipeline
        .ask("all", "sms", &number(1))
        .await
        .text("id")
        .to_owned();
    outcome_is(&pipeline, "all", &id, 1, "accepted").await;
    let reference = format!("{id}-1");
    let post = |provider: &'static str, body: Value, secret: &'static str, age: u64| {
        let (client, base) = pipeline.raw("all");
        let body = body.to_string();
        let mut request = client.post(format!("{base}/v1/receipts/{provider}?d={reference}"));
        for (name, value) in signed(&body, secret, age) {
            request = request.header(name, value);
        }
        async move { request.body(body).send().await.unwrap().status().as_u16() }
    };
    let word = |status: &str| json!({ "id": "sim-1", "reference": reference, "status": status });
    let good = "simulator-secret";
    assert_eq!(post("first", word("delivered"), "guessed", 0).await, 401);
    assert_eq!(
        post("first", word("delivered"), good, 301).await,
        401,
        "stale"
    );
    assert_eq!(post("nobody", word("delivered"), good, 0).await, 404);
    assert_eq!(
        post("first", json!("{"), good, 0).await,
        204,
        "an unknown state is accepted and changes nothing"
    );
    // A receipt of a provider that never had the message.
    assert_eq!(post("second", word("failed"), good, 0).await, 204);
    // A receipt with an unknown id is accepted and counted after repeated look-ups.
    let unknown =
        json!({ "id": "sim-9", "reference": format!("{}-1", "a".repeat(32)), "status": "failed" });
    assert_eq!(post("first", unknown, good, 0).await, 204);
    assert_eq!(post("first", word("sent"), good, 0).await, 204);
    let status = until(20, "the receipt is shown", || async {
        let status = pipeline.status("all", &id).await.body;
        (status["deliveries"][0]["receipt"]["state"] == "in_flight").then_some(status)
    })
    .await;
    assert_eq!(status["deliveries"][0]["outcome"], "accepted");
    for late in ["delivered", "delivered", "sent", "failed", "expired"] {
        assert_eq!(post("first", word(late), good, 0).await, 204);
    }
    outcome_is(&pipeline, "all", &id, 1, "delivered").await;
    until(40, "all were counted", || async {
        let counted = pipeline
            .total("watchword_receipts_total", &["result=\"repeated\""])
            .await;
        let unknown = pipeline
            .total("watchword_receipts_total", &["result=\"unknown\""])
            .await;
        (counted == 4 && unknown == 2).then_some(())
    })
    .await;
    outcome_is(&pipeline, "all", &id, 1, "delivered").await;
    assert_eq!(
        pipeline
            .total("watchword_receipt_calls_total", &["result=\"forged\""])
            .await,
        2
    );

    // The simulator sends duplicate, reordered and forged receipts for each message; a tenth of the
    // messages fail.
    first.set_sms(sms(|sms| {
        sms.receipts = ReceiptBehaviour {
            duplicate: 1.0,
            reordered: 1.0,
            forged: 1.0,
            failed: 0.1,
            ..RECEIPTS_AT_ONCE
        };
    }));
    let asks = (1_000..1_100).map(|n| {
        let pipeline = &pipeline;
        async move {
            pipeline
                .ask("all", "sms", &number(n))
                .await
                .text("id")
                .to_owned()
        }
    });
    let ids = join_all(asks).await;
    let ended = until(40, "all receipts are applied", || async {
        let mut ended = BTreeMap::<String, usize>::new();
        for id in &ids {
            let status = pipeline.status("all", id).await.body;
            let outcome = status["deliveries"][0]["outcome"]
                .as_str()
                .unwrap()
                .to_owned();
            *ended.entry(outcome).or_default() += 1;
        }
        let last = ended.get("delivered").unwrap_or(&0) + ended.get("failed").unwrap_or(&0);
        (last == 100).then_some(ended)
    })
    .await;
    let told = first.messages().len() + second.messages().len();
    assert_eq!(told, 101);
    assert!(
        (1..30).contains(ended.get("failed").unwrap_or(&0)),
        "{ended:?}"
    );
    assert_eq!(
        pipeline
            .total("watchword_receipt_calls_total", &["result=\"forged\""])
            .await,
        102
    );
}

/// Approval at 29 s cancels the fallback email. Without receipt and approval the email is sent
/// exactly once, even if every process was killed in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mail_follows_after_thirty_seconds_once_or_not_at_all() {
    let mut world = distributed().await;
    let ask = |to: &str, mail: &str| json!({ "channel": "sms", "to": to, "fallback": [{ "channel": "email", "to": mail }] });
    let begun = Instant::now();
    let approved = world
        .pipeline
        .post(
            "issuer",
            "/v1/verifications",
            ask(&number(1), "one@example.org"),
        )
        .await;
    let silent = world
        .pipeline
        .post(
            "issuer",
            "/v1/verifications",
            ask(&number(2), "two@example.org"),
        )
        .await;
    let resent = world
        .pipeline
        .post(
            "issuer",
            "/v1/verifications",
            ask(&number(3), "three@example.org"),
        )
        .await;
    assert_eq!(silent.status, StatusCode::ACCEPTED, "{:?}", silent.body);
    let delivered = world
        .pipeline
        .post(
            "issuer",
            "/v1/verifications",
            ask(&number(4), "four@example.org"),
        )
        .await;
    let text = until(20, "the SMS", || async {
        let messages = world.first.messages();
        (messages.len() == 4).then(|| {
            messages
                .iter()
                .find(|m| m.to == number(1))
                .unwrap()
                .text
                .clone()
        })
    })
    .await;
    // A receipt of delivery cancels the email.
    let message = world
        .first
        .messages()
        .into_iter()
        .find(|m| m.to == number(4))
        .unwrap();
    let control = format!(
        "http://{}/control/receipts",
        world.first.sms_address().unwrap()
    );
    let (client, _) = world.pipeline.raw("sms");
    let told = client
        .post(control)
        .bearer_auth("simulator")
        .json(&json!({ "id": message.id, "status": "delivered" }))
        .send()
        .await
        .unwrap();
    assert!(told.status().is_success());
    outcome_is(
        &world.pipeline,
        "verifier",
        delivered.text("id"),
        1,
        "delivered",
    )
    .await;
    // Kill every process while the fallback steps wait, and restart them.
    for (name, _) in ROLES {
        world.pipeline.processes[name].process.signal("KILL");
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    for (name, role) in ROLES {
        world.pipeline.launch(name, &[role]);
    }
    for (name, _) in ROLES {
        world.pipeline.ready(name).await;
    }
    // Approve one verification at 29 s; request a new message for another after its cooldown.
    tokio::time::sleep(Duration::from_secs(29).saturating_sub(begun.elapsed())).await;
    let check = world
        .pipeline
        .check("verifier", approved.text("id"), &code_in(&text))
        .await;
    assert_eq!(check.body["valid"], true, "{:?}", check.body);
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    let mails = || -> Vec<String> {
        let all = [world.first.messages(), world.second.messages()].concat();
        all.into_iter()
            .filter(|m| m.channel == "email")
            .map(|m| m.to)
            .collect()
    };
    until(30, "the mail", || async {
        mails()
            .contains(&"two@example.org".to_owned())
            .then_some(())
    })
    .await;
    let at = begun.elapsed();
    assert!(
        at >= Duration::from_secs(30) && at < Duration::from_secs(36),
        "{at:?}"
    );
    // Time for a mail that must not be sent.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let mut sent = mails();
    sent.sort();
    assert_eq!(
        sent,
        ["three@example.org", "two@example.org"],
        "each message once, and no other"
    );
    // Both channels carry the same code, which is approved once.
    let status = world
        .pipeline
        .status("verifier", silent.text("id"))
        .await
        .body;
    assert_eq!(status["sends"], 2);
    assert_eq!(status["deliveries"][1]["channel"], "email");
    let mail = [world.first.messages(), world.second.messages()].concat();
    let mail = mail.iter().find(|m| m.to == "two@example.org").unwrap();
    let body = mail.text.split("\r\n\r\n").skip(1).collect::<String>();
    let check = world
        .pipeline
        .check("verifier", silent.text("id"), &code_in(&body))
        .await;
    assert_eq!(check.body["valid"], true, "{:?}", check.body);
    drop(resent);
}

/// A resend cancels the fallback step, and so does a withdrawal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_send_or_a_withdrawal_cancels_the_step() {
    let (first, second) = (simulator().await, simulator().await);
    let mut settings = settings_of(Settings::embedded(), ports(&first), ports(&second));
    settings.service += "\n[services.test.policy]\ncooldown_seconds = 1\n";
    let mut pipeline = with_secrets(Pipeline::configure(&settings));
    pipeline.start("all", &[]).await;
    let ask = |n: usize| {
        let step =
            json!({ "channel": "email", "to": format!("p{n}@example.org"), "after_seconds": 5 });
        json!({ "channel": "sms", "to": number(n), "fallback": [step] })
    };
    let mut ids = Vec::new();
    for n in 1..=3 {
        let asked = pipeline.post("all", "/v1/verifications", ask(n)).await;
        assert_eq!(asked.status, StatusCode::ACCEPTED, "{:?}", asked.body);
        ids.push(asked.text("id").to_owned());
    }
    let path = format!("/v1/verifications/{}", ids[0]);
    let gone = pipeline.call("all", KEY, Method::DELETE, &path, None).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    // The cooldown of the policy is 1 s.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let again = pipeline
        .post(
            "all",
            &format!("/v1/verifications/{}/resend", ids[1]),
            json!({}),
        )
        .await;
    assert_eq!(again.status, StatusCode::ACCEPTED, "{:?}", again.body);
    until(20, "three steps were due", || async {
        let steps = pipeline.total("watchword_fallback_steps_total", &[]).await;
        (steps == 3).then_some(())
    })
    .await;
    let mails = until(20, "the mail", || async {
        let mails: Vec<_> = first
            .messages()
            .into_iter()
            .filter(|m| m.channel == "email")
            .collect();
        (!mails.is_empty()).then_some(mails)
    })
    .await;
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].to, "p3@example.org");
    for (wrong, field) in [
        (json!([{ "channel": "email", "to": "x" }]), "fallback"),
        (
            json!([{ "channel": "email", "to": "a@example.org", "after_seconds": 1 }]),
            "fallback",
        ),
        (
            json!([{ "channel": "email", "to": "a@example.org", "after_seconds": 300 }]),
            "fallback",
        ),
        (
            json!([{ "channel": "fax", "to": "a@example.org" }]),
            "fallback",
        ),
    ] {
        let body = json!({ "channel": "sms", "to": number(9), "fallback": wrong });
        let refused = pipeline.post("all", "/v1/verifications", body).await;
        assert_eq!(
            refused.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{:?}",
            refused.body
        );
        assert!(
            refused.body.to_string().contains(field),
            "{:?}",
            refused.body
        );
    }
}

/// A wrong response rule is refused at start, with its line number and without values.
#[tokio::test]
async fn a_wrong_rule_is_refused_with_its_line() {
    let base = settings_of(Settings::embedded(), (1, 1), (2, 2));
    for (right, wrong, key) in [
        (
            "status = [\"202\"]",
            "status = [\"2O2\"]",
            "first.response.rules[0].status",
        ),
        (
            "\"/error\" = [\"opted_out\"]",
            "\"error\" = [\"opted_out\"]",
            "first.response.rules[2].json",
        ),
        (
            "class = \"message_rejected\"",
            "class = \"hunter2\"",
            "rules[3].class",
        ),
        ("{setting:path}", "{setting:hunter2}", "first.request.url"),
        (
            "secret = \"webhook\"",
            "secret = \"hunter2\"",
            "first.receipt.verify.secret",
        ),
        (
            "state = \"/body/status\"",
            "state = \"status\"",
            "first.receipt.state",
        ),
        (
            "kind = \"bearer\"",
            "kind = \"hunter2\"",
            "first.request.auth",
        ),
        (
            "providers = [\"first\", \"second\"]",
            "providers = [\"first\", \"hunter2\"]",
            "sms.routes[0].providers",
        ),
    ] {
        let mut settings = base.clone();
        assert!(settings.providers.contains(right), "{right}");
        settings.providers = settings.providers.replacen(right, wrong, 1);
        let pipeline = with_secrets(Pipeline::configure(&settings));
        let mut command = pipeline.command();
        command.env("WATCHWORD_SMS__PUBLIC_URL", "http://127.0.0.1:8080");
        let output = command.args(["config", "check"]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{wrong}");
        assert!(error.contains(key), "{wrong}: {error}");
        // A route's provider is named, because it is a name and no secret belongs there.
        let is_named = key == "sms.routes[0].providers";
        assert_eq!(error.contains("hunter2"), is_named, "{error}");
        let text = std::fs::read_to_string(pipeline.folder().join("watchword.toml")).unwrap();
        let marker = wrong.lines().next().unwrap();
        let line = text.lines().position(|line| line.contains(marker)).unwrap() + 1;
        let told = error.split(", line ").nth(1).unwrap_or_default();
        let told: String = told.chars().take_while(char::is_ascii_digit).collect();
        assert_eq!(told, line.to_string(), "{wrong}: {error}");
    }
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

/// `provider test` prints the request without secrets, and can send one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_is_shown_masked_and_tried() {
    let (first, second) = (simulator().await, simulator().await);
    let settings = settings_of(Settings::embedded(), ports(&first), ports(&second));
    let pipeline = with_secrets(Pipeline::configure(&settings));
    let run = |arguments: &[&str]| {
        let output = pipeline
            .command()
            .args(["provider", "test"])
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (
            output.status.success(),
            text + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let (fine, shown) = run(&["first"]);
    assert!(
        fine && shown.contains("POST http://127.0.0.1") && shown.contains("authorization: ****"),
        "{shown}"
    );
    assert!(!shown.contains("Bearer simulator"), "{shown}");
    assert!(first.messages().is_empty());
    let (fine, sent) = run(&["first", "--to", &number(1)]);
    assert!(
        fine && sent.contains("accepted (http_202), id sim-1"),
        "{sent}"
    );
    for part in [
        "HTTP 202",
        "sim-1",
        "response.rules[",
        "content-type: application/json",
    ] {
        assert!(sent.contains(part), "{part}: {sent}");
    }
    assert!(!sent.contains(&number(1)[1..]), "{sent}");
    assert_eq!(first.messages().len(), 1);
    let (fine, missing) = run(&["nosuch"]);
    assert!(!fine && missing.contains("no provider"), "{missing}");
}

/// Dead-lettered orders are listed and shown without content, replayed while their code is valid,
/// and discarded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parked_orders_are_listed_shown_replayed_and_dropped() {
    let mut world = distributed().await;
    // The worker starts with a configuration that lacks the service.
    let whole = world.pipeline.folder().join("watchword.toml");
    let whole = std::fs::read_to_string(whole).unwrap();
    let path = world.pipeline.folder().join("worker.toml");
    let variable = ("WATCHWORD_CONFIG".to_owned(), path.display().to_string());
    let own = world.pipeline.own_variables.entry("sms".to_owned());
    own.or_default().push(variable);
    std::fs::write(
        &path,
        whole
            .replace("[services.test]", "[services.later]")
            .replace("[services.test.limits]", "[services.later.limits]"),
    )
    .unwrap();
    world.pipeline.processes["sms"].process.signal("TERM");
    world
        .pipeline
        .processes
        .get_mut("sms")
        .unwrap()
        .process
        .wait(30);
    world.pipeline.start("sms", &["sms-worker"]).await;

    // An order of an unknown service is retried until the configuration has the service.
    let early = world.pipeline.ask("issuer", "sms", &number(0)).await;
    until(20, "the order has been tried", || async {
        let retries = world.pipeline.total("watchword_retries_total", &["sms"]);
        (retries.await >= 1).then_some(())
    })
    .await;
    let cut = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &whole).unwrap();
    outcome_is(&world.pipeline, "verifier", early.text("id"), 1, "accepted").await;
    std::fs::write(&path, cut).unwrap();
    until(20, "the configuration without it is read", || async {
        let reloads = world.pipeline.metrics("sms").await;
        let read = "watchword_config_reloads_total{result=\"ok\"}";
        (reloads[read] >= 2.0).then_some(())
    })
    .await;

    // After a minute such orders are dead-lettered.
    let mut ids = Vec::new();
    for n in 1..=3 {
        ids.push(
            world
                .pipeline
                .ask("issuer", "sms", &number(n))
                .await
                .text("id")
                .to_owned(),
        );
    }
    for id in &ids {
        until(120, &format!("the delivery of {id} is parked"), || async {
            let status = world.pipeline.status("verifier", id).await.body;
            (status["deliveries"][0]["outcome"] == "parked").then_some(())
        })
        .await;
    }
    std::fs::write(&path, whole).unwrap();
    world.pipeline.processes["sms"].process.signal("TERM");
    world
        .pipeline
        .processes
        .get_mut("sms")
        .unwrap()
        .process
        .wait(30);
    world.pipeline.start("sms", &["sms-worker"]).await;

    let run = |arguments: &[&str]| {
        let output = world
            .pipeline
            .command()
            .arg("dead-letters")
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (
            output.status.success(),
            text + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let delivery = |n: usize| format!("{}-1", ids[n]);
    let (fine, list) = run(&["list"]);
    assert!(
        fine && list.contains("3 dead letters") && list.contains("unknown_service"),
        "{list}"
    );
    for id in &ids {
        assert!(list.contains(&format!("{id}-1")), "{list}");
    }
    let (_, none) = run(&["list", "--reason", "broken_seal"]);
    assert!(none.contains("0 dead letters"), "{none}");
    let (fine, shown) = run(&["show", &delivery(0)]);
    assert!(
        fine && shown.contains("\"reason\": \"unknown_service\"")
            && shown.contains("\"outcome\": \"parked\""),
        "{shown}"
    );
    assert!(
        !shown.contains("4915112") && !shown.contains("sealed"),
        "{shown}"
    );
    let (fine, refused) = run(&["replay"]);
    assert!(!fine && refused.contains("--all"), "{refused}");
    let (fine, replayed) = run(&["replay", "--id", &delivery(0)]);
    assert!(fine && replayed.contains("1 replayed"), "{replayed}");
    outcome_is(&world.pipeline, "verifier", &ids[0], 1, "accepted").await;
    assert_eq!(world.first.messages().len(), 2);
    let (fine, dropped) = run(&["discard", "--id", &delivery(1)]);
    assert!(fine && dropped.contains("1 discarded"), "{dropped}");
    let (_, list) = run(&["list", "--queue", "sms"]);
    assert!(
        list.contains("1 dead letter") && list.contains(&delivery(2)),
        "{list}"
    );
    let (_, list) = run(&["list", "--service", "test"]);
    assert!(
        list.contains("1 dead letter"),
        "listing changes nothing: {list}"
    );
    let audit = world.pipeline.command().arg("audit").output().unwrap();
    assert!(
        audit.status.success(),
        "{}",
        String::from_utf8_lossy(&audit.stdout)
    );
}

/// A real Kannel returns its receipts to the URL it was given; the token in that URL is their only
/// proof.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kannels_receipts_come_back() {
    let kannel = Gateway::start().await;
    let mut settings = Settings::embedded();
    settings.providers = format!(
        "[sms.providers.kannel]\nkind = \"kannel\"\nsender = \"Test\"\n\
         settings = {{ base_url = \"{}\", username = \"watchword\" }}\n\
         secrets = {{ password = {{ env = \"KANNEL_PASSWORD\" }}, receipt_token = {{ env = \"KANNEL_TOKEN\" }} }}\n\
         [email.providers.inbox]\nkind = \"inbox\"\n",
        kannel.url()
    );
    let mut pipeline = Pipeline::configure(&settings);
    let token = "a-token-of-kannel";
    for (name, value) in [
        ("KANNEL_PASSWORD", watchword_tests::gateway::PASSWORD),
        ("KANNEL_TOKEN", token),
    ] {
        pipeline.variables.push((name.into(), value.into()));
    }
    pipeline.start("all", &[]).await;
    let id = pipeline
        .ask("all", "sms", &number(1))
        .await
        .text("id")
        .to_owned();
    let status = until(40, "Kannel's receipt has been applied", || async {
        let status = pipeline.status("all", &id).await.body;
        status["deliveries"][0]["receipt"]
            .is_object()
            .then_some(status)
    })
    .await;
    println!("{}", status["deliveries"][0]["receipt"]);
    outcome_is(&pipeline, "all", &id, 1, "delivered").await;
    // Receipts without the right token are refused.
    let (client, base) = pipeline.raw("all");
    for guess in ["", "&token=guessed", "&token=a-token-of-kannel&token=x"] {
        let url = format!("{base}/v1/receipts/kannel?d={id}-1&s=2{guess}");
        assert_eq!(
            client.get(url).send().await.unwrap().status(),
            StatusCode::UNAUTHORIZED
        );
    }
    assert!(!pipeline.logs().contains(token));
}

/// A receipt request whose body is missing or endless is cut off and delays no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_has_a_bound_in_time_and_size() {
    let (pipeline, _first, _second) = two_providers().await;
    let (client, base) = pipeline.raw("all");
    let large = client
        .post(format!("{base}/v1/receipts/first"))
        .body("x".repeat(65 * 1024))
        .send()
        .await
        .unwrap();
    assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let address = base.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = "POST /v1/receipts/first HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 64];
    let read = tokio::time::timeout(Duration::from_secs(8), stream.read(&mut answer)).await;
    let read = read.expect("an answer in time").unwrap();
    assert!(
        answer[..read].starts_with(b"HTTP/1.1 408"),
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
}
