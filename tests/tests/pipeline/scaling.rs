//! Workers start and stop. More workers drain a backlog faster: where the provider's latency is the
//! limit, three need about a third of the time of one, and no message is sent twice. A worker that
//! shuts down completes its calls and begins none.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use watchword_tests::load::{Mailbox, SmsGateway};
use watchword_tests::proxy::Flow;
use watchword_tests::{Pipeline, RabbitMq, RedisServer, Settings, TcpProxy, until};

/// Messages in the queue when the workers start.
const BACKLOG: usize = 240;
/// Delay of the connection to the gateway in each direction: 40 messages a second for a worker with
/// 8 calls at once.
const DELAY_MS: u64 = 100;

fn number(run: usize, place: usize) -> String {
    format!("+49151{run}{place:07}")
}

/// Returns the seconds in which `workers` hand over the backlog.
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
    // Let each worker fill its prefetch.
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

/// Peers, a mailbox behind a proxy, and an issuer. Workers make `concurrency` calls at once.
struct World {
    pipeline: Pipeline,
    mailbox: Arc<Mailbox>,
    wire: TcpProxy,
    _gateway: SmsGateway,
    _peers: (RabbitMq, RedisServer),
}

async fn world(concurrency: u16) -> World {
    let (rabbitmq, redis) = (RabbitMq::start().await, RedisServer::start().await);
    let mailbox = Arc::<Mailbox>::default();
    let gateway = SmsGateway::start(mailbox.clone()).await;
    let wire = TcpProxy::start(gateway.port()).await;
    let mut settings = Settings::distributed(&rabbitmq.url(), &redis.url());
    settings.providers = format!(
        "[sms]\nconcurrency = {concurrency}\n{}",
        SmsGateway::config(wire.port())
    );
    settings.service = "[services.test.limits]\nservice_per_minute = 100000\n".into();
    let mut pipeline = Pipeline::configure(&settings);
    pipeline.start("issuer", &["issuer"]).await;
    World {
        pipeline,
        mailbox,
        wire,
        _gateway: gateway,
        _peers: (rabbitmq, redis),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stops_ends_its_call_and_begins_none() {
    let mut world = world(1).await;
    let flow = |wire: &TcpProxy, flow| wire.set(|weather| weather.back = flow);
    flow(&world.wire, Flow::Held);
    for place in 0..3 {
        let answer = world.pipeline.ask("issuer", "sms", &number(0, place)).await;
        assert_eq!(answer.status, reqwest::StatusCode::ACCEPTED);
    }
    world.pipeline.start("sms-1", &["sms-worker"]).await;
    let handed_over = |mailbox: &Mailbox| {
        let places = 0..3;
        places
            .map(|place| mailbox.of(&number(0, place)).len())
            .collect::<Vec<_>>()
    };
    until(
        20,
        "one call is in flight, two wait for its permit",
        || async {
            let metrics = world.pipeline.metrics("sms-1").await;
            let held = metrics["watchword_deliveries_in_flight{channel=\"sms\"}"];
            let called: usize = handed_over(&world.mailbox).iter().sum();
            (held > 2.5 && called == 1).then_some(())
        },
    )
    .await;
    let mut stopping = world.pipeline.processes.remove("sms-1").unwrap();
    stopping.process.signal("TERM");
    until(10, "the process is shutting down", || async {
        stopping.process.output().contains("stopping").then_some(())
    })
    .await;
    flow(&world.wire, Flow::Free);
    let status = tokio::task::block_in_place(|| stopping.process.wait(10));
    assert!(status.success(), "{}", stopping.process.output());
    assert_eq!(handed_over(&world.mailbox).iter().sum::<usize>(), 1);

    world.pipeline.start("sms-2", &["sms-worker"]).await;
    until(20, "another worker has the remaining messages", || async {
        (handed_over(&world.mailbox) == [1, 1, 1]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_workers_drain_a_backlog_three_times_as_fast() {
    let mut world = world(8).await;
    let (pipeline, mailbox, wire) = (&mut world.pipeline, &world.mailbox, &world.wire);
    let one = drained(pipeline, 1, 1, mailbox, wire).await;
    let three = drained(pipeline, 3, 3, mailbox, wire).await;
    eprintln!("one worker {one:.1} s, three {three:.1} s");
    // The last message takes a whole call, however many workers there are, so the factor stays
    // below 3.
    assert!(
        one / three > 2.4,
        "one worker {one:.1} s, three {three:.1} s"
    );
}
