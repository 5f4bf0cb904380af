//! The embedded queue alone.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use watchword_broker::{
    Broker, BrokerMetrics, Consumer, EMBEDDED_MIGRATIONS, EmbeddedBroker, EmbeddedSettings,
    PublishError,
};
use watchword_metrics::prometheus::proto::LabelPair;
use watchword_storage::Sqlite;
use watchword_tests::until;

use super::{DEADLINE, LANE, WallClock, message, next};

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
