//! Processes that are stopped or killed under load.

use watchword_tests::{Pipeline, until};

use super::{World, code_of, delivered, recipient, world};

/// Sends requests while `during` interferes with the processes. Afterwards every accepted message
/// must be delivered, with at most `spare` duplicates.
async fn survives<F: AsyncFnOnce(&mut Pipeline)>(world: &mut World, spare: usize, during: F) {
    const COUNT: usize = 400;
    let mut accepted = Vec::new();
    let mut during = Some(during);
    for number in 0..COUNT {
        if number == COUNT / 3
            && let Some(during) = during.take()
        {
            during(&mut world.pipeline).await;
        }
        let (channel, to) = recipient(number);
        let answer = until(30, "the request is accepted", || async {
            let answer = world.pipeline.ask("issuer", channel, &to).await;
            assert!(
                answer.status == 202 || answer.status == 503,
                "{:?}",
                answer.body
            );
            (answer.status == 202).then_some(answer)
        })
        .await;
        accepted.push((to, answer.text("id").to_owned()));
    }
    until(90, "every accepted message arrived", || async {
        let messages = delivered(world);
        accepted
            .iter()
            .all(|(to, _)| messages.contains_key(to))
            .then_some(())
    })
    .await;
    let messages = delivered(world);
    let repeats = messages.values().map(Vec::len).sum::<usize>() - messages.len();
    assert!(repeats <= spare, "{repeats} repeats");
    for (to, id) in &accepted {
        let code = code_of(&messages[to][0]);
        let approved = world.pipeline.check("verifier", id, &code).await;
        assert_eq!(approved.body["valid"], true, "{to}");
    }
    until(60, "the queues are empty", || async {
        let full = |(queue, count): &(String, u64)| queue.starts_with("watchword.") && *count > 0;
        (!world.rabbitmq.all_messages().iter().any(full)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_is_told_to_stop_finishes_and_loses_nothing() {
    let mut world = world().await;
    survives(&mut world, 0, async |pipeline| {
        for (name, roles) in [
            ("sms-1", "sms-worker"),
            ("email-1", "email-worker"),
            ("verifier", "verifier"),
        ] {
            let role = pipeline.processes.get_mut(name).unwrap();
            role.process.signal("TERM");
            let ended = role.process.wait(30);
            let log = role.process.output();
            assert!(ended.success(), "{name}: {log}");
            let last = log.lines().last().unwrap_or_default();
            assert!(last.ends_with("stopped"), "{name}: {log}");
            let stopping = log.split(": stopping").last().unwrap_or_default();
            assert!(!stopping.contains("ERROR"), "{name}: {log}");
            pipeline.processes.remove(name);
            pipeline.start(name, &[roles]).await;
        }
    })
    .await;
    assert_eq!(
        world
            .pipeline
            .total("watchword_possible_duplicates_total", &[])
            .await,
        0
    );
    let issuer = world.pipeline.processes.get_mut("issuer").unwrap();
    issuer.process.signal("TERM");
    assert!(issuer.process.wait(30).success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_killed_loses_nothing() {
    let mut world = world().await;
    // Two workers of each channel hold at most 256 messages each; with this load only a few are in
    // flight.
    survives(&mut world, 20, async |pipeline| {
        for name in ["sms-1", "email-1"] {
            let role = pipeline.processes.get_mut(name).unwrap();
            role.process.signal("KILL");
            role.process.wait(10);
            pipeline.processes.remove(name);
        }
    })
    .await;
}
