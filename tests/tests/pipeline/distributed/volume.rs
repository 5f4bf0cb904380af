//! 2,000 verifications under load: each is delivered and approved once.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;
use watchword_tests::until;

use super::{Portal, code_of, delivered, recipient, world};

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
