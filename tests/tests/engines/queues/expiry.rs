//! The conformance suite of both queues: expired messages and the delivery limit.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use watchword_broker::{DeadLetterReason, Late, Outbound, Route};
use watchword_events::Lane;
use watchword_tests::until;

use super::{DEADLINE, LANE, World, id, message, next, rung};

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

on_both!(
    what_is_late_holds_up_nothing,
    what_is_handed_out_too_often_is_parked,
    what_is_late_after_a_retry_holds_up_nothing,
    a_request_at_its_delivery_limit_is_handed_out,
);
