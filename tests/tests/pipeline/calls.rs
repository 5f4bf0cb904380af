//! The number of store calls and broker messages per code. Timings are noisy, but these counts are
//! exact, so this test detects every additional call.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use tokio::time::timeout;
use watchword_tests::load::{Mailbox, SmsGateway};
use watchword_tests::{Pipeline, Process, RabbitMq, RedisServer, Settings, until};

const CODES: u32 = 200;
/// Open, count against the recipient, confirm, claim, record the outcome, check.
const STORE_CALLS: f64 = 6.0;
/// The order and the event of its outcome.
const MESSAGES: f64 = 2.0;
/// Calls that do not depend on the number of codes: quota batches of the service and liveness
/// checks.
const BESIDE: f64 = 0.15;

/// Requests a code, waits for the message and checks it.
async fn live(pipeline: &Pipeline, mailbox: &Mailbox, n: u32) {
    let to = format!("+4915112{n:06}");
    let answer = pipeline.ask("all", "sms", &to).await;
    let id = answer.text("id").to_owned();
    let arrived = timeout(Duration::from_secs(10), mailbox.first(&to)).await;
    let checked = pipeline.check("all", &id, &arrived.unwrap().code).await;
    assert_eq!(checked.body["valid"], true, "{:?}", checked.body);
}

/// Returns the number of messages that clients have published, once the broker's counter is stable.
async fn published(rabbitmq: &RabbitMq) -> f64 {
    let mut before = -1.0;
    loop {
        let overview = rabbitmq.call(Method::GET, "overview", None).await.unwrap();
        let now = overview["message_stats"]["publish"].as_f64().unwrap_or(0.0);
        if (now - before).abs() < f64::EPSILON {
            return now;
        }
        before = now;
        // The broker collects its counters every 5 s.
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_takes_six_calls_of_the_store_and_two_messages() {
    let (rabbitmq, redis) = (RabbitMq::shared().await, RedisServer::start().await);
    let mailbox = Arc::<Mailbox>::default();
    let gateway = SmsGateway::start(mailbox.clone()).await;
    let mut settings = Settings::distributed(&rabbitmq.url(), &redis.url());
    settings.providers = SmsGateway::config(gateway.port());
    settings.service = "[services.test.limits]\nservice_per_minute = 100000\n".to_owned();
    let mut pipeline = Pipeline::configure(&settings);
    let roles = ["issuer", "verifier", "sms-worker"];
    pipeline.start("all", &roles).await;
    // The first code also loads the scripts and opens the connections.
    live(&pipeline, &mailbox, 0).await;
    let messages = published(&rabbitmq).await;

    let mut command = Command::new("redis-cli");
    command.args(["-u", &redis.url(), "MONITOR"]);
    let monitor = Process::start(command, &redis.folder().join("monitor"));
    until(10, "the monitor listens", || async {
        monitor.output().starts_with("OK").then_some(())
    })
    .await;
    for n in 1..=CODES {
        live(&pipeline, &mailbox, n).await;
    }
    until(10, "all outcomes are recorded", || async {
        let ended = pipeline.total("watchword_deliveries_ended_total", &["accepted"]);
        (ended.await == u64::from(CODES) + 1).then_some(())
    })
    .await;
    let watched = monitor.output();
    let each = f64::from(CODES);

    // Calls made by a script are marked with `lua` and are no round trips.
    let calls = watched.lines().filter(|line| !line.contains(" lua] "));
    let calls = f64::from(u32::try_from(calls.count() - 1).unwrap()) / each;
    assert!(
        (STORE_CALLS..STORE_CALLS + BESIDE).contains(&calls),
        "{calls} calls of the store a code"
    );
    let messages = (published(&rabbitmq).await - messages) / each;
    assert!(
        (messages - MESSAGES).abs() < f64::EPSILON,
        "{messages} messages a code"
    );
}
