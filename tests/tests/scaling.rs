//! More workers drain a backlog faster: where the provider's time is the limit, three take a third
//! of what one takes, and nobody gets a message twice.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use watchword_tests::load::{Mailbox, SmsGateway};
use watchword_tests::proxy::Flow;
use watchword_tests::{Pipeline, RabbitMq, RedisServer, Settings, TcpProxy, until};

/// Messages that wait when the workers come.
const BACKLOG: usize = 240;
/// What the wire to the gateway takes each way: 40 messages a second for each worker of 8 calls.
const DELAY_MS: u64 = 100;

fn number(run: usize, place: usize) -> String {
    format!("+49151{run}{place:07}")
}

/// Seconds in which `workers` hand the backlog over.
async fn drained(
    pipeline: &mut Pipeline,
    run: usize,
    workers: usize,
    mailbox: &Mailbox,
    wire: &TcpProxy,
) -> f64 {
    for place in 0..BACKLOG {
        let answer = pipeline.ask("issuer", "sms", &number(run, place)).await;
        assert_eq!(answer.status, reqwest::StatusCode::ACCEPTED);
    }
    let flow = |flow| wire.set(|weather| (weather.forth, weather.back) = (flow, flow));
    flow(Flow::Held);
    let names: Vec<_> = (0..workers)
        .map(|place| format!("sms-{run}-{place}"))
        .collect();
    for name in &names {
        pipeline.start(name, &["sms-worker"]).await;
    }
    // Each holds all it can.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let begun = Instant::now();
    flow(Flow::Slow(DELAY_MS));
    until(60, "all are handed over", || async {
        (0..BACKLOG)
            .all(|place| !mailbox.of(&number(run, place)).is_empty())
            .then_some(())
    })
    .await;
    let took = begun.elapsed().as_secs_f64();
    for name in &names {
        let mut role = pipeline.processes.remove(name).unwrap();
        role.process.signal("TERM");
        tokio::task::block_in_place(|| role.process.wait(30));
    }
    for place in 0..BACKLOG {
        assert_eq!(mailbox.of(&number(run, place)).len(), 1, "once each");
    }
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_workers_drain_a_backlog_three_times_as_fast() {
    let (rabbitmq, redis) = (RabbitMq::start().await, RedisServer::start().await);
    let mailbox = Arc::<Mailbox>::default();
    let gateway = SmsGateway::start(mailbox.clone()).await;
    let wire = TcpProxy::start(gateway.port()).await;
    let mut settings = Settings::distributed(&rabbitmq.url(), &redis.url());
    settings.providers = format!(
        "[sms]\nconcurrency = 8\n{}",
        SmsGateway::config(wire.port())
    );
    settings.service = "[services.test.limits]\nservice_per_minute = 100000\n".to_owned();
    let mut pipeline = Pipeline::configure(&settings);
    pipeline.start("issuer", &["issuer"]).await;
    let one = drained(&mut pipeline, 1, 1, &mailbox, &wire).await;
    let three = drained(&mut pipeline, 3, 3, &mailbox, &wire).await;
    eprintln!("one worker {one:.1} s, three {three:.1} s");
    // The last message of all is a whole call long, however many workers there are.
    assert!(
        one / three > 2.4,
        "one worker {one:.1} s, three {three:.1} s"
    );
}
