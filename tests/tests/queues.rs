//! The conformance suite of both queues. For `RabbitMQ` also a test for each known fault of the
//! client library (the tests `l1` to `l7`) and of the broker.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::task::JoinSet;
use watchword_broker::{
    Broker, BrokerMetrics, Consumer, DeadLetterReason, EMBEDDED_MIGRATIONS, EmbeddedBroker,
    EmbeddedSettings, Late, LinkState, Outbound, PublishError, RabbitMq as Link, RabbitMqSettings,
    Received, Route, Topology,
};
use watchword_core::{Channel, Clock, Ladder, Rung, SecretString, Timestamp, TraceParent};
use watchword_events::Lane;
use watchword_metrics::prometheus::proto::LabelPair;
use watchword_storage::Sqlite;
use watchword_tests::{RabbitMq, TcpProxy, until};

const LANE: Lane = Lane::Send(Channel::Sms);
const DEADLINE: Duration = Duration::from_secs(2);
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[derive(Debug)]
struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        #[expect(
            clippy::disallowed_methods,
            reason = "queues of a test rest in real time"
        )]
        let elapsed = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        Timestamp::from_millis(i64::try_from(elapsed.as_millis()).unwrap())
    }
}

fn metrics() -> BrokerMetrics {
    BrokerMetrics::register(&watchword_metrics::prometheus::Registry::new()).unwrap()
}

fn message(id: &str) -> Outbound {
    Outbound {
        id: id.into(),
        kind: "watchword.otp.send.v1",
        route: Route::Lane(LANE),
        body: Bytes::from(format!("body of {id}")),
        traceparent: TraceParent::parse(TRACE),
        ttl: None,
    }
}

/// A queue of either engine with its broker or file.
struct World {
    broker: Arc<dyn Broker>,
    rabbitmq: Option<RabbitMq>,
    file: Option<(tempfile::TempDir, Sqlite)>,
}

impl World {
    async fn rabbitmq() -> Self {
        let server = RabbitMq::shared().await;
        let broker = link(&server.url()).await;
        Self {
            broker,
            rabbitmq: Some(server),
            file: None,
        }
    }

    async fn embedded() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open(&folder.path().join("queue.db"), &EMBEDDED_MIGRATIONS).unwrap();
        let mut world = Self {
            broker: embedded(&sqlite).await,
            rabbitmq: None,
            file: None,
        };
        world.file = Some((folder, sqlite));
        world
    }

    /// Opens the same queues again, as another process would after this one has ended.
    async fn reopened(&mut self) {
        self.broker.close().await;
        self.broker = match (&self.rabbitmq, &self.file) {
            (Some(server), _) => link(&server.url()).await,
            (None, Some((_, sqlite))) => embedded(sqlite).await,
            (None, None) => unreachable!(),
        };
    }

    async fn publish(&self, id: &str) -> Result<(), PublishError> {
        self.broker.publisher().publish(message(id), DEADLINE).await
    }

    async fn consume(&self, prefetch: u16) -> Box<dyn Consumer> {
        self.broker.consume(LANE, prefetch).await
    }
}

async fn embedded(sqlite: &Sqlite) -> Arc<dyn Broker> {
    EmbeddedBroker::start(
        sqlite.clone(),
        Arc::new(WallClock),
        EmbeddedSettings::default(),
        metrics(),
    )
    .await
    .unwrap()
}

async fn link(url: &str) -> Arc<Link> {
    let link = start(url);
    until(20, "the link is connected", || async {
        (link.state() == LinkState::Up).then_some(())
    })
    .await;
    link
}

fn start(url: &str) -> Arc<Link> {
    watchword_tests::tls();
    Link::start(
        RabbitMqSettings::new(SecretString::new(url.into())),
        Arc::new(WallClock),
        metrics(),
    )
    .unwrap()
}

async fn next(consumer: &mut Box<dyn Consumer>) -> Received {
    let received = tokio::time::timeout(Duration::from_secs(20), consumer.receive()).await;
    received
        .expect("a message in time")
        .expect("an open broker")
}

fn rung(name: &str) -> Rung {
    *Ladder::STANDARD
        .rungs()
        .iter()
        .find(|rung| rung.name == name)
        .unwrap()
}

fn id(received: &Received) -> &str {
    received.id.as_deref().unwrap()
}

// ---- the suite for both

async fn a_message_arrives_as_it_was_sent(world: World) {
    world.publish("m1").await.unwrap();
    let mut consumer = world.consume(10).await;
    let received = next(&mut consumer).await;
    assert_eq!(id(&received), "m1");
    assert_eq!(received.body, "body of m1");
    assert_eq!((received.retries, received.redelivered), (0, false));
    assert_eq!(received.traceparent, TraceParent::parse(TRACE));
    received.ack().await.unwrap();
}

async fn what_is_acknowledged_is_gone_and_what_is_not_comes_again(mut world: World) {
    for name in ["kept", "done"] {
        world.publish(name).await.unwrap();
    }
    let mut consumer = world.consume(10).await;
    let (first, second) = (next(&mut consumer).await, next(&mut consumer).await);
    for received in [first, second] {
        if id(&received) == "done" {
            received.ack().await.unwrap();
        }
    }
    drop(consumer);
    world.reopened().await;
    world.publish("last").await.unwrap();
    let mut consumer = world.consume(10).await;
    let again = next(&mut consumer).await;
    assert_eq!((id(&again), again.redelivered), ("kept", true));
    again.ack().await.unwrap();
    assert_eq!(id(&next(&mut consumer).await), "last");
}

async fn a_requeued_message_comes_back_at_once(world: World) {
    world.publish("m1").await.unwrap();
    let mut consumer = world.consume(10).await;
    next(&mut consumer).await.requeue().await.unwrap();
    let again = next(&mut consumer).await;
    assert_eq!((id(&again), again.retries), ("m1", 0));
}

async fn a_wait_lasts_its_time_and_holds_no_other_up(world: World) {
    let mut consumer = world.consume(10).await;
    for (name, wait) in [("long", "45s"), ("short", "1s")] {
        world.publish(name).await.unwrap();
        let received = next(&mut consumer).await;
        assert_eq!(id(&received), name);
        received.retry(rung(wait)).await.unwrap();
    }
    let begun = Instant::now();
    let back = next(&mut consumer).await;
    assert_eq!(
        (id(&back), back.retries, back.body.as_ref()),
        ("short", 1, &b"body of short"[..])
    );
    assert!(
        begun.elapsed() >= Duration::from_millis(900),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(back.traceparent, TraceParent::parse(TRACE));
    back.ack().await.unwrap();
}

async fn a_parked_message_leaves_the_lane(world: World) {
    for name in ["bad", "good"] {
        world.publish(name).await.unwrap();
    }
    let mut consumer = world.consume(1).await;
    next(&mut consumer)
        .await
        .dead_letter(DeadLetterReason::BrokenSeal)
        .await
        .unwrap();
    let good = next(&mut consumer).await;
    assert_eq!(id(&good), "good");
    good.ack().await.unwrap();
    let note = Outbound {
        route: Route::Parked(Lane::Requests, DeadLetterReason::BadData),
        ..message("note")
    };
    world
        .broker
        .publisher()
        .publish(note, DEADLINE)
        .await
        .unwrap();
}

/// Listing dead-lettered messages changes nothing; one is replayed, one is discarded.
async fn parked_messages_are_looked_at_replayed_and_dropped(world: World) {
    let mut consumer = world.consume(3).await;
    for name in ["one", "two", "three"] {
        world.publish(name).await.unwrap();
        next(&mut consumer)
            .await
            .dead_letter(DeadLetterReason::BrokenSeal)
            .await
            .unwrap();
    }
    let parked = || async {
        // RabbitMQ lists a requeued message only after a moment.
        let names = until(10, "the dead-lettered messages can be listed", || async {
            let look = world.broker.parked(LANE, 10).await.unwrap();
            let names: Vec<_> = look
                .messages()
                .iter()
                .map(|message| (message.id.clone().unwrap(), message.reason.clone()))
                .collect();
            look.close().await.unwrap();
            (!names.is_empty()).then_some(names)
        });
        names.await
    };
    for _ in 0..3 {
        let seen = parked().await;
        let names: Vec<_> = seen.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["one", "two", "three"]);
        assert!(seen.iter().all(|(_, reason)| reason == "broken_seal"));
    }
    let mut look = world.broker.parked(LANE, 10).await.unwrap();
    look.replay(1).await.unwrap();
    assert!(look.replay(9).await.is_err());
    look.discard(2).await.unwrap();
    look.close().await.unwrap();
    // The embedded consumer finds replayed messages at its next poll; a publish triggers one.
    world.publish("four").await.unwrap();
    let (first, second) = (next(&mut consumer).await, next(&mut consumer).await);
    let mut back = [id(&first), id(&second)];
    back.sort_unstable();
    assert_eq!(back, ["four", "two"]);
    assert_eq!(parked().await.len(), 1);
}

async fn no_more_are_handed_out_than_the_prefetch(world: World) {
    for number in 0..20 {
        world.publish(&format!("m{number}")).await.unwrap();
    }
    let mut consumer = world.consume(5).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(next(&mut consumer).await);
    }
    assert!(
        tokio::time::timeout(Duration::from_millis(500), consumer.receive())
            .await
            .is_err(),
        "a sixth came"
    );
    held.pop().unwrap().ack().await.unwrap();
    next(&mut consumer).await;
}

async fn two_consumers_share_without_duplicates(world: World) {
    let published = join_all((0..1_000).map(|number| {
        let publisher = world.broker.publisher();
        async move {
            publisher
                .publish(message(&format!("m{number}")), Duration::from_secs(20))
                .await
        }
    }));
    assert!(published.await.iter().all(Result::is_ok));
    let (mut one, mut two) = (world.consume(20).await, world.consume(20).await);
    let mut seen = HashSet::new();
    while seen.len() < 1_000 {
        let received = tokio::select! {
            received = one.receive() => received,
            received = two.receive() => received,
        };
        let received = received.unwrap();
        assert!(
            seen.insert(id(&received).to_owned()),
            "{} came twice",
            id(&received)
        );
        received.ack().await.unwrap();
    }
}

async fn a_cancelled_receive_loses_nothing(world: World) {
    let mut consumer = world.consume(4).await;
    let publisher = world.broker.publisher();
    let mut seen = HashSet::new();
    for number in 0..50 {
        publisher
            .publish(message(&format!("m{number}")), DEADLINE)
            .await
            .unwrap();
        for _ in 0..10 {
            tokio::select! {
                biased;
                () = tokio::task::yield_now() => {}
                received = consumer.receive() => {
                    let received = received.unwrap();
                    seen.insert(id(&received).to_owned());
                    received.ack().await.unwrap();
                }
            }
        }
    }
    while seen.len() < 50 {
        let received = next(&mut consumer).await;
        seen.insert(id(&received).to_owned());
        received.ack().await.unwrap();
    }
}

async fn stopping_hands_back_what_was_not_handed_out(world: World) {
    for number in 0..10 {
        world.publish(&format!("m{number}")).await.unwrap();
    }
    let mut consumer = world.consume(10).await;
    let held = next(&mut consumer).await;
    consumer.stop().await;
    let mut other = world.consume(10).await;
    let mut seen = HashSet::from([id(&held).to_owned()]);
    while seen.len() < 10 {
        let received = next(&mut other).await;
        seen.insert(id(&received).to_owned());
        received.ack().await.unwrap();
    }
    held.ack().await.unwrap();
}

/// Expired messages have a queue of their own, so more messages wait for the reader than its
/// channel holds.
async fn stopping_waits_for_no_reader(world: World) {
    const EACH: usize = 20;
    let publisher = world.broker.publisher();
    for nth in 0..EACH {
        for (name, ttl) in [("late", 0), ("fresh", 600_000)] {
            let message = Outbound {
                ttl: Some(Duration::from_millis(ttl)),
                ..message(&format!("{name} {nth}"))
            };
            publisher.publish(message, DEADLINE).await.unwrap();
        }
    }
    let mut consumer = world.consume(1).await;
    // Time to fill the consumer's channel, from which nothing is read.
    tokio::time::sleep(Duration::from_secs(1)).await;
    tokio::time::timeout(Duration::from_secs(5), consumer.stop())
        .await
        .expect("an end");
    let mut other = world.consume(1).await;
    let mut seen = HashSet::new();
    while seen.len() < 2 * EACH {
        let received = next(&mut other).await;
        seen.insert(id(&received).to_owned());
        received.ack().await.unwrap();
    }
}

async fn an_event_without_a_listener_is_no_failure(world: World) {
    let event = Outbound {
        route: Route::Event("delivery.updated.test".into()),
        ..message("e1")
    };
    world
        .broker
        .publisher()
        .publish(event, DEADLINE)
        .await
        .unwrap();
}

async fn after_the_end_nothing_is_published_or_settled(world: World) {
    world.publish("m1").await.unwrap();
    let mut consumer = world.consume(1).await;
    let held = next(&mut consumer).await;
    world.broker.close().await;
    assert!(held.ack().await.is_err());
    assert_eq!(world.publish("m2").await, Err(PublishError::Unavailable));
    assert!(
        tokio::time::timeout(Duration::from_secs(5), consumer.receive())
            .await
            .unwrap()
            .is_none()
    );
}

/// Expired messages are delivered too, but a fresh one does not wait for them. A process that
/// starts later gets the rest.
async fn what_is_late_holds_up_nothing(mut world: World) {
    const LATE: usize = 200;
    let publisher = world.broker.publisher();
    let of = |id: &str, ttl| Outbound {
        ttl: Some(Duration::from_millis(ttl)),
        ..message(id)
    };
    let late = (0..LATE).map(|nth| publisher.publish(of(&format!("late {nth}"), 100), DEADLINE));
    for published in join_all(late).await {
        published.unwrap();
    }
    // The messages expire after 100 ms.
    tokio::time::sleep(Duration::from_millis(300)).await;
    publisher
        .publish(of("fresh", 600_000), DEADLINE)
        .await
        .unwrap();
    let mut consumer = world.consume(8).await;
    let mut held = Vec::new();
    while held.last().is_none_or(|received| id(received) != "fresh") {
        held.push(next(&mut consumer).await);
    }
    assert!(held.len() <= 8 + 32, "behind {}", held.len() - 1);
    let mut ids: HashSet<_> = held
        .iter()
        .map(|received| id(received).to_owned())
        .collect();
    for received in held {
        received.ack().await.unwrap();
    }
    drop((consumer, publisher));
    world.reopened().await;
    let mut consumer = world.consume(8).await;
    while ids.len() <= LATE {
        let received = next(&mut consumer).await;
        // The acknowledgement may have been lost with the link; a redelivery is then correct.
        let is_again = received.redelivered && id(&received) == "fresh";
        assert!(
            is_again || id(&received).starts_with("late "),
            "{received:?}"
        );
        ids.insert(id(&received).to_owned());
        received.ack().await.unwrap();
    }
}

/// A message that every worker dies of is dead-lettered at the delivery limit, expired or not.
async fn what_is_handed_out_too_often_is_parked(world: World) {
    for (name, ttl) in [("poison", None), ("late poison", Some(Duration::ZERO))] {
        let message = Outbound {
            ttl,
            ..message(name)
        };
        let publisher = world.broker.publisher();
        publisher.publish(message, DEADLINE).await.unwrap();
    }
    let mut consumer = world.consume(1).await;
    let mut handed_out = 0;
    let parked = async {
        loop {
            let received = next(&mut consumer).await;
            handed_out += 1;
            received.requeue().await.unwrap();
        }
    };
    let seen = until(20, "both are dead-lettered", || async {
        let look = world.broker.parked(LANE, 10).await.unwrap();
        (look.messages().len() == 2).then_some(())
    });
    tokio::select! { () = parked => {}, () = seen => {} }
    assert!((40..=44).contains(&handed_out), "{handed_out}");
}

/// Orders that expired after a retry do not delay fresh ones either.
async fn what_is_late_after_a_retry_holds_up_nothing(world: World) {
    const LATE: usize = 40;
    let publisher = world.broker.publisher();
    let of = |id: &str, ttl| Outbound {
        ttl: Some(Duration::from_millis(ttl)),
        ..message(id)
    };
    let mut consumer = world.consume(64).await;
    let mut held = Vec::new();
    for nth in 0..LATE {
        let id = format!("late {nth}");
        publisher.publish(of(&id, 4_000), DEADLINE).await.unwrap();
        held.push(next(&mut consumer).await);
    }
    for received in held {
        received.retry(rung("1s")).await.unwrap();
    }
    consumer.stop().await;
    drop(consumer);
    // Longer than the retry delay and the deadline of 4 s.
    tokio::time::sleep(Duration::from_secs(6)).await;
    publisher
        .publish(of("fresh", 600_000), DEADLINE)
        .await
        .unwrap();
    let mut consumer = world.consume(8).await;
    let mut held = Vec::new();
    while held.last().is_none_or(|received| id(received) != "fresh") {
        held.push(next(&mut consumer).await);
    }
    assert_eq!(held.last().unwrap().late, None);
    assert!(held.len() <= 8 + 32, "behind {}", held.len() - 1);
    let mut ids = HashSet::new();
    while ids.len() <= LATE {
        let received = match held.pop() {
            Some(received) => received,
            None => next(&mut consumer).await,
        };
        let is_late = id(&received) != "fresh";
        assert_eq!(received.late.is_some(), is_late, "{received:?}");
        assert!(!is_late || received.late == Some(Late::Expired));
        assert_eq!(received.retries, u32::from(is_late), "{received:?}");
        ids.insert(id(&received).to_owned());
        received.ack().await.unwrap();
    }
}

/// A request contains a recipient in clear: at its delivery limit it goes to a consumer and is not
/// dead-lettered whole.
async fn a_request_at_its_delivery_limit_is_handed_out(mut world: World) {
    let request = Outbound {
        route: Route::Lane(Lane::Requests),
        ..message("request")
    };
    let publisher = world.broker.publisher();
    publisher.publish(request, DEADLINE).await.unwrap();
    let mut consumer = world.broker.consume(Lane::Requests, 1).await;
    let mut handed_out = 0;
    let received = loop {
        let received = next(&mut consumer).await;
        handed_out += 1;
        if received.late.is_some() {
            break received;
        }
        received.requeue().await.unwrap();
    };
    assert_eq!(received.late, Some(Late::DeliveryLimit));
    assert!((20..=22).contains(&handed_out), "{handed_out}");
    assert_eq!(received.body, "body of request");
    assert!(received.is_held());
    assert!(
        received
            .dead_letter(DeadLetterReason::BadData)
            .await
            .is_err()
    );
    drop((consumer, publisher));
    world.reopened().await;
    let mut consumer = world.broker.consume(Lane::Requests, 1).await;
    let again = next(&mut consumer).await;
    assert!(again.retry(rung("1s")).await.is_err());
    drop(consumer);
    world.reopened().await;
    let mut consumer = world.broker.consume(Lane::Requests, 1).await;
    next(&mut consumer).await.ack().await.unwrap();
    let look = world.broker.parked(Lane::Requests, 10).await.unwrap();
    assert!(look.messages().is_empty(), "{:?}", look.messages());
}

/// Generates one test per case and engine.
macro_rules! on_both {
    ($($case:ident),* $(,)?) => {
        mod rabbitmq { $(#[tokio::test] async fn $case() { super::$case(super::World::rabbitmq().await).await; })* }
        mod embedded { $(#[tokio::test] async fn $case() { super::$case(super::World::embedded().await).await; })* }
    };
}

on_both!(
    a_message_arrives_as_it_was_sent,
    what_is_acknowledged_is_gone_and_what_is_not_comes_again,
    a_requeued_message_comes_back_at_once,
    a_wait_lasts_its_time_and_holds_no_other_up,
    a_parked_message_leaves_the_lane,
    parked_messages_are_looked_at_replayed_and_dropped,
    no_more_are_handed_out_than_the_prefetch,
    two_consumers_share_without_duplicates,
    a_cancelled_receive_loses_nothing,
    stopping_hands_back_what_was_not_handed_out,
    stopping_waits_for_no_reader,
    an_event_without_a_listener_is_no_failure,
    after_the_end_nothing_is_published_or_settled,
    what_is_late_holds_up_nothing,
    what_is_handed_out_too_often_is_parked,
    what_is_late_after_a_retry_holds_up_nothing,
    a_request_at_its_delivery_limit_is_handed_out,
);

// ---- the embedded queue alone

/// Keeps the file's writer busy for so long. Returns once it is busy, with a handle that completes
/// at the end.
async fn hold_writer(sqlite: &Sqlite, seconds: u64) -> JoinSet<()> {
    let (begins, begun) = tokio::sync::oneshot::channel();
    let sqlite = sqlite.clone();
    let mut busy = JoinSet::new();
    busy.spawn(async move {
        let hold = move |_: &_| {
            let _ = begins.send(());
            std::thread::sleep(Duration::from_secs(seconds));
            Ok(())
        };
        let _ = sqlite.write(hold).await;
    });
    begun.await.unwrap();
    busy
}

/// A publish and a settlement whose callers gave up are committed later. The length that bounds the
/// queue follows the content of the file.
#[tokio::test]
async fn lengths_follow_what_was_committed() {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = Sqlite::open(&folder.path().join("queue.db"), &EMBEDDED_MIGRATIONS).unwrap();
    let settings = EmbeddedSettings {
        max_length: 3,
        ..EmbeddedSettings::default()
    };
    let (clock, registry) = (
        Arc::new(WallClock),
        watchword_metrics::prometheus::Registry::new(),
    );
    let metrics = BrokerMetrics::register(&registry).unwrap();
    let broker = EmbeddedBroker::start(sqlite.clone(), clock, settings, metrics);
    let broker = broker.await.unwrap();
    let publisher = broker.publisher();
    let publish = async |id: &str| publisher.publish(message(id), DEADLINE).await;
    publish("m1").await.unwrap();
    let mut consumer: Box<dyn Consumer> = broker.consume(LANE, 1).await;
    let held = next(&mut consumer).await;
    // Each of these publishes gives up, and is committed when the writer is free.
    let busy = hold_writer(&sqlite, 1).await;
    for id in ["m2", "m3"] {
        let deadline = Duration::from_millis(50);
        let published = publisher.publish(message(id), deadline).await;
        assert_eq!(published, Err(PublishError::Unconfirmed));
    }
    busy.join_all().await;
    // The queue's metrics are updated every 5 s, which also corrects the length.
    let looked_at = async |ready: f64| {
        until(15, "the queue was read", || async {
            let families = registry.gather();
            let queued = families
                .iter()
                .find(|family| family.name() == "watchword_queue_messages")?;
            let mut gauges = queued.get_metric().iter();
            let gauge = gauges.find(|gauge| {
                let labels = gauge.get_label().iter().map(LabelPair::value);
                labels.eq(["sms", "ready"])
            })?;
            (gauge.get_gauge().get_value().to_bits() == ready.to_bits()).then_some(())
        })
        .await;
    };
    looked_at(2.0).await;
    assert_eq!(publish("more").await, Err(PublishError::Rejected));
    // The settlement of a held message gives up after 5 s, and is committed later.
    let busy = hold_writer(&sqlite, 6).await;
    assert!(held.ack().await.is_err());
    busy.join_all().await;
    looked_at(1.0).await;
    assert_eq!(publish("room").await, Ok(()));
}

// ---- RabbitMQ's faults

/// Publishers choose the headers of their messages. Headers longer than a frame must neither end
/// the link nor block the messages behind them.
#[tokio::test]
async fn long_headers_of_others_end_no_link() {
    let server = RabbitMq::shared().await;
    let link = link(&server.url()).await;
    let (url, properties) = (server.url(), lapin::ConnectionProperties::default());
    let other = lapin::Connection::connect(&url, properties).await.unwrap();
    let channel = other.create_channel().await.unwrap();
    let mut headers = lapin::types::FieldTable::default();
    for name in ["traceparent", "x-watchword-retries", "x-other"] {
        let long = lapin::types::AMQPValue::LongString("0".repeat(35_000).into());
        headers.insert(name.into(), long);
    }
    let body = vec![b'x'; 60_000];
    channel
        .basic_publish(
            LANE.exchange().into(),
            LANE.as_str().into(),
            lapin::options::BasicPublishOptions::default(),
            &body,
            lapin::BasicProperties::default().with_headers(headers),
        )
        .await
        .unwrap();
    until(10, "the message is in the queue", || async {
        (server.messages("watchword.sms") == 1).then_some(())
    })
    .await;
    let published = link.publisher().publish(message("after"), DEADLINE).await;
    assert_eq!(published, Ok(()));
    let mut consumer = link.consume(LANE, 1).await;
    let first = next(&mut consumer).await;
    assert!(first.body == body && !first.redelivered, "{first:?}");
    first.retry(rung("1s")).await.unwrap();
    let second = next(&mut consumer).await;
    assert_eq!((id(&second), second.redelivered), ("after", false));
    second.ack().await.unwrap();
    let again = next(&mut consumer).await;
    assert!(again.body == body && !again.redelivered, "{again:?}");
    assert_eq!((again.traceparent, again.retries), (None, 1));
    again
        .dead_letter(DeadLetterReason::NotAnEvent)
        .await
        .unwrap();
    until(10, "the order is dead-lettered", || async {
        (server.messages("watchword.sms.parked") == 1).then_some(())
    })
    .await;
}

/// Exactly those pipelined publishes fail that reach no queue. lapin attaches a returned message to
/// the next confirm, regardless of the publish that it belongs to.
#[tokio::test]
async fn l1_a_return_belongs_to_its_own_publish() {
    let server = RabbitMq::shared().await;
    let link = link(&server.url()).await;
    let publisher = link.publisher();
    // Requests reach no queue any more; orders do.
    unbind(&server).await;
    let publishes = (0..400).map(|number| {
        let lane = if number % 4 == 3 {
            Lane::Requests
        } else {
            LANE
        };
        let message = Outbound {
            route: Route::Lane(lane),
            ..message(&format!("m{number}"))
        };
        let publisher = publisher.clone();
        async move {
            (
                lane,
                publisher.publish(message, Duration::from_secs(10)).await,
            )
        }
    });
    let mut unroutable = 0;
    for (lane, published) in join_all(publishes).await {
        match lane {
            LANE => assert_eq!(published, Ok(())),
            // The binding may exist again: a returned message makes the link declare its topology.
            _ => unroutable += usize::from(published == Err(PublishError::Unroutable)),
        }
    }
    assert!(unroutable > 0);
    until(15, "the orders are in their queue", || async {
        (server.messages("watchword.sms") == 300).then_some(())
    })
    .await;
    until(10, "the binding is back", || async {
        let message = Outbound {
            route: Route::Lane(Lane::Requests),
            ..message("again")
        };
        publisher.publish(message, DEADLINE).await.ok()
    })
    .await;
    let kept = (100 - unroutable + 1) as u64;
    until(15, "the other messages are in their queues", || async {
        (server.messages("watchword.requests") == kept).then_some(())
    })
    .await;
}

async fn unbind(server: &RabbitMq) {
    let binding = "e/watchword.requests/q/watchword.requests/requests";
    let path = server.path("bindings", binding);
    server
        .call(reqwest::Method::DELETE, &path, None)
        .await
        .expect("an unbound queue");
}

/// The link recovers from an outage without a restart, and all confirmed messages are there. The
/// fault table has an outage of 12 minutes, longer than the client's own retry budget.
#[tokio::test]
async fn l2_a_killed_broker_comes_back_with_everything_and_without_a_restart() {
    let mut server = RabbitMq::start().await;
    let link = link(&server.url()).await;
    let publisher = link.publisher();
    let mut consumer = link.consume(Lane::Send(Channel::Email), 10).await;
    for number in 0..200 {
        publisher
            .publish(message(&format!("m{number}")), DEADLINE)
            .await
            .unwrap();
    }
    server.kill();
    until(10, "the loss is noticed", || async {
        (link.state() == LinkState::Down).then_some(())
    })
    .await;
    let begun = Instant::now();
    assert_eq!(
        publisher.publish(message("lost"), DEADLINE).await,
        Err(PublishError::Unavailable)
    );
    assert!(
        begun.elapsed() < Duration::from_millis(200),
        "a refusal is fast"
    );
    tokio::time::sleep(Duration::from_secs(8)).await;
    server.launch().await;
    until(15, "the link is connected again", || async {
        (link.state() == LinkState::Up).then_some(())
    })
    .await;
    until(15, "all messages are there", || async {
        (server.messages("watchword.sms") == 200).then_some(())
    })
    .await;
    let email = Outbound {
        route: Route::Lane(Lane::Send(Channel::Email)),
        ..message("after")
    };
    publisher.publish(email, DEADLINE).await.unwrap();
    let received = next(&mut consumer).await;
    assert_eq!(id(&received), "after");
    received.ack().await.unwrap();
}

/// A peer that accepts the connection and sends nothing does not block the link forever.
#[tokio::test]
async fn l3_a_silent_peer_is_given_up() {
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let link = start(&format!(
        "amqp://127.0.0.1:{}/%2f",
        silent.local_addr().unwrap().port()
    ));
    // The link connects again after it has given up the first attempt.
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(
            tokio::time::timeout(Duration::from_secs(15), silent.accept())
                .await
                .expect("another attempt")
                .unwrap(),
        );
    }
    assert_eq!(link.state(), LinkState::Down);
    assert_eq!(
        link.publisher().publish(message("m"), DEADLINE).await,
        Err(PublishError::Unavailable)
    );
}

/// Under an alarm publishes are refused at once while consumers keep acknowledging. The link
/// recovers when the alarm ends.
#[tokio::test]
async fn l4_an_alarm_refuses_publishes_and_nothing_else() {
    let server = RabbitMq::start().await;
    let link = link(&server.url()).await;
    let publisher = link.publisher();
    let mut consumer = link.consume(LANE, 10).await;
    for number in 0..20 {
        publisher
            .publish(message(&format!("m{number}")), DEADLINE)
            .await
            .unwrap();
    }
    let first = next(&mut consumer).await;
    server.disk_alarm(true);
    // The broker blocks the connection only when the first message reaches it.
    let begun = Instant::now();
    let refused = publisher
        .publish(message("x"), Duration::from_millis(1_500))
        .await;
    assert_eq!(refused, Err(PublishError::Unconfirmed));
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    until(5, "the alarm is noticed", || async {
        (link.state() == LinkState::Blocked).then_some(())
    })
    .await;
    let begun = Instant::now();
    assert_eq!(
        publisher.publish(message("y"), DEADLINE).await,
        Err(PublishError::Blocked)
    );
    assert!(begun.elapsed() < Duration::from_millis(200));
    first.ack().await.unwrap();
    for _ in 0..19 {
        next(&mut consumer).await.ack().await.unwrap();
    }
    server.disk_alarm(false);
    until(20, "the alarm is over", || async {
        (link.state() == LinkState::Up).then_some(())
    })
    .await;
    publisher.publish(message("z"), DEADLINE).await.unwrap();
}

/// lapin logs the bodies of returned messages; none may reach our log, at any level.
#[tokio::test]
async fn l5_no_body_reaches_the_log() {
    use tracing_subscriber::layer::SubscriberExt;
    let log = tempfile::NamedTempFile::new().unwrap();
    let file = Arc::new(log.reopen().unwrap());
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(file)
        .with_ansi(false);
    let filter = watchword_chassis::telemetry::filter(watchword_chassis::config::LogLevel::Trace);
    let subscriber = tracing_subscriber::registry().with(filter).with(layer);
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let server = RabbitMq::shared().await;
    let link = link(&server.url()).await;
    unbind(&server).await;
    let secret = Outbound {
        route: Route::Lane(Lane::Requests),
        body: Bytes::from_static(b"canary-918273"),
        ..message("m1")
    };
    assert_eq!(
        link.publisher().publish(secret, DEADLINE).await,
        Err(PublishError::Unroutable)
    );
    let text = std::fs::read_to_string(log.path()).unwrap();
    assert!(
        text.contains("connected to RabbitMQ"),
        "the log is being written"
    );
    assert!(
        !text.contains("canary-918273") && !text.contains("57, 49, 56, 50, 55, 51"),
        "{text}"
    );
}

/// A half-open connection is detected within two heartbeats.
#[tokio::test]
async fn l6_a_dead_link_is_noticed() {
    let server = RabbitMq::shared().await;
    let proxy = TcpProxy::start(server.port()).await;
    let url = server.url().replace(
        &format!(":{}/", server.port()),
        &format!(":{}/", proxy.port()),
    );
    let link = link(&url).await;
    proxy.hold(true);
    let begun = Instant::now();
    until(30, "the loss is noticed", || async {
        (link.state() == LinkState::Down).then_some(())
    })
    .await;
    assert!(
        begun.elapsed() < Duration::from_secs(25),
        "{:?}",
        begun.elapsed()
    );
    proxy.hold(false);
    until(30, "the link is connected again", || async {
        (link.state() == LinkState::Up).then_some(())
    })
    .await;
}

/// TLS to a peer without TLS is an error, and does not panic about a missing crypto provider.
#[tokio::test]
async fn l7_tls_that_cannot_stand_is_an_error() {
    let server = RabbitMq::shared().await;
    let link = start(&server.url().replace("amqp://", "amqps://"));
    // Time for more than one attempt.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(link.state(), LinkState::Down);
    assert_eq!(
        link.publisher().publish(message("m"), DEADLINE).await,
        Err(PublishError::Unavailable)
    );
}

/// Calls to a suspended broker fail within their deadline.
#[tokio::test]
async fn a_paused_broker_gives_an_answer_in_time() {
    let server = RabbitMq::start().await;
    let link = link(&server.url()).await;
    // Publish once on each channel first: a channel that is not open yet could not be written to.
    for id in ["warm", "warmer"] {
        let published = link.publisher().publish(message(id), DEADLINE).await;
        assert_eq!(published, Ok(()));
    }
    server.pause(true);
    let begun = Instant::now();
    let published = link
        .publisher()
        .publish(message("m"), Duration::from_millis(1_500))
        .await;
    assert_eq!(published, Err(PublishError::Unconfirmed));
    assert!(begun.elapsed() < Duration::from_secs(2));
    server.pause(false);
    until(60, "publishes work again", || async {
        link.publisher().publish(message("n"), DEADLINE).await.ok()
    })
    .await;
}

/// A full queue refuses publishes; no message is dropped silently.
#[tokio::test]
async fn a_full_queue_refuses() {
    let server = RabbitMq::shared().await;
    let mut settings = RabbitMqSettings::new(SecretString::new(server.url()));
    for queue in &mut settings.topology.queues {
        if queue.name == "watchword.sms" {
            queue
                .arguments
                .insert("x-max-length", watchword_broker::Argument::Number(10));
        }
    }
    let link = Link::start(settings, Arc::new(WallClock), metrics()).unwrap();
    until(20, "the link is connected", || async {
        (link.state() == LinkState::Up).then_some(())
    })
    .await;
    let publisher = link.publisher();
    let mut refused = false;
    for number in 0..100 {
        match publisher
            .publish(message(&format!("m{number}")), DEADLINE)
            .await
        {
            Ok(()) => assert!(!refused),
            Err(error) => {
                assert_eq!(error, PublishError::Rejected);
                refused = true;
                break;
            }
        }
    }
    assert!(refused);
}

/// An existing queue with other arguments is reported by name, and the link does not redeclare it.
#[tokio::test]
async fn a_mismatch_names_the_queue() {
    let server = RabbitMq::shared().await;
    let settings = RabbitMqSettings::new(SecretString::new(server.url()));
    let mut other = Topology::standard();
    other.queues.retain(|queue| queue.name == "watchword.email");
    other.queues[0]
        .arguments
        .insert("x-max-length", watchword_broker::Argument::Number(7));
    other.bindings.clear();
    other.apply(&settings).await.unwrap();
    let error = Topology::standard()
        .apply(&settings)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("queue watchword.email exists with other arguments"),
        "{error}"
    );
    let link = start(&server.url());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(link.state(), LinkState::Down);
}

/// Each service has its own request queue, of which an issuer holds a bounded number. Queues are
/// added and removed with the configuration.
#[tokio::test]
async fn request_queues_follow_the_services() {
    let server = RabbitMq::start().await;
    watchword_tests::tls();
    let with = |services: &[&str]| {
        let names = services.iter().map(|name| name.parse().unwrap());
        RabbitMqSettings::new(SecretString::new(server.url())).with_request_queues(names.collect())
    };
    let link = Link::start(with(&["shop"]), Arc::new(WallClock), metrics()).unwrap();
    until(20, "the link is connected", || async {
        (link.state() == LinkState::Up).then_some(())
    })
    .await;
    let properties = lapin::ConnectionProperties::default();
    let other = lapin::Connection::connect(&server.url(), properties)
        .await
        .unwrap();
    let channel = other.create_channel().await.unwrap();
    let confirms = lapin::options::ConfirmSelectOptions::default();
    channel.confirm_select(confirms).await.unwrap();
    let publish = async |key: &str| {
        let options = lapin::options::BasicPublishOptions {
            mandatory: true,
            ..Default::default()
        };
        let properties = lapin::BasicProperties::default();
        let published = channel.basic_publish(
            "watchword.requests".into(),
            key.into(),
            options,
            b"x",
            properties,
        );
        let confirm = published.await.unwrap().await.unwrap();
        matches!(confirm, lapin::Confirmation::Ack(None))
    };
    let mut consumer: Box<dyn Consumer> = link.consume(Lane::Requests, 4).await;
    for _ in 0..100 {
        assert!(publish("requests.shop").await);
    }
    let mut held = Vec::new();
    for _ in 0..16 {
        held.push(next(&mut consumer).await);
    }
    assert!(publish("requests").await);
    let shared = next(&mut consumer).await;
    assert_eq!(shared.service, None, "a flood of one service delays others");
    let shop = "shop".parse().unwrap();
    assert!(
        held.iter()
            .all(|received| received.service.as_ref() == Some(&shop))
    );

    link.redirect(with(&["portal"])).unwrap();
    until(10, "the added queue accepts requests", || async {
        publish("requests.portal").await.then_some(())
    })
    .await;
    let portal = next(&mut consumer).await;
    assert_eq!(portal.service, Some("portal".parse().unwrap()));
    for received in held {
        // The consumer of the removed service has ended, and its channel with it, so this
        // acknowledgement may fail.
        let _ = received.ack().await;
    }
    let left = tokio::time::timeout(Duration::from_millis(500), consumer.receive()).await;
    assert!(left.is_err(), "a removed service is still read");
}
