//! The known faults of RabbitMQ's client library.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use watchword_broker::{Broker, DeadLetterReason, LinkState, Outbound, PublishError, Route};
use watchword_core::Channel;
use watchword_events::Lane;
use watchword_tests::{RabbitMq, TcpProxy, until};

use super::{DEADLINE, LANE, id, link, message, next, rung, start};

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
