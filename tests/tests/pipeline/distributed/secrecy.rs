//! No code and no recipient is in any log, metric, queue or store.

use watchword_tests::{RabbitMq, until};

use super::{code_of, delivered, launch, world_on};

/// No code and no recipient appears anywhere but in the message, even at log level `trace`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_any_log_metric_queue_or_store() {
    let mut world = world_on(RabbitMq::shared().await, "trace").await;
    let (phone, mail) = ("+4915157700991", "canary.person@example.org");
    let mut secrets = vec![
        phone.trim_start_matches('+').to_owned(),
        mail.to_owned(),
        "canary.person".to_owned(),
    ];
    // With the workers stopped the orders stay in their queues, where the test can read them.
    for name in ["sms-1", "sms-2", "email-1", "email-2"] {
        world
            .pipeline
            .processes
            .get_mut(name)
            .unwrap()
            .process
            .signal("TERM");
        world
            .pipeline
            .processes
            .get_mut(name)
            .unwrap()
            .process
            .wait(30);
        world.pipeline.processes.remove(name);
    }
    let sms = world.pipeline.ask("issuer", "sms", phone).await;
    let email = world.pipeline.ask("issuer", "email", mail).await;
    let mut seen = format!("{:?} {:?}", sms.body, email.body);
    for queue in ["watchword.sms", "watchword.email"] {
        let messages = world.rabbitmq.peek(queue).await;
        assert_eq!(messages.as_array().map(Vec::len), Some(1), "{queue}");
        seen.push_str(&messages.to_string());
    }
    for (name, roles) in [("sms-1", "sms-worker"), ("email-1", "email-worker")] {
        launch(&mut world.pipeline, name, &[roles]);
        world.pipeline.ready(name).await;
    }
    until(30, "both arrived", || async {
        (delivered(&world).len() == 2).then_some(())
    })
    .await;
    let messages = delivered(&world);
    let codes = [(sms, phone), (email, mail)]
        .map(|(answer, to)| (answer.text("id").to_owned(), code_of(&messages[to][0])));
    secrets.extend(codes.iter().map(|(_, code)| code.clone()));
    // A damaged order is dead-lettered and invalid requests are refused, without any of their
    // content in a log or error.
    let answer = world
        .pipeline
        .ask("issuer", "sms", &format!("{phone} "))
        .await;
    seen.push_str(&answer.body.to_string());
    for (id, code) in &codes {
        world.pipeline.check("verifier", id, "000000").await;
        let answer = world.pipeline.check("verifier", id, code).await;
        assert_eq!(answer.body["valid"], true);
        seen.push_str(&world.pipeline.status("verifier", id).await.body.to_string());
    }
    let names: Vec<_> = world.pipeline.processes.keys().cloned().collect();
    for name in &names {
        for (series, value) in world.pipeline.metrics(name).await {
            seen.extend([series, value.to_string()]);
        }
    }
    for queue in [
        "watchword.requests.parked",
        "watchword.sms.parked",
        "watchword.email.parked",
    ] {
        seen.push_str(&world.rabbitmq.peek(queue).await.to_string());
    }
    world.redis.command(&["BGREWRITEAOF"]).await;
    let logs = world.pipeline.logs();
    assert!(
        logs.contains("TRACE") || logs.contains("DEBUG") || logs.contains("attempt"),
        "the logs are being written"
    );
    seen.push_str(&logs);
    seen.push_str(&world.rabbitmq.logs());
    // The store's files are binary and are searched as bytes.
    for secret in &secrets {
        assert!(!seen.contains(secret.as_str()), "{secret} was seen");
        for file in world.redis.files() {
            let found = file
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} is in the store's files");
        }
    }
}
