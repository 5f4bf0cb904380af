//! Requests by event under faults: the store is away, no issuer runs, a body is too large, a tenant
//! uses another tenant's routing key. Every request is answered once an issuer reads it, and no
//! queue keeps a recipient in clear beyond its time-to-live.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions,
    ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use serde_json::{Value, json};
use watchword_core::{Clock, Timestamp};
use watchword_tests::{Pipeline, RabbitMq, RedisServer, Settings, TcpProxy, until};

const NUMBER: &str = "4915112345678";
const PARKED: &str = "watchword.requests.parked";
const LATE: &str = "watchword.requests.late";
const OWN: &str = "watchword.requests.service.test";

#[derive(Debug)]
struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        #[expect(
            clippy::disallowed_methods,
            reason = "requests to a process are of the present"
        )]
        let elapsed = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        Timestamp::from_millis(i64::try_from(elapsed.as_millis()).unwrap())
    }
}

fn document(id: &str) -> String {
    document_of(id, WallClock.now())
}

fn document_of(id: &str, time: Timestamp) -> String {
    json!({
        "specversion": "1.0", "id": id, "source": "/portal", "type": "watchword.otp.requested.v1",
        "time": time.to_rfc3339(), "datacontenttype": "application/json",
        "data": { "channel": "sms", "to": format!("+{NUMBER}") },
    })
    .to_string()
}

/// An auth service as a broker client.
struct Portal {
    channel: Channel,
    connection: Connection,
    user: &'static str,
}

impl Portal {
    async fn connect(rabbitmq: &RabbitMq, user: &'static str) -> Self {
        let url = rabbitmq.url_of(user, "portal-secret");
        let properties = ConnectionProperties::default();
        let connection = Connection::connect(&url, properties).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let confirms = ConfirmSelectOptions::default();
        channel.confirm_select(confirms).await.unwrap();
        Self {
            channel,
            connection,
            user,
        }
    }

    /// Opens another channel after the broker has closed the first.
    async fn reopen(&mut self) {
        self.channel = self.connection.create_channel().await.unwrap();
        let confirms = ConfirmSelectOptions::default();
        self.channel.confirm_select(confirms).await.unwrap();
    }

    /// Publishes a request; returns whether a queue accepted it.
    async fn publish(&self, key: &str, id: &str, body: &str) -> bool {
        let properties = BasicProperties::default()
            .with_user_id(self.user.into())
            .with_message_id(id.into());
        let options = BasicPublishOptions {
            mandatory: true,
            ..Default::default()
        };
        let published = self.channel.basic_publish(
            "watchword.requests".into(),
            key.into(),
            options,
            body.as_bytes(),
            properties,
        );
        let Ok(confirm) = published.await else {
            return false;
        };
        matches!(confirm.await, Ok(Confirmation::Ack(None)))
    }

    /// Binds the service's queue to `key` of the events; returns whether the broker permits it.
    async fn bind(&self, key: &str) -> bool {
        let queue = format!("{}.answers", self.user);
        let declared = self.channel.queue_declare(
            queue.as_str().into(),
            QueueDeclareOptions::default(),
            FieldTable::default(),
        );
        let bound = async {
            declared.await?;
            let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
            self.channel
                .queue_bind(
                    queue.as_str().into(),
                    "watchword.events".into(),
                    key.into(),
                    options,
                    arguments,
                )
                .await
        };
        bound.await.is_ok()
    }

    /// Declares the service's own exchanges among the two and binds `to` to all messages of `from`;
    /// returns whether the broker permits it.
    async fn bridge(&self, from: &str, to: &str) -> bool {
        let own = [from, to]
            .into_iter()
            .filter(|name| name.starts_with(self.user));
        for name in own {
            let kind = lapin::ExchangeKind::Topic;
            let (options, arguments) = (ExchangeDeclareOptions::default(), FieldTable::default());
            let declared = self
                .channel
                .exchange_declare(name.into(), kind, options, arguments);
            if declared.await.is_err() {
                return false;
            }
        }
        let (options, arguments) = (ExchangeBindOptions::default(), FieldTable::default());
        let bound =
            self.channel
                .exchange_bind(to.into(), from.into(), "#".into(), options, arguments);
        bound.await.is_ok()
    }

    async fn answers(&self) -> lapin::Consumer {
        let queue = format!("{}.answers", self.user);
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        self.channel
            .basic_consume(queue.as_str().into(), "".into(), options, arguments)
            .await
            .unwrap()
    }
}

async fn answer(answers: &mut lapin::Consumer) -> Value {
    let delivery = tokio::time::timeout(Duration::from_secs(40), answers.next()).await;
    let delivery = delivery.expect("an answer in time").unwrap().unwrap();
    delivery.ack(BasicAckOptions::default()).await.unwrap();
    serde_json::from_slice(&delivery.data).unwrap()
}

fn refusal(answer: &Value) -> (&str, &str) {
    let text = |pointer| answer.pointer(pointer).and_then(Value::as_str);
    (
        text("/data/request_id").unwrap_or_default(),
        text("/data/refusal/code").unwrap_or_default(),
    )
}

struct World {
    rabbitmq: RabbitMq,
    redis: RedisServer,
    proxy: TcpProxy,
    pipeline: Pipeline,
}

impl World {
    /// Starts an issuer behind a proxy to the broker.
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same, with these variables.
    async fn start_with(variables: &[(&str, &str)]) -> Self {
        let (rabbitmq, redis) = tokio::join!(RabbitMq::start(), RedisServer::start());
        let proxy = TcpProxy::start(rabbitmq.port()).await;
        let [direct, proxied] = [rabbitmq.port(), proxy.port()].map(|port| format!(":{port}/"));
        let url = rabbitmq.url().replace(&direct, &proxied);
        let mut settings = Settings::distributed(&url, &redis.url());
        settings.providers = "[sms.providers.inbox]\nkind = \"inbox\"\n".into();
        let mut pipeline = Pipeline::configure(&settings);
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        pipeline.variables.extend(variables);
        pipeline.start("issuer", &["issuer"]).await;
        for user in ["portal", "shop"] {
            rabbitmq.add_user(user, "portal-secret").await;
        }
        Self {
            rabbitmq,
            redis,
            proxy,
            pipeline,
        }
    }

    fn stop(&mut self) {
        let issuer = self.pipeline.processes.get_mut("issuer").unwrap();
        issuer.process.signal("TERM");
        assert!(issuer.process.wait(40).success());
        self.pipeline.processes.remove("issuer");
    }

    /// Waits until the dead-letter queue holds `count` notes with these words; none may contain a
    /// number.
    async fn parked(&self, count: u64, words: &[&str]) {
        until(20, "the notes are there", || async {
            (self.rabbitmq.messages(PARKED) == count).then_some(())
        })
        .await;
        let parked = self.rabbitmq.peek(PARKED).await.to_string();
        for word in words {
            assert!(parked.contains(word), "{word}: {parked}");
        }
        assert!(!parked.contains(NUMBER), "{parked}");
        let full = |(queue, count): &(String, u64)| {
            queue.starts_with("watchword.") && queue != PARKED && *count > 0
        };
        until(20, "all other queues are empty", || async {
            (!self.rabbitmq.all_messages().iter().any(full)).then_some(())
        })
        .await;
    }
}

/// The request queue's delivery limit is reached while the issuer cannot work. The request still
/// gets its answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_flaps_while_the_store_is_away_takes_no_answer() {
    let mut world = World::start().await;
    let portal = Portal::connect(&world.rabbitmq, "portal").await;
    assert!(portal.bind("*.updated.test").await);
    let mut answers = portal.answers().await;
    world.redis.kill();
    for (key, id) in [("requests", "r1"), ("requests.test", "r2")] {
        assert!(portal.publish(key, id, &document(id)).await);
    }
    let mut cuts = 0;
    while world.rabbitmq.messages(LATE) < 2 {
        assert!(cuts < 80, "{:?}", world.rabbitmq.all_messages());
        let before = world.proxy.accepted();
        world.proxy.cut();
        until(30, "the issuer is connected again", || async {
            (world.proxy.accepted() >= before + 2).then_some(())
        })
        .await;
        // Time for the issuer to declare its queues, start a consumer and receive both requests.
        tokio::time::sleep(Duration::from_millis(700)).await;
        cuts += 1;
    }
    assert!(cuts >= 20, "{cuts}");
    for _ in 0..5 {
        let before = world.proxy.accepted();
        world.proxy.cut();
        until(30, "the issuer is connected again", || async {
            (world.proxy.accepted() >= before + 2).then_some(())
        })
        .await;
    }
    world.redis.launch().await;
    let mut answered = Vec::new();
    while answered.len() < 2 {
        let answer = answer(&mut answers).await;
        let (id, code) = refusal(&answer);
        assert_eq!(code, "request_expired", "{answer}");
        if !answered.contains(&id.to_owned()) {
            answered.push(id.to_owned());
        }
    }
    world.parked(2, &["delivery_limit"]).await;
}

/// The store stays away until the code would have expired. The answer then needs no store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_stays_away_takes_no_answer() {
    let mut world = World::start().await;
    let portal = Portal::connect(&world.rabbitmq, "portal").await;
    assert!(portal.bind("*.updated.test").await);
    let mut answers = portal.answers().await;
    world.redis.kill();
    // A code lives 300 s by default.
    let asked_at = WallClock.now().minus_millis(295_000);
    let request = document_of("r1", asked_at);
    assert!(portal.publish("requests.test", "r1", &request).await);
    let answer = answer(&mut answers).await;
    assert_eq!(refusal(&answer), ("r1", "request_expired"), "{answer}");
    assert!(WallClock.now().millis_since(asked_at) >= 300_000);
    until(20, "the request is gone", || async {
        (world.rabbitmq.messages(OWN) == 0).then_some(())
    })
    .await;
    assert_eq!(world.rabbitmq.messages(PARKED), 0);
}

/// No issuer runs for as long as a request may wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_waits_too_long_is_answered_when_an_issuer_runs() {
    let mut world = World::start().await;
    world.stop();
    let portal = Portal::connect(&world.rabbitmq, "portal").await;
    assert!(portal.bind("*.updated.test").await);
    let mut answers = portal.answers().await;
    // The broker applies the lower of the policy's and the queue's time-to-live.
    let pattern = "^watchword[.]requests($|[.]service[.])";
    let arguments = ["set_policy", "short", pattern, "{\"message-ttl\":1000}"];
    world.rabbitmq.control(&arguments);
    for (key, id) in [("requests", "r1"), ("requests.test", "r2")] {
        assert!(portal.publish(key, id, &document(id)).await);
    }
    until(20, "both expired", || async {
        (world.rabbitmq.messages(LATE) == 2).then_some(())
    })
    .await;
    let large = document("large").replace("/portal", &"x".repeat(17 * 1024));
    world.rabbitmq.control(&["clear_policy", "short"]);
    assert!(portal.publish("requests", "large", &large).await);
    world.pipeline.start("issuer", &["issuer"]).await;
    let mut answered = Vec::new();
    for _ in 0..2 {
        let answer = answer(&mut answers).await;
        let (id, code) = refusal(&answer);
        assert_eq!(code, "request_expired", "{answer}");
        answered.push(id.to_owned());
    }
    answered.sort();
    assert_eq!(answered, ["r1", "r2"]);
    world.parked(3, &["expired", "too_large"]).await;
    // The expired-requests queue drops a request that no issuer reads.
    world.stop();
    let arguments = [
        "set_policy",
        "short",
        "^watchword[.]requests",
        "{\"message-ttl\":1000}",
    ];
    world.rabbitmq.control(&arguments);
    assert!(portal.publish("requests", "r3", &document("r3")).await);
    until(20, "the request is gone", || async {
        let is_empty = |queue| world.rabbitmq.messages(queue) == 0;
        (is_empty("watchword.requests") && is_empty(LATE)).then_some(())
    })
    .await;
}

/// With the permissions printed by `watchword topology --permissions`, the two users of a service
/// can publish with its own routing key and read its own events, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_is_held_to_its_own_requests_and_events() {
    let world = World::start_with(&[("WATCHWORD_FAILPOINT_HOLD_MS", "5000")]).await;
    let mut command = world.pipeline.command();
    let output = command
        .args(["topology", "--permissions"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let commands: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("rabbitmqctl "))
        .filter(|line| line.contains(" portal"))
        .collect();
    assert_eq!(commands.len(), 4, "{text}");
    world
        .rabbitmq
        .add_user("portal-reader", "portal-secret")
        .await;
    for command in commands {
        let words = command.split_whitespace().skip(1);
        let words: Vec<_> = words.map(|word| word.trim_matches('\'')).collect();
        world.rabbitmq.control(&words);
    }
    let mut portal = Portal::connect(&world.rabbitmq, "portal").await;
    let mut reader = Portal::connect(&world.rabbitmq, "portal-reader").await;
    for foreign in [
        "#",
        "*.updated.*",
        "*.updated.other",
        "verification.updated.other",
    ] {
        assert!(!reader.bind(foreign).await, "{foreign}");
        reader.reopen().await;
    }
    for own in ["*.updated.test", "verification.updated.test"] {
        assert!(reader.bind(own).await, "{own}");
    }
    for foreign in ["requests", "requests.other"] {
        assert!(
            !portal.publish(foreign, "r1", &document("r1")).await,
            "{foreign}"
        );
        portal.reopen().await;
    }
    assert!(!reader.publish("requests.test", "r1", &document("r1")).await);
    reader.reopen().await;
    // Topic permissions are not checked for messages that pass an exchange binding, so the users
    // must not be able to create one.
    for (user, from, to) in [
        (
            "portal-reader",
            "portal-reader.bridge",
            "watchword.requests",
        ),
        ("portal-reader", "watchword.events", "portal-reader.bridge"),
        ("portal", "portal.bridge", "watchword.requests"),
        ("portal", "watchword.requests", "watchword.requests"),
    ] {
        let tenant = Portal::connect(&world.rabbitmq, user).await;
        assert!(!tenant.bridge(from, to).await, "{user}: {from} to {to}");
    }
    let mut answers = reader.answers().await;
    assert!(portal.publish("requests.test", "r1", &document("r1")).await);
    let answered = answer(&mut answers).await;
    assert_eq!(answered["data"]["request_id"], "r1", "{answered}");
    assert_eq!(answered["data"]["status"], "pending", "{answered}");
    // A user without these permissions cannot have a request processed for the service.
    let shop = Portal::connect(&world.rabbitmq, "shop").await;
    assert!(shop.publish("requests.test", "r2", &document("r2")).await);
    // The issuer holds the request for 5 s here, because a reload may be about to add its user.
    until(25, "the note is dead-lettered", || async {
        (world.rabbitmq.messages(PARKED) == 1).then_some(())
    })
    .await;
    assert_eq!(world.rabbitmq.messages(OWN), 0);
    let parked = world.rabbitmq.peek(PARKED).await.to_string();
    assert!(
        parked.contains("unknown_user") && !parked.contains(NUMBER),
        "{parked}"
    );
    let mut command = world.pipeline.command();
    let listed = command.args(["dead-letters", "list"]).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("broker user shop"), "{listed}");
    let logs = world.pipeline.logs();
    assert!(logs.contains("user=\"shop\""), "{logs}");
}

/// A rollout configures a new user within a minute; the issuers hold its requests until then. An
/// issuer that stops meanwhile leaves them to another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_a_user_that_is_configured_late_is_answered() {
    let mut world = World::start().await;
    let portal = Portal::connect(&world.rabbitmq, "portal").await;
    assert!(portal.bind("verification.updated.test").await);
    let mut answers = portal.answers().await;
    let shop = Portal::connect(&world.rabbitmq, "shop").await;
    assert!(shop.publish("requests.test", "r1", &document("r1")).await);
    // The issuer holds the request and does not refuse it.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.rabbitmq.messages(PARKED), 0);

    let path = world.pipeline.folder().join("watchword.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let with_shop = text.replace("[\"portal\"]", "[\"portal\", \"shop\"]");
    assert_ne!(with_shop, text);
    std::fs::write(&path, with_shop).unwrap();
    world.pipeline.processes["issuer"].process.signal("HUP");
    let answered = answer(&mut answers).await;
    assert_eq!(answered["data"]["request_id"], "r1", "{answered}");
    assert_eq!(answered["data"]["status"], "pending", "{answered}");
    assert_eq!(world.rabbitmq.messages(PARKED), 0);

    world.rabbitmq.add_user("stranger", "portal-secret").await;
    let stranger = Portal::connect(&world.rabbitmq, "stranger").await;
    let document = document("r2");
    assert!(stranger.publish("requests.test", "r2", &document).await);
    // The issuer now holds the request of a user that will not be configured.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let begun = std::time::Instant::now();
    world.stop();
    assert!(begun.elapsed() < Duration::from_secs(10), "it drained");
    assert_eq!(world.rabbitmq.messages(OWN), 1, "another issuer gets it");
}
