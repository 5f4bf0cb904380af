//! The conformance suite of both queues. For `RabbitMQ` also a test for each known fault of the
//! client library (the tests `l1` to `l7`) and of the broker.

/// Generates one test per case and engine.
macro_rules! on_both {
    ($($case:ident),* $(,)?) => {
        mod rabbitmq { $(#[tokio::test] async fn $case() { super::$case(super::World::rabbitmq().await).await; })* }
        mod embedded { $(#[tokio::test] async fn $case() { super::$case(super::World::embedded().await).await; })* }
    };
}

mod broker;
mod client;
mod expiry;
mod file;
mod suite;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use watchword_broker::{
    Broker, BrokerMetrics, Consumer, EMBEDDED_MIGRATIONS, EmbeddedBroker, EmbeddedSettings,
    LinkState, Outbound, PublishError, RabbitMq as Link, RabbitMqSettings, Received, Route,
};
use watchword_core::{Channel, Clock, Ladder, Rung, SecretString, Timestamp, TraceParent};
use watchword_events::Lane;
use watchword_storage::Sqlite;
use watchword_tests::{RabbitMq, until};

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
