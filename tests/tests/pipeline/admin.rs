//! The admin API on the embedded engine, through the binary: authorization, the operations that
//! work on a running process, the commands that use them, and the content of the audit trail and
//! the logs.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use reqwest::Method;
use serde_json::{Value, json};
use watchword_tests::pipeline::{ADMIN_KEY, Answer, VIEWER_KEY, admin_key};
use watchword_tests::{Pipeline, RabbitMq, RedisServer, Settings, until};

const NUMBER: &str = "+4915112345678";
const SUBJECT: &str = "canary-subject-77";

/// Every route: method, path, a valid body, and whether it changes something.
fn routes() -> Vec<(Method, &'static str, Option<Value>, bool)> {
    let id = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let resend = "/verifications/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/resend";
    let cancel = "/verifications/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/cancel";
    let why = json!({ "reason": "a test" });
    let unlock = json!({ "service": "test", "subject": "jane", "reason": "a test" });
    let change = json!({ "filter": {}, "all": true, "reason": "a test" });
    let hold = json!({ "channel": "sms", "state": "automatic", "reason": "a test" });
    let (get, post) = (Method::GET, Method::POST);
    vec![
        (
            post.clone(),
            "/verifications/find",
            Some(json!({ "id": id })),
            false,
        ),
        (post.clone(), resend, Some(why.clone()), true),
        (post.clone(), cancel, Some(why.clone()), true),
        (post.clone(), "/unlock", Some(unlock), true),
        (post.clone(), "/dead-letters/list", Some(json!({})), false),
        (
            post.clone(),
            "/dead-letters/show",
            Some(json!({ "id": id })),
            false,
        ),
        (
            post.clone(),
            "/dead-letters/replay",
            Some(change.clone()),
            true,
        ),
        (post.clone(), "/dead-letters/discard", Some(change), true),
        (post.clone(), "/audit", None, false),
        (get.clone(), "/providers", None, false),
        (post.clone(), "/providers/inbox/circuit", Some(hold), true),
        (get.clone(), "/configuration", None, false),
        (post, "/reload", Some(why), true),
        (get.clone(), "/status", None, false),
        (get, "/audit-trail", None, false),
    ]
}

async fn with_keys(service: &str) -> Pipeline {
    let mut settings = Settings::embedded().with_admin_keys();
    settings.service = service.into();
    let mut pipeline = Pipeline::configure(&settings);
    pipeline.start("all", &[]).await;
    pipeline
}

async fn post(pipeline: &Pipeline, path: &str, body: Value) -> Answer {
    let call = pipeline.admin("all", ADMIN_KEY, Method::POST, path, Some(body));
    call.await
}

async fn get(pipeline: &Pipeline, path: &str) -> Answer {
    pipeline
        .admin("all", ADMIN_KEY, Method::GET, path, None)
        .await
}

fn is_problem(answer: &Answer, status: u16, code: &str) {
    let found = (answer.status.as_u16(), answer.text("code"));
    assert_eq!(found, (status, code), "{:?}", answer.body);
}

/// Runs a command with an operator's key against the process `all`.
fn command(pipeline: &Pipeline, key: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = pipeline.command();
    let listen = format!("127.0.0.1:{}", pipeline.processes["all"].admin);
    command
        .env("WATCHWORD_ADMIN__LISTEN", listen)
        .args(arguments);
    if !key.is_empty() {
        command.env("WATCHWORD_ADMIN_KEY", key);
    }
    let output = tokio::task::block_in_place(|| command.output()).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), text + &errors)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_route_answers_without_a_key_and_a_viewer_changes_nothing() {
    let pipeline = with_keys("").await;
    for (method, path, body, changes) in routes() {
        for key in ["", "guessed", watchword_tests::pipeline::KEY] {
            let answer = pipeline.admin("all", key, method.clone(), path, body.clone());
            is_problem(&answer.await, 401, "unauthorized");
            // All unknown keys share one rate limit bucket; wait until it has refilled.
            tokio::time::sleep(Duration::from_millis(350)).await;
        }
        let viewed = pipeline.admin("all", VIEWER_KEY, method.clone(), path, body.clone());
        let viewed = viewed.await;
        if changes {
            is_problem(&viewed, 403, "forbidden");
        } else {
            assert!(
                viewed.status.is_success() || viewed.status == 404,
                "{path}: {:?}",
                viewed.body
            );
        }
        let done = pipeline.admin("all", ADMIN_KEY, method, path, body).await;
        assert!(
            done.status.is_success() || done.status == 404,
            "{path}: {:?}",
            done.body
        );
    }
    // The metrics route needs no key.
    let metrics = pipeline.metrics("all").await;
    let refused =
        metrics["watchword_admin_requests_total{action=\"none\",result=\"unauthorized\"}"];
    assert!((refused - 45.0).abs() < 0.1, "{refused}");
    for (method, path, status, code) in [
        (Method::GET, "/nowhere", 404, "not_found"),
        (Method::DELETE, "/unlock", 405, "method_not_allowed"),
    ] {
        let answer = pipeline.admin("all", ADMIN_KEY, method, path, None).await;
        is_problem(&answer, status, code);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_is_off_without_a_key_and_in_clear_beyond_loopback() {
    for (settings, listen, behind_tls, why) in [
        (
            Settings::embedded(),
            "127.0.0.1",
            false,
            "no admin key is configured",
        ),
        (
            Settings::embedded().with_admin_keys(),
            "0.0.0.0",
            false,
            "admin.behind_tls",
        ),
        (Settings::embedded().with_admin_keys(), "0.0.0.0", true, ""),
    ] {
        let mut pipeline = Pipeline::configure(&settings);
        let (_, port) = pipeline.ports("all");
        let own = vec![
            ("WATCHWORD_ADMIN__BEHIND_TLS".into(), behind_tls.to_string()),
            ("WATCHWORD_ADMIN__LISTEN".into(), format!("{listen}:{port}")),
        ];
        pipeline.own_variables.insert("all".into(), own);
        pipeline.launch("all", &[]);
        pipeline.ready("all").await;
        let answer = get(&pipeline, "/status").await;
        if why.is_empty() {
            assert_eq!(answer.status, 200, "{:?}", answer.body);
            continue;
        }
        is_problem(&answer, 404, "admin_off");
        assert!(answer.text("detail").contains(why), "{:?}", answer.body);
        let is_told = pipeline.logs().contains("the admin API is off");
        assert_eq!(is_told, listen != "127.0.0.1");
        // The running process owns the file, so the command cannot work on it directly and must say
        // so.
        let (is_fine, told) = command(&pipeline, ADMIN_KEY, &["audit"]);
        assert!(!is_fine && told.contains("is off: "), "{told}");
        // Metrics and health checks are still served.
        assert!(!pipeline.metrics("all").await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verification_is_found_with_its_history_and_diagnosis() {
    let pipeline = with_keys("").await;
    let body = json!({ "channel": "sms", "to": NUMBER, "subject": SUBJECT });
    let opened = pipeline.post("all", "/v1/verifications", body).await;
    let id = opened.text("id").to_owned();
    pipeline.ask("all", "email", "other@example.org").await;
    until(20, "the delivery is accepted", || async {
        let found = post(&pipeline, "/verifications/find", json!({ "id": id })).await;
        let said = found.body["verifications"][0]["diagnosis"]
            .as_str()?
            .to_owned();
        said.starts_with("The SMS was accepted by inbox at ")
            .then_some(())
    })
    .await;
    for by in [
        json!({ "id": id }),
        json!({ "service": "test", "subject": SUBJECT }),
        json!({ "service": "test", "recipient": NUMBER }),
    ] {
        let found = post(&pipeline, "/verifications/find", by.clone()).await;
        assert_eq!(found.status, 200, "{:?}", found.body);
        assert_eq!(found.body["truncated"], false);
        let list = found.body["verifications"].as_array().unwrap();
        assert_eq!(list.len(), 1, "{by}");
        assert_eq!(list[0]["id"], id.as_str());
        assert_eq!(list[0]["status"], "pending");
        assert_eq!(list[0]["checks_left"], 5);
        let timeline = list[0]["timeline"].to_string();
        assert!(timeline.contains("opened by test"), "{timeline}");
        assert!(timeline.contains("inbox: accepted"), "{timeline}");
        assert!(!found.body.to_string().contains(NUMBER));
    }
    // A mailbox without a subject is its own subject, and letter case does not matter.
    let by = json!({ "service": "test", "recipient": "Other@example.org" });
    let found = post(&pipeline, "/verifications/find", by).await;
    assert_eq!(found.body["verifications"][0]["channel"], "email");
    for by in [
        json!({ "service": "other", "recipient": NUMBER }),
        json!({ "service": "other", "subject": SUBJECT }),
        json!({ "service": "test", "recipient": "+4915112345679" }),
        json!({ "service": "test", "subject": "someone" }),
    ] {
        let found = post(&pipeline, "/verifications/find", by.clone()).await;
        assert_eq!(found.body["verifications"], json!([]), "{by}");
    }
    for (wrong, status, code) in [
        (json!({}), 422, "invalid_request"),
        (
            json!({ "id": id, "service": "test" }),
            422,
            "invalid_request",
        ),
        (json!({ "service": "test" }), 422, "invalid_request"),
        (
            json!({ "service": "test", "recipient": "12" }),
            422,
            "invalid_phone",
        ),
        (
            json!({ "service": "nobody", "subject": "a" }),
            404,
            "not_found",
        ),
        (json!({ "id": NUMBER }), 404, "not_found"),
        (json!({ "id": "b".repeat(32) }), 404, "not_found"),
    ] {
        let answer = post(&pipeline, "/verifications/find", wrong).await;
        is_problem(&answer, status, code);
    }

    // A canceled verification keeps no recipient, so it cannot be sent again.
    let again = post(
        &pipeline,
        &format!("/verifications/{id}/resend"),
        json!({ "reason": "the person waits" }),
    )
    .await;
    is_problem(&again, 429, "cooldown");
    let canceled = post(
        &pipeline,
        &format!("/verifications/{id}/cancel"),
        json!({ "reason": "a wrong number" }),
    )
    .await;
    assert_eq!(canceled.body["status"], "canceled", "{:?}", canceled.body);
    let by = json!({ "service": "test", "recipient": NUMBER });
    let found = post(&pipeline, "/verifications/find", by).await;
    assert_eq!(found.body["verifications"], json!([]));
    let by = json!({ "service": "test", "subject": SUBJECT });
    let found = post(&pipeline, "/verifications/find", by).await;
    assert_eq!(found.body["verifications"][0]["status"], "canceled");
}

/// Requests that a limit refuses leave records: they are named for what they are, hide no message and
/// count as no opened verification.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_requests_are_named_and_hide_no_message() {
    let pipeline = with_keys("[services.test.limits]\nrecipient_per_hour = 1\n").await;
    let ask = async |purpose: &str| {
        let body =
            json!({ "channel": "sms", "to": NUMBER, "subject": SUBJECT, "purpose": purpose });
        pipeline.post("all", "/v1/verifications", body).await
    };
    let sent = ask("login").await;
    let sent = sent.text("id");
    for n in 0..21 {
        is_problem(&ask(&format!("p{n}")).await, 429, "rate_limited");
    }
    for by in [
        json!({ "service": "test", "subject": SUBJECT }),
        json!({ "service": "test", "recipient": NUMBER }),
    ] {
        let found = post(&pipeline, "/verifications/find", by).await.body;
        let found = found["verifications"].as_array().unwrap();
        assert_eq!((found.len(), &found[0]["id"]), (20, &json!(sent)));
        for refused in &found[1..] {
            assert_eq!(
                refused["diagnosis"],
                "The request was refused by limit recipient_per_hour (429), no SMS was sent."
            );
            let timeline = refused["timeline"].to_string();
            assert!(
                timeline.contains("refused by limit recipient_per_hour (429)"),
                "{timeline}"
            );
        }
    }
    let opened = pipeline.total("watchword_verifications_opened_total", &[]);
    assert_eq!(opened.await, 1);
    let status = get(&pipeline, "/status").await.body;
    assert_eq!(status["last_hour"][0]["opened"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_subject_is_unlocked_while_the_process_runs() {
    let pipeline = with_keys(
        "[services.test.policy]\ncooldown_seconds = 0\n[services.test.guesses]\nper_hour = 3",
    )
    .await;
    let body = json!({ "channel": "sms", "to": NUMBER, "subject": SUBJECT });
    let opened = pipeline
        .post("all", "/v1/verifications", body.clone())
        .await;
    let id = opened.text("id").to_owned();
    for guess in ["000001", "000002", "000003"] {
        pipeline.check("all", &id, guess).await;
    }
    let locked = pipeline
        .post("all", "/v1/verifications", body.clone())
        .await;
    is_problem(&locked, 429, "subject_locked");

    let found = post(&pipeline, "/verifications/find", json!({ "id": id })).await;
    let said = found.body["verifications"][0]["diagnosis"]
        .as_str()
        .unwrap();
    assert!(
        said.starts_with("The subject is locked for too many wrong codes"),
        "{said}"
    );

    // Without a key or with a wrong one the command says what to do; a viewer's key is refused.
    let unlock = ["unlock", "test", SUBJECT, "--why", "the person called"];
    for (key, word) in [
        ("", "WATCHWORD_ADMIN_KEY"),
        ("guessed", "does not know this admin key"),
        (VIEWER_KEY, "operator"),
    ] {
        let (is_fine, told) = command(&pipeline, key, &unlock);
        assert!(!is_fine && told.contains(word), "{told}");
    }
    let still = pipeline
        .post("all", "/v1/verifications", body.clone())
        .await;
    is_problem(&still, 429, "subject_locked");

    let (is_fine, told) = command(&pipeline, ADMIN_KEY, &unlock);
    assert!(is_fine, "{told}");
    assert!(
        told.contains("Forgotten: wrong codes of the subject"),
        "{told}"
    );
    let free = pipeline.post("all", "/v1/verifications", body).await;
    assert_eq!(free.status, 202, "{:?}", free.body);
    let (id, sends) = (free.text("id"), &free.body["sends"]);
    let path = format!("/verifications/{id}/resend");
    let again = post(&pipeline, &path, json!({ "reason": "the person waits" })).await;
    assert_eq!(
        again.body["sends"],
        json!(sends.as_u64().unwrap() + 1),
        "{:?}",
        again.body
    );
    let (is_fine, told) = command(&pipeline, ADMIN_KEY, &["unlock", "test", "nobody"]);
    assert!(is_fine && told.contains("it was not locked"), "{told}");
    let (_, told) = command(
        &pipeline,
        ADMIN_KEY,
        &["unlock", "test", "nobody", "--json"],
    );
    let report: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(report["forgotten"], json!([]));
    let answer = post(
        &pipeline,
        "/unlock",
        json!({ "service": "test", "recipient": NUMBER, "reason": format!("called {NUMBER}") }),
    )
    .await;
    is_problem(&answer, 422, "invalid_request");
    assert!(answer.text("detail").contains("reason"));
}

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_circuit_by_hand_moves_the_messages_and_ends_by_itself() {
    let mut settings = Settings::embedded().with_admin_keys();
    settings.providers = format!(
        "[sms.providers.first]\nkind = \"inbox\"\n[sms.providers.second]\nkind = \"inbox\"\n\
         [[sms.routes]]\nproviders = [\"first\", \"second\"]\n\
         [email.providers.second]\nkind = \"inbox\"\n{}",
        admin_key("ops", ADMIN_KEY, "operator")
    );
    let mut pipeline = Pipeline::configure(&settings);
    pipeline.start("all", &[]).await;
    let mut number = 4915112340000_u64;
    let mut taken_by = async || {
        number += 1;
        let id = pipeline.ask("all", "sms", &format!("+{number}")).await;
        let id = id.text("id").to_owned();
        until(20, "a provider accepted the message", || async {
            let status = pipeline.status("all", &id).await.body;
            let delivery = &status["deliveries"][0];
            let name = delivery["provider"].as_str()?.to_owned();
            (delivery["outcome"] == "accepted").then_some(name)
        })
        .await
    };
    let share = async || {
        let series = "watchword_provider_share_tenths{channel=\"sms\",provider=\"first\"}";
        pipeline.metrics("all").await[series]
    };
    let hold = async |body: Value| post(&pipeline, "/providers/first/circuit", body).await;
    assert_eq!(taken_by().await, "first");
    let begun = Instant::now();
    let held = hold(json!({ "state": "open", "for_seconds": 8, "reason": "a test" })).await;
    assert_eq!(held.status, 200, "{:?}", held.body);
    assert_eq!(held.body["provider"]["circuit"], "open");
    assert!(
        held.body["note"]
            .as_str()
            .unwrap()
            .contains("this worker only")
    );
    assert!(share().await.abs() < 0.1);
    assert_eq!(taken_by().await, "second");
    let listed = get(&pipeline, "/providers").await.body;
    let first = &listed["providers"][0];
    assert_eq!(
        (&first["name"], &first["share_tenths"]),
        (&json!("first"), &json!(0))
    );
    assert_eq!(first["by_hand"]["state"], "open");
    // A reload does not end an override by hand.
    let reloaded = post(&pipeline, "/reload", json!({ "reason": "a test" })).await;
    assert_eq!(reloaded.status, 200, "{:?}", reloaded.body);
    assert_eq!(taken_by().await, "second");
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "the machine is too slow for this test"
    );
    // The metric follows although no message is sent.
    until(20, "the override has ended", || async {
        (share().await > 9.0).then_some(())
    })
    .await;
    assert!(begun.elapsed() >= Duration::from_secs(8));
    assert_eq!(taken_by().await, "first");

    let held = hold(json!({ "state": "open", "for_seconds": 60, "reason": "a test" })).await;
    assert_eq!(held.status, 200);
    let held = hold(json!({ "state": "automatic", "reason": "a test" })).await;
    assert_eq!(held.body["provider"]["by_hand"], Value::Null);
    assert_eq!(taken_by().await, "first");
    for (wrong, field) in [
        (
            json!({ "state": "open", "reason": "a test" }),
            "for_seconds",
        ),
        (
            json!({ "state": "open", "for_seconds": 86401, "reason": "a test" }),
            "for_seconds",
        ),
        (
            json!({ "state": "ajar", "for_seconds": 1, "reason": "a test" }),
            "state",
        ),
        (
            json!({ "state": "open", "for_seconds": 1, "reason": "" }),
            "reason",
        ),
        (json!({ "state": "open", "for_seconds": 1 }), "reason"),
    ] {
        let answer = hold(wrong).await;
        is_problem(&answer, 422, "invalid_request");
        assert!(answer.text("detail").contains(field), "{:?}", answer.body);
    }
    a_standstill_is_named_everywhere(&pipeline).await;
    let body = json!({ "state": "open", "for_seconds": 1, "reason": "a test" });
    let nobody = post(&pipeline, "/providers/nobody/circuit", body).await;
    is_problem(&nobody, 404, "not_found");
}

/// Holds every SMS provider open: the message that waits, the status, the doctor and the log say so.
async fn a_standstill_is_named_everywhere(pipeline: &Pipeline) {
    let hold = ["providers", "circuit", "second", "open", "--for-seconds"];
    // An SMS and a mail provider have this name.
    let (is_fine, told) = command(pipeline, ADMIN_KEY, &[&hold[..], &["60"]].concat());
    assert!(!is_fine && told.contains("(--channel)"), "{told}");
    let by_channel = [&hold[..], &["60", "--channel", "sms"]].concat();
    let (is_fine, told) = command(pipeline, ADMIN_KEY, &by_channel);
    assert!(is_fine && told.contains("sms       second"), "{told}");
    let listed = get(pipeline, "/providers").await.body;
    let listed = listed["providers"].as_array().unwrap();
    let held: Vec<_> = listed
        .iter()
        .filter(|one| one["by_hand"]["state"] == "open")
        .map(|one| (&one["channel"], &one["name"]))
        .collect();
    assert_eq!(held, [(&json!("sms"), &json!("second"))]);
    let (_, told) = command(pipeline, ADMIN_KEY, &["status"]);
    assert!(!told.contains("warning: "), "{told}");
    let body = json!({ "state": "open", "for_seconds": 60, "reason": "a test" });
    let held = post(pipeline, "/providers/first/circuit", body).await;
    assert_eq!(held.status, 200, "{:?}", held.body);

    let standstill = "no provider of sms is called: first is held open by an operator until 20";
    let opened = pipeline.ask("all", "sms", NUMBER).await;
    let by = json!({ "id": opened.text("id") });
    let found = post(pipeline, "/verifications/find", by).await.body;
    let said = found["verifications"][0]["diagnosis"].as_str().unwrap();
    let waits = format!("The SMS waits in its queue for the sms-worker; {standstill}");
    assert!(said.starts_with(&waits), "{said}");
    for (arguments, key, words) in [
        (&["status"][..], ADMIN_KEY, standstill),
        (&["doctor"], ADMIN_KEY, standstill),
        (&["doctor"], "", "every provider of sms has an open circuit"),
    ] {
        // The series of the shares follow after a few seconds.
        until(20, words, || async {
            let (_, told) = command(pipeline, key, arguments);
            told.contains(words).then_some(())
        })
        .await;
    }
    until(20, "the log has it", || async {
        pipeline.logs().contains(standstill).then_some(())
    })
    .await;
    for n in 10..14 {
        pipeline
            .ask("all", "sms", &format!("+49151123456{n}"))
            .await;
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    let logs = pipeline.logs();
    assert_eq!(logs.matches(standstill).count(), 1, "{logs}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_follow_a_reload_and_the_configuration_shows_no_secret() {
    let pipeline = with_keys("").await;
    let shown = get(&pipeline, "/configuration").await;
    let text = shown.body.to_string();
    assert!(
        text.contains("/index") && text.contains("\"role\":\"operator\""),
        "{text}"
    );
    for line in std::fs::read_to_string(pipeline.folder().join("watchword.toml"))
        .unwrap()
        .split('"')
        .filter(|part| part.len() == 64)
    {
        assert!(!text.contains(line), "{text}");
    }
    let path = pipeline.folder().join("watchword.toml");
    let whole = std::fs::read_to_string(&path).unwrap();
    let reload = json!({ "reason": "a test" });
    std::fs::write(
        &path,
        whole.replace("role = \"viewer\"", "role = \"owner\""),
    )
    .unwrap();
    let wrong = post(&pipeline, "/reload", reload.clone()).await;
    is_problem(&wrong, 422, "invalid_request");
    assert!(
        wrong.text("detail").contains("admin.keys.desk.role"),
        "{:?}",
        wrong.body
    );
    // A later status explains why the process runs with an earlier configuration.
    let status = get(&pipeline, "/status").await.body;
    let refused = status["reload_refused"].as_str().unwrap();
    assert!(refused.contains("admin.keys.desk.role"), "{refused}");
    // A command cannot read the wrong file either, and needs the address.
    let url = format!("http://127.0.0.1:{}", pipeline.processes["all"].admin);
    let (is_fine, told) = command(&pipeline, ADMIN_KEY, &["status", "--admin-url", &url]);
    let warning = "warning: the last reload was refused";
    assert!(is_fine && told.contains(warning), "{told}");
    let retention = "[ledger]\nretention_hours = 31\n";
    std::fs::write(&path, format!("{whole}{retention}")).unwrap();
    assert_eq!(post(&pipeline, "/reload", reload.clone()).await.status, 200);
    let status = get(&pipeline, "/status").await.body;
    assert_eq!(status["reload_refused"], Value::Null);
    assert_eq!(status["restart_needed"], json!(["ledger.retention_hours"]));
    for arguments in [&["status"][..], &["doctor"]] {
        let (_, told) = command(&pipeline, ADMIN_KEY, arguments);
        let warning = "the earlier values of ledger.retention_hours until it is restarted";
        assert!(told.contains(warning), "{told}");
    }
    let hash = whole
        .split("[admin.keys.desk]")
        .nth(1)
        .unwrap()
        .split('"')
        .nth(1)
        .unwrap();
    std::fs::write(&path, whole.replace(hash, &"0".repeat(64))).unwrap();
    let viewed = pipeline.admin("all", VIEWER_KEY, Method::GET, "/status", None);
    assert_eq!(viewed.await.status, 200);
    assert_eq!(post(&pipeline, "/reload", reload).await.status, 200);
    let viewed = pipeline.admin("all", VIEWER_KEY, Method::GET, "/status", None);
    is_problem(&viewed.await, 401, "unauthorized");
    let status = get(&pipeline, "/status").await.body;
    assert_eq!(status["ready"], true);
    assert_eq!(status["roles"].as_array().unwrap().len(), 4);
    assert_eq!(status["queues"].as_array().unwrap().len(), 5);
    assert_eq!(status["last_hour"][0]["channel"], "sms");
}

/// Look-ups are limited per key, so that a list of numbers cannot be tried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn look_ups_are_limited_and_other_requests_go_on() {
    let pipeline = with_keys("").await;
    let mut refused = None;
    let mut granted = 0;
    for number in 0..60 {
        let to = format!("+49151123456{number:02}");
        let body = json!({ "service": "test", "recipient": to });
        let answer = post(&pipeline, "/verifications/find", body).await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
        granted += 1;
        // Stay below the limit of requests per second, so that only the limit of look-ups applies.
        tokio::time::sleep(Duration::from_millis(110)).await;
    }
    let refused = refused.expect("a limit");
    is_problem(&refused, 429, "too_many_requests");
    assert!(refused.headers.contains_key("retry-after"));
    assert!((30..=36).contains(&granted), "{granted}");
    let unlock = json!({ "service": "test", "recipient": NUMBER, "reason": "a test" });
    let mut unlocked = Vec::new();
    for _ in 0..4 {
        // A permit may have been refilled meanwhile, so one of several tries must be refused.
        let answer = post(&pipeline, "/unlock", unlock.clone()).await;
        unlocked.push(answer.status.as_u16());
    }
    assert!(unlocked.contains(&429), "{unlocked:?}");
    let by_id = json!({ "id": "a".repeat(32) });
    is_problem(
        &post(&pipeline, "/verifications/find", by_id).await,
        404,
        "not_found",
    );
    // Each key has its own limit.
    let body = json!({ "service": "test", "recipient": NUMBER });
    let find = "/verifications/find";
    let other = pipeline.admin("all", VIEWER_KEY, Method::POST, find, Some(body));
    assert_eq!(other.await.status, 200);

    let mut answers = Vec::new();
    for _ in 0..80 {
        answers.push(get(&pipeline, "/status").await.status.as_u16());
    }
    assert!(answers.contains(&429), "{answers:?}");
}

/// The log, the audit trail, the metrics and the file contain the keyed hash of a recipient or
/// subject only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_trail_log_or_metric_holds_a_recipient_a_subject_or_a_key() {
    let mut settings = Settings::embedded().with_admin_keys();
    settings.level = "trace".into();
    let mut pipeline = Pipeline::configure(&settings);
    pipeline.start("all", &[]).await;
    let mail = "canary.person@example.org";
    let body = json!({ "channel": "sms", "to": NUMBER, "subject": SUBJECT });
    let id = pipeline.post("all", "/v1/verifications", body).await;
    let id = id.text("id").to_owned();
    pipeline.ask("all", "email", mail).await;
    for (path, body) in [
        (
            "/verifications/find",
            json!({ "service": "test", "recipient": NUMBER }),
        ),
        (
            "/verifications/find",
            json!({ "service": "test", "recipient": mail }),
        ),
        (
            "/verifications/find",
            json!({ "service": "test", "subject": SUBJECT }),
        ),
        ("/verifications/find", json!({ "id": NUMBER })),
        ("/verifications/find", json!({ "id": id })),
        (
            "/unlock",
            json!({ "service": "test", "subject": SUBJECT, "reason": "ticket 42" }),
        ),
        (
            "/unlock",
            json!({ "service": "test", "recipient": NUMBER, "reason": "ticket 42" }),
        ),
        (
            "/unlock",
            json!({ "service": "test", "recipient": NUMBER, "reason": NUMBER }),
        ),
        (
            "/unlock",
            json!({ "service": NUMBER, "subject": "a", "reason": "ticket 42" }),
        ),
        ("/dead-letters/show", json!({ "id": NUMBER })),
        (
            "/dead-letters/discard",
            json!({ "filter": { "id": NUMBER, "service": mail }, "reason": "ticket 42" }),
        ),
        (
            "/providers/4915112345678/circuit",
            json!({ "state": "automatic", "reason": "ticket 42" }),
        ),
    ] {
        post(&pipeline, path, body).await;
    }
    let kept = get(&pipeline, "/audit-trail").await.body;
    let records = kept["records"].as_array().unwrap();
    assert!(records.len() >= 9, "{kept}");
    // Refused requests are in the log only, not in the audit trail.
    let is_circuit = |record: &Value| record["action"] == "circuit";
    assert!(!records.iter().any(is_circuit), "{kept}");
    assert!(pipeline.logs().contains("provider ? automatic"));
    let unlocked = records.iter().find(|record| record["action"] == "unlock");
    assert_eq!(unlocked.unwrap()["reason"], "ticket 42");
    // The subject is named by the tag that its verification ids begin with.
    let target = format!("subject {}", &id[..16]);
    assert!(
        records
            .iter()
            .any(|record| record["target"] == target.as_str()),
        "{kept}"
    );
    let logs = pipeline.logs();
    assert!(logs.contains("watchword::admin_audit") && logs.contains("ticket 42"));
    let mut file = Vec::new();
    for name in ["watchword.db", "watchword.db-wal"] {
        file.extend(std::fs::read(pipeline.folder().join(name)).unwrap_or_default());
    }
    assert!(file.len() > 4_096);
    let mut metrics = String::new();
    for (series, _) in pipeline.metrics("all").await {
        let _ = writeln!(metrics, "{series}");
    }
    for secret in [&NUMBER[1..], mail, SUBJECT, ADMIN_KEY, VIEWER_KEY] {
        assert!(!kept.to_string().contains(secret), "{secret} in the trail");
        assert!(!logs.contains(secret), "{secret} in the log");
        assert!(!metrics.contains(secret), "{secret} in the metrics");
        let bytes = secret.as_bytes();
        let is_in = file.windows(bytes.len()).any(|window| window == bytes);
        assert!(!is_in, "{secret} in the file");
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
