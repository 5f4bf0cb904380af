//! Faults of the broker: suspended, full, or with queues of other arguments.

use std::sync::Arc;
use std::time::{Duration, Instant};

use watchword_broker::{
    Broker, Consumer, LinkState, PublishError, RabbitMq as Link, RabbitMqSettings, Topology,
};
use watchword_core::SecretString;
use watchword_events::Lane;
use watchword_tests::{RabbitMq, until};

use super::{DEADLINE, WallClock, link, message, metrics, next, start};

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
    // Until its queue is bound, the broker returns the requests of an added service, or the shared
    // queue takes them.
    let begun = Instant::now();
    let portal = loop {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "no queue of its own"
        );
        if !publish("requests.portal").await {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        }
        let received = next(&mut consumer).await;
        if received.service.is_some() {
            break received;
        }
        received.ack().await.unwrap();
    };
    assert_eq!(portal.service, Some("portal".parse().unwrap()));
    for received in held {
        // The consumer of the removed service has ended, and its channel with it, so this
        // acknowledgement may fail.
        let _ = received.ack().await;
    }
    let left = tokio::time::timeout(Duration::from_millis(500), consumer.receive()).await;
    assert!(left.is_err(), "a removed service is still read");
}
