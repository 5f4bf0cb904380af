//! Verifications are found with their history, and locked subjects are unlocked.

use serde_json::{Value, json};
use watchword_tests::pipeline::{ADMIN_KEY, VIEWER_KEY};
use watchword_tests::until;

use super::{NUMBER, SUBJECT, command, get, is_problem, post, with_keys};

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
