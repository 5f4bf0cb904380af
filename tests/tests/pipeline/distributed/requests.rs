//! Requests by event, and the Python example.

use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::json;
use watchword_tests::until;

use super::{Portal, code_of, delivered, launch, request_document, world, world_alone};

/// Otherwise the broker would reach the delivery limit and dead-letter the whole request, with a
/// recipient in clear.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_cannot_be_read_is_not_parked_whole_while_nothing_can_be_published() {
    let mut world = world_alone().await;
    let portal = Portal::connect(&world.rabbitmq).await;
    let issuer = world.pipeline.processes.get_mut("issuer").unwrap();
    issuer.process.signal("TERM");
    assert!(issuer.process.wait(30).success());
    world.pipeline.processes.remove("issuer");
    let document = request_document("bad", "sms", "+4915112345678");
    let document = document.replace("\"channel\":", "\"ttl\":9,\"channel\":");
    portal.publish("bad", &document).await;
    until(10, "the request waits in the queue", || async {
        (world.rabbitmq.messages("watchword.requests") == 1).then_some(())
    })
    .await;
    world.rabbitmq.disk_alarm(true);
    launch(&mut world.pipeline, "issuer", &["issuer"]);
    // Long enough for 20 redeliveries, the delivery limit of the queue.
    tokio::time::sleep(std::time::Duration::from_secs(15)).await;
    world.rabbitmq.disk_alarm(false);
    until(
        30,
        "a note is dead-lettered and the request is gone",
        || async {
            let messages = |queue| world.rabbitmq.messages(queue);
            (messages("watchword.requests.parked") > 0 && messages("watchword.requests") == 0)
                .then_some(())
        },
    )
    .await;
    let parked = world.rabbitmq.peek("watchword.requests.parked").await;
    let parked = parked.to_string();
    assert!(
        parked.contains("request.parked") && !parked.contains("4915112345678"),
        "{parked}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_by_event_are_refused_repeated_and_parked_as_they_should() {
    let world = world().await;
    let mut portal = Portal::connect(&world.rabbitmq).await;
    // The same event three times opens one verification; each repeat gets the same answer.
    let document = request_document("same", "sms", "+4915112345678");
    for _ in 0..3 {
        portal.publish("same", &document).await;
    }
    let first = portal.answer().await;
    let id = first["data"]["verification_id"].clone();
    assert!(id.is_string(), "{first}");
    for _ in 0..2 {
        assert_eq!(portal.answer().await["data"]["verification_id"], id);
    }
    until(20, "the message", || async {
        (!delivered(&world).is_empty()).then_some(())
    })
    .await;
    // An invalid number is refused with the error code of the HTTP API.
    portal.request("wrong", "sms", "004915112345678").await;
    let refused = portal.answer().await;
    assert_eq!(
        (
            &refused["data"]["request_id"],
            &refused["data"]["refusal"]["code"]
        ),
        (&json!("wrong"), &json!("invalid_phone"))
    );
    assert!(refused["data"].get("verification_id").is_none());
    // Unreadable requests are dead-lettered without their content: not JSON, another event type,
    // unknown fields.
    let parked = [
        "{".to_owned(),
        document.replace("requested.v1", "requested.v9"),
        document.replace("\"channel\":", "\"ttl\":9,\"channel\":"),
        document.replace("\"1.0\"", "\"0.3\""),
        "[".repeat(30_000),
        "x".repeat(100_000),
    ];
    for (number, document) in parked.iter().enumerate() {
        portal.publish(&format!("bad{number}"), document).await;
    }
    // A user that no service lists in its `broker_users`.
    world.rabbitmq.add_user("mallory", "mallory-secret").await;
    let url = world.rabbitmq.url_of("mallory", "mallory-secret");
    let connection = Connection::connect(&url, ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let publish = async |user: Option<&str>| {
        let mut properties = BasicProperties::default().with_message_id("m".into());
        if let Some(user) = user {
            properties = properties.with_user_id(user.into());
        }
        let options = BasicPublishOptions::default();
        channel
            .basic_publish(
                "watchword.requests".into(),
                "requests".into(),
                options,
                document.as_bytes(),
                properties,
            )
            .await
    };
    publish(Some("mallory")).await.unwrap();
    publish(None).await.unwrap();
    let count = parked.len() as u64 + 2;
    // The issuer holds the request of an unknown user for 5 s here.
    until(25, "all are dead-lettered", || async {
        (world.rabbitmq.messages("watchword.requests.parked") == count).then_some(())
    })
    .await;
    // The broker itself refuses a message that names another user (validated user-id).
    publish(Some("portal")).await.unwrap();
    until(20, "the broker closed the channel", || async {
        (!channel.status().connected()).then_some(())
    })
    .await;
    let text = world
        .rabbitmq
        .peek("watchword.requests.parked")
        .await
        .to_string();
    assert!(
        text.contains("unknown_user") && !text.contains("4915112345678"),
        "{text}"
    );
    assert_eq!(delivered(&world).values().map(Vec::len).sum::<usize>(), 1);
    assert_eq!(
        world
            .pipeline
            .total("watchword_verifications_opened_total", &[])
            .await,
        1
    );
}

/// The Python example works as its first lines describe.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_example_asks_reads_and_checks() {
    use std::io::Write;
    let world = world().await;
    for user in ["portal", "portal-reader"] {
        world.rabbitmq.add_user(user, "portal-secret").await;
    }
    let python = std::env::var("WATCHWORD_PYTHON").unwrap_or_else(|_| "python3".into());
    let mut example = std::process::Command::new(python)
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../examples/auth_service.py"
        ))
        .args(["test", "email", "python@example.org"])
        .env("AMQP_URL", world.rabbitmq.url_of("portal", "portal-secret"))
        .env(
            "AMQP_READER_URL",
            world.rabbitmq.url_of("portal-reader", "portal-secret"),
        )
        .env("WATCHWORD_URL", world.pipeline.raw("verifier").1)
        .env("WATCHWORD_KEY", watchword_tests::pipeline::KEY)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3 with pika: tests/run installs it");
    let message = until(30, "the mail", || async {
        delivered(&world).remove("python@example.org")
    })
    .await;
    writeln!(example.stdin.take().unwrap(), "{}", code_of(&message[0])).unwrap();
    let output = example.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("approved"),
        "{text}"
    );
}
