//! A peer is away, or there is none.

use serde_json::json;
use watchword_tests::{Pipeline, RedisServer, Settings, until};

use super::{code_of, delivered, world_alone};

/// A request while a peer is away gets a fast 503, and readiness shows it. The same request
/// afterwards continues the same verification.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_peer_is_said_at_once_and_nothing_is_approved_meanwhile() {
    let world = world_alone().await;
    let pipeline = &world.pipeline;
    let to = "+4915112345678";
    let id = pipeline
        .ask("issuer", "sms", to)
        .await
        .text("id")
        .to_owned();
    let ready = async |name: &str| {
        let (http, _) = pipeline.raw(name);
        let url = format!("http://127.0.0.1:{}/readyz", pipeline.processes[name].admin);
        watchword_tests::pipeline::Answer::of(http.get(url).send().await.unwrap()).await
    };
    let refused = async |to: &str| {
        let begun = std::time::Instant::now();
        let answer = pipeline.ask("issuer", "sms", to).await;
        assert_eq!(answer.status, 503, "{:?}", answer.body);
        assert!(answer.headers.contains_key("retry-after"));
        assert!(
            begun.elapsed() < std::time::Duration::from_millis(2_500),
            "{:?}",
            begun.elapsed()
        );
        answer
    };

    // The disk alarm makes RabbitMQ refuse publishes.
    world.rabbitmq.disk_alarm(true);
    let unconfirmed = "+4915112345679";
    assert_eq!(
        refused(unconfirmed).await.text("code"),
        "broker_unavailable"
    );
    assert_eq!(
        refused(unconfirmed).await.text("code"),
        "broker_unavailable"
    );
    let report = until(10, "the issuer is not ready", || async {
        let report = ready("issuer").await;
        (report.status == 503).then_some(report)
    })
    .await;
    assert_eq!(report.body["dependencies"]["rabbitmq"], "down");
    assert_eq!(ready("verifier").await.status, 200, "it needs no broker");
    world.rabbitmq.disk_alarm(false);
    let accepted = until(30, "requests are accepted again", || async {
        let answer = pipeline.ask("issuer", "sms", unconfirmed).await;
        (answer.status == 202).then_some(answer)
    })
    .await;
    assert_eq!(
        accepted.body["sends"], 1,
        "the repeat continued the same message"
    );
    until(20, "the message", || async {
        delivered(&world).contains_key(unconfirmed).then_some(())
    })
    .await;

    // While Redis is suspended no code is approved, and the answer still comes in time.
    world.redis.pause(true);
    let code = code_of(&delivered(&world)[to][0]);
    let answer = pipeline.check("verifier", &id, &code).await;
    assert_eq!(
        (answer.status.as_u16(), answer.text("code")),
        (503, "store_unavailable")
    );
    assert_eq!(
        refused("+4915112345670").await.text("code"),
        "store_unavailable"
    );
    until(10, "the verifier is not ready", || async {
        (ready("verifier").await.status == 503).then_some(())
    })
    .await;
    world.redis.pause(false);
    until(10, "the verifier is ready", || async {
        (ready("verifier").await.status == 200).then_some(())
    })
    .await;
    // The check that timed out may have run after all. A check with another id is then refused as
    // used.
    let answer = pipeline.check("verifier", &id, &code).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        pipeline.status("verifier", &id).await.text("status"),
        "approved"
    );
    let series = pipeline.metrics("verifier").await;
    assert!((series["watchword_dependency_up{dependency=\"redis\"}"] - 1.0).abs() < f64::EPSILON);
}

/// A process with the role verifier alone starts without a broker and exports none of its metrics.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes_are_checked_where_there_is_no_broker() {
    let redis = RedisServer::start().await;
    let mut settings = Settings::distributed("amqp://nobody@127.0.0.1:1/", &redis.url());
    settings.providers = "[sms.providers.inbox]\nkind = \"inbox\"\n".into();
    let mut pipeline = Pipeline::configure(&settings);
    pipeline.start("verifier", &["verifier"]).await;
    let answer = pipeline.check("verifier", &"a".repeat(32), "123456").await;
    assert_eq!(
        (answer.status.as_u16(), &answer.body["valid"]),
        (200, &json!(false)),
        "{:?}",
        answer.body
    );
    let series = pipeline.metrics("verifier").await;
    let of_the_broker = |name: &&String| name.contains("broker") || name.contains("rabbitmq");
    assert_eq!(series.keys().find(of_the_broker), None);
}
