//! The commands that use the API, on both engines.

use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use reqwest::Method;
use serde_json::{Value, json};
use watchword_tests::pipeline::ADMIN_KEY;
use watchword_tests::{Pipeline, RabbitMq, RedisServer, Settings, until};

use super::{NUMBER, SUBJECT, command, is_problem, with_keys};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_works_on_a_running_process_and_without_one() {
    let mut pipeline = with_keys("").await;
    let body = json!({ "channel": "sms", "to": NUMBER, "subject": SUBJECT });
    let opened = pipeline.post("all", "/v1/verifications", body).await;
    let id = opened.text("id").to_owned();
    until(20, "the delivery is accepted", || async {
        let status = pipeline.status("all", &id).await.body;
        (status["deliveries"][0]["outcome"] == "accepted").then_some(())
    })
    .await;
    let both: &[(&[&str], &str)] = &[
        (&["find", &id], "The SMS was accepted by inbox"),
        (&["find", "--service", "test", "--recipient", NUMBER], &id),
        (&["find", "--service", "test", "--subject", SUBJECT], &id),
        (&["dead-letters", "list"], "0 dead letters"),
        (&["dead-letters", "discard", "--all"], "0 discarded"),
        (&["audit"], "accepted      1"),
        (&["unlock", "test", SUBJECT], "it was not locked"),
        (&["audit-trail"], "records"),
    ];
    let running: &[(&[&str], &str)] = &[
        (
            &["status"],
            "ready: issuer, verifier, sms-worker, email-worker",
        ),
        (&["providers"], "inbox"),
        (
            &[
                "providers",
                "circuit",
                "inbox",
                "closed",
                "--for-seconds",
                "5",
                "--channel",
                "email",
            ],
            "by hand until",
        ),
        (
            &[
                "providers",
                "circuit",
                "inbox",
                "automatic",
                "--channel",
                "sms",
            ],
            "this worker only",
        ),
        (&["cancel", &id, "--why", "a test"], "canceled"),
    ];
    for (arguments, word) in both.iter().chain(running) {
        let (is_fine, told) = command(&pipeline, ADMIN_KEY, arguments);
        assert!(is_fine && told.contains(word), "{arguments:?}: {told}");
        if *arguments != ["audit-trail"] {
            let with_json = [arguments, &["--json"][..]].concat();
            if arguments.first() == Some(&"providers") && arguments.len() > 1 {
                continue;
            }
            let (_, told) = command(&pipeline, ADMIN_KEY, &with_json);
            let parsed: Result<Value, _> = serde_json::from_str(&told);
            assert!(parsed.is_ok(), "{arguments:?}: {told}");
        }
    }
    let (_, kept) = command(&pipeline, ADMIN_KEY, &["audit-trail"]);
    for word in ["ops", "unlock", "circuit", "cancel", "dead_letters_discard"] {
        assert!(kept.contains(word), "{kept}");
    }

    let mut role = pipeline.processes.remove("all").unwrap();
    role.process.signal("TERM");
    assert!(role.process.wait(30).success());
    let direct = |arguments: &[&str]| {
        let mut command = pipeline.command();
        let listen = format!("127.0.0.1:{}", role.admin);
        command
            .env("WATCHWORD_ADMIN__LISTEN", listen)
            .args(arguments);
        let output = tokio::task::block_in_place(|| command.output()).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), text + &errors)
    };
    for (arguments, word) in both
        .iter()
        .filter(|(arguments, _)| !arguments.contains(&NUMBER))
    {
        // The verification was canceled in the meantime.
        let word = word.replace("The SMS was accepted by inbox", "canceled");
        let (is_fine, told) = direct(arguments);
        assert!(is_fine && told.contains(&word), "{arguments:?}: {told}");
    }
    for arguments in [&["status"][..], &["providers"], &["resend", &id]] {
        let (is_fine, told) = direct(arguments);
        assert!(
            !is_fine && told.contains("--admin-url"),
            "{arguments:?}: {told}"
        );
    }
    let (is_fine, told) = direct(&["cancel", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]);
    assert!(!is_fine, "{told}");
    let line = told
        .lines()
        .find(|line| line.contains("watchword::admin_audit"));
    let target = "verification aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    assert!(line.is_some_and(|line| line.contains(target)), "{told}");
    let (_, kept) = direct(&["audit-trail"]);
    assert!(kept.contains("(command line)"), "{kept}");
    assert!(kept.contains(target), "{kept}");
    // A change that cannot be recorded in the audit trail is reported as an error, even if it was
    // made.
    let file = pipeline.folder().join("watchword.db");
    let connection = watchword_storage::rusqlite::Connection::open(file).unwrap();
    connection.execute("DROP TABLE admin_trail", []).unwrap();
    drop(connection);
    let (is_fine, told) = direct(&["unlock", "test", SUBJECT]);
    assert!(
        !is_fine && told.contains("audit trail cannot be written"),
        "{told}"
    );
    for secret in [NUMBER, SUBJECT, ADMIN_KEY] {
        assert!(!kept.contains(secret), "{secret}");
    }
}

/// Publishes bytes that are not an event into the queue of SMS orders, and a request of a user
/// without a service.
async fn publish_garbage(rabbitmq: &RabbitMq) {
    let url = rabbitmq.url();
    let connection = Connection::connect(&url, ConnectionProperties::default());
    let connection = connection.await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let request = json!({
        "specversion": "1.0", "id": "r1", "source": "/test", "type": "watchword.otp.requested.v1",
        "datacontenttype": "application/json", "time": "2026-01-01T00:00:00Z",
        "data": { "channel": "sms", "to": NUMBER },
    });
    for (exchange, key, body) in [
        ("watchword.send", "sms", format!("garbage about {NUMBER}")),
        ("watchword.requests", "requests", request.to_string()),
    ] {
        let published = channel.basic_publish(
            exchange.into(),
            key.into(),
            BasicPublishOptions::default(),
            body.as_bytes(),
            BasicProperties::default().with_delivery_mode(2),
        );
        published.await.unwrap();
    }
    connection.close(200, "done".into()).await.unwrap();
}

/// Runs `watchword status` against the process `name`; returns the exit code and the output.
fn status_of(pipeline: &Pipeline, name: &str) -> (i32, String) {
    let mut command = pipeline.command();
    let listen = format!("127.0.0.1:{}", pipeline.processes[name].admin);
    command
        .env("WATCHWORD_ADMIN__LISTEN", listen)
        .env("WATCHWORD_ADMIN_KEY", ADMIN_KEY)
        .arg("status");
    let output = tokio::task::block_in_place(|| command.output()).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap(), text + &errors)
}

/// Each process of the distributed engine serves the operations of its roles, and names the role
/// that serves the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_process_of_the_distributed_engine_serves_its_part() {
    let (mut rabbitmq, redis) = tokio::join!(RabbitMq::start(), RedisServer::start());
    let mut settings = Settings::distributed(&rabbitmq.url(), &redis.url()).with_admin_keys();
    settings.providers = format!(
        "[sms.providers.inbox]\nkind = \"inbox\"\n[email.providers.inbox]\nkind = \"inbox\"\n{}",
        settings.providers
    );
    let mut pipeline = Pipeline::configure(&settings);
    for role in ["issuer", "verifier", "sms-worker"] {
        pipeline.launch(role, &[role]);
    }
    for role in ["issuer", "verifier", "sms-worker"] {
        pipeline.ready(role).await;
    }
    let body = json!({ "channel": "sms", "to": NUMBER, "subject": SUBJECT });
    let opened = pipeline.post("issuer", "/v1/verifications", body).await;
    let id = opened.text("id").to_owned();
    until(20, "the delivery is accepted", || async {
        let status = pipeline.status("verifier", &id).await.body;
        (status["deliveries"][0]["outcome"] == "accepted").then_some(())
    })
    .await;
    let post = async |name: &str, path: &str, body: Value| {
        let call = pipeline.admin(name, ADMIN_KEY, Method::POST, path, Some(body));
        call.await
    };
    for name in ["issuer", "verifier"] {
        for by in [
            json!({ "id": id }),
            json!({ "service": "test", "subject": SUBJECT }),
            json!({ "service": "test", "recipient": NUMBER }),
        ] {
            let found = post(name, "/verifications/find", by.clone()).await;
            assert_eq!(found.body["verifications"][0]["id"], id.as_str(), "{by}");
            let said = found.body["verifications"][0]["diagnosis"].to_string();
            assert!(said.contains("accepted by inbox"), "{said}");
        }
    }
    let found = post("sms-worker", "/verifications/find", json!({ "id": id })).await;
    assert_eq!(found.body["verifications"][0]["status"], "pending");
    let why = json!({ "reason": "a test" });
    let resend = format!("/verifications/{id}/resend");
    let cancel = format!("/verifications/{id}/cancel");
    let hold = json!({ "state": "automatic", "reason": "a test" });
    let unlock = json!({ "service": "test", "subject": "a", "reason": "a test" });
    let by_recipient = json!({ "service": "test", "recipient": NUMBER });
    for (name, path, body, role) in [
        (
            "sms-worker",
            "/verifications/find",
            by_recipient,
            "issuer or a verifier",
        ),
        ("sms-worker", "/unlock", unlock, "issuer or a verifier"),
        ("sms-worker", &cancel, why.clone(), "issuer or a verifier"),
        ("verifier", &resend, why.clone(), "an issuer"),
        ("sms-worker", &resend, why.clone(), "an issuer"),
        (
            "verifier",
            "/dead-letters/list",
            json!({}),
            "an issuer or a worker",
        ),
        ("verifier", "/audit", json!({}), "an issuer or a worker"),
        ("issuer", "/providers/inbox/circuit", hold, "sms-worker"),
    ] {
        let answer = post(name, path, body).await;
        is_problem(&answer, 409, "not_served_here");
        assert!(answer.text("detail").contains(role), "{:?}", answer.body);
    }
    let providers = pipeline.admin("sms-worker", ADMIN_KEY, Method::GET, "/providers", None);
    assert_eq!(providers.await.body["providers"][0]["channel"], "sms");

    publish_garbage(&rabbitmq).await;
    let list = async |name: &str| post(name, "/dead-letters/list", json!({})).await.body;
    let listed = until(20, "both are dead-lettered", || async {
        let listed = list("issuer").await;
        (listed["dead_letters"].as_array()?.len() == 2).then_some(listed)
    })
    .await;
    assert!(!listed.to_string().contains(&NUMBER[1..]), "{listed}");
    let of = |queue: &str, listed: &Value| {
        let letters = listed["dead_letters"].as_array().unwrap().clone();
        letters
            .into_iter()
            .find(|one| one["queue"] == queue)
            .unwrap()
    };
    assert_eq!(of("sms", &listed)["reason"], "not_an_event");
    assert_eq!(of("requests", &listed)["state"], "note");
    let all = json!({ "all": true, "reason": "a test" });
    let replayed = post("sms-worker", "/dead-letters/replay", all.clone())
        .await
        .body;
    // The replayed garbage was refused again and is back in the dead-letter queue.
    assert_eq!(
        (&replayed["done"], &replayed["notes"]),
        (&json!(1), &json!(1))
    );
    until(20, "the order is dead-lettered again", || async {
        let listed = list("issuer").await;
        (listed["dead_letters"].as_array()?.len() == 2).then_some(())
    })
    .await;
    let notes = json!({ "filter": { "queue": "requests" }, "all": true, "reason": "a test" });
    let discarded = post("issuer", "/dead-letters/discard", notes).await.body;
    assert_eq!(discarded["done"], 1);
    let direct = |arguments: &[&str]| {
        let mut command = pipeline.command();
        // Nothing listens at this address, so the command works on broker and store directly.
        command
            .env("WATCHWORD_ADMIN__LISTEN", "127.0.0.1:1")
            .args(arguments);
        let output = tokio::task::block_in_place(|| command.output()).unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), text + &errors)
    };
    let (_, told) = direct(&["dead-letters", "list"]);
    assert!(
        told.contains("1 dead letter") && told.contains("not_an_event"),
        "{told}"
    );
    // A record older than 90 days is not returned, and reading the trail deletes it.
    let old = json!({
        "at": "2020-01-01T00:00:00.000Z", "key": "ops", "action": "find", "target": "", "reason": "",
        "result": "ok",
    });
    let looks = "ww:{admin}:trail:looks";
    redis.command(&["RPUSH", looks, &old.to_string()]).await;
    let (_, told) = direct(&["audit-trail"]);
    assert!(
        told.contains("replay") && !told.contains("2020-01"),
        "{told}"
    );
    let (is_fine, told) = direct(&["find", "--service", "test", "--recipient", NUMBER]);
    assert!(is_fine && told.contains(&id), "{told}");
    let kept = redis.command(&["LRANGE", looks, "0", "-1"]).await;
    assert!(kept.contains("find") && !kept.contains("2020-01"), "{kept}");
    let (is_fine, told) = direct(&["audit"]);
    assert!(is_fine && told.contains("accepted      1"), "{told}");

    // While the broker is away the audit reports the ledger's half.
    rabbitmq.kill();
    let audited = post("issuer", "/audit", json!({})).await;
    assert_eq!(audited.status, 200, "{:?}", audited.body);
    assert_eq!(audited.body["dead_letters_read"], false);
    assert_eq!(audited.body["ended"]["accepted"], 1);
    // A half is no answer to whether a message is lost.
    let (is_fine, told) = direct(&["audit"]);
    assert!(
        !is_fine && told.contains("lost messages may be dead-lettered"),
        "{told}"
    );
    assert!(told.contains("error: the audit is incomplete"), "{told}");
    until(20, "the issuer has lost its link", || async {
        let status = pipeline.admin("issuer", ADMIN_KEY, Method::GET, "/status", None);
        let status = status.await.body;
        (status["dependencies"]["rabbitmq"] == false).then_some(())
    })
    .await;
    // Earlier figures of the queues are stale, so the status shows none.
    let (code, told) = status_of(&pipeline, "issuer");
    assert_eq!(code, 1, "{told}");
    for words in [
        "warning: the process has no link to the queues",
        "sms              -        -            -         -\n",
        "error: the process is not ready: rabbitmq is down",
    ] {
        assert!(told.contains(words), "{told}");
    }
    let answer = post("issuer", "/dead-letters/list", json!({})).await;
    is_problem(&answer, 503, "broker_unavailable");
    for secret in [&NUMBER[1..], SUBJECT] {
        assert!(!pipeline.logs().contains(secret), "{secret}");
        let kept = redis
            .command(&["LRANGE", "ww:{admin}:trail", "0", "-1"])
            .await;
        let looks = redis
            .command(&["LRANGE", "ww:{admin}:trail:looks", "0", "-1"])
            .await;
        assert!(
            looks.contains("find") && !kept.contains("\"find\""),
            "{looks}"
        );
        assert!(!looks.contains(secret), "{secret}");
        assert!(kept.contains("dead_letters_replay"), "{kept}");
        assert!(!kept.contains(secret), "{secret}");
    }
}
