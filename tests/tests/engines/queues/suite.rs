//! The conformance suite of both queues: publish, settle, wait, dead-letter, stop.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use watchword_broker::{DeadLetterReason, Outbound, PublishError, Route};
use watchword_core::TraceParent;
use watchword_events::Lane;
use watchword_tests::until;

use super::{DEADLINE, LANE, TRACE, World, id, message, next, rung};

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
);
