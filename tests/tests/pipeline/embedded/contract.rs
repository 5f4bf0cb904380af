//! The HTTP API's contract: answers, headers and bodies.

use reqwest::{Method, StatusCode};
use serde_json::json;
use watchword_tests::pipeline::{KEY, OTHER_KEY};
use watchword_tests::until;

use super::running;

#[tokio::test]
async fn the_api_answers_as_its_contract_says() {
    let pipeline = running().await;
    let answer = pipeline.ask("all", "sms", "+4915112345678").await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.text("status"), "pending");
    assert_eq!(answer.text("to"), "+49*********78");
    assert_eq!(answer.body["sends"], 1);
    assert!(!answer.text("expires_at").is_empty() && !answer.text("resend_after").is_empty());
    let id = answer.text("id").to_owned();

    // A repeated request within the cooldown returns the same verification and sends nothing.
    let again = pipeline.ask("all", "sms", "+4915112345678").await;
    assert_eq!(
        (again.status, again.text("id"), &again.body["sends"]),
        (StatusCode::ACCEPTED, id.as_str(), &json!(1))
    );
    let resend = pipeline
        .post("all", &format!("/v1/verifications/{id}/resend"), json!({}))
        .await;
    assert_eq!(
        (resend.status.as_u16(), resend.text("code")),
        (429, "cooldown")
    );
    let wait: u64 = resend.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=30).contains(&wait));

    // Wrong codes get an answer; the fifth ends the verification. Then it looks exactly like an
    // unknown one.
    for attempt in 1..=5 {
        let wrong = pipeline.check("all", &id, "0000").await;
        let status = if attempt == 5 {
            "max_attempts_reached"
        } else {
            "pending"
        };
        assert_eq!(
            (
                wrong.status.as_u16(),
                wrong.text("status"),
                &wrong.body["valid"]
            ),
            (200, status, &json!(false))
        );
    }
    let ended = pipeline.check("all", &id, "000000").await;
    let unknown_id = "a".repeat(32);
    let unknown = pipeline.check("all", &unknown_id, "000000").await;
    assert_eq!(ended.text("status"), unknown.text("status"));
    assert_eq!(ended.body["valid"], unknown.body["valid"]);
    assert_eq!(ended.status, unknown.status);
    assert_eq!(
        pipeline.status("all", &id).await.text("status"),
        "max_attempts_reached"
    );

    // Another service cannot see the verification.
    let path = format!("/v1/verifications/{id}");
    let foreign = pipeline
        .call("all", OTHER_KEY, Method::GET, &path, None)
        .await;
    let nowhere = pipeline
        .call(
            "all",
            OTHER_KEY,
            Method::GET,
            &format!("/v1/verifications/{unknown_id}"),
            None,
        )
        .await;
    assert_eq!(
        (foreign.status, &foreign.body),
        (nowhere.status, &nowhere.body)
    );
    assert_eq!(foreign.status, StatusCode::NOT_FOUND);
    let foreign = pipeline
        .call("all", OTHER_KEY, Method::DELETE, &path, None)
        .await;
    assert_eq!(foreign.status, StatusCode::NOT_FOUND);

    // Canceling twice succeeds; canceling a verification that ended otherwise is a conflict.
    let other = pipeline
        .ask("all", "email", "jane@example.org")
        .await
        .text("id")
        .to_owned();
    let path = format!("/v1/verifications/{other}");
    for _ in 0..2 {
        assert_eq!(
            pipeline
                .call("all", KEY, Method::DELETE, &path, None)
                .await
                .status,
            StatusCode::NO_CONTENT
        );
    }
    let ended = pipeline
        .call(
            "all",
            KEY,
            Method::DELETE,
            &format!("/v1/verifications/{id}"),
            None,
        )
        .await;
    assert_eq!(
        (ended.status.as_u16(), ended.text("code")),
        (409, "verification_ended")
    );

    // The status shows the delivery.
    let status = until(10, "the delivery is in the ledger", || async {
        let status = pipeline.status("all", &id).await;
        (status.body["deliveries"][0]["outcome"] == "accepted").then_some(status)
    })
    .await;
    assert_eq!(status.body["deliveries"][0]["provider"], "inbox");
    assert_eq!(
        status.body["deliveries"][0]["attempts"][0]["class"],
        "accepted"
    );
}

#[tokio::test]
async fn headers_and_bodies_outside_the_contract_are_refused() {
    let pipeline = running().await;
    let (http, base) = pipeline.raw("all");
    let url = format!("{base}/v1/verifications");
    let good = r#"{"channel":"sms","to":"+4915112345678"}"#;
    let post = |key: &str| {
        http.post(&url)
            .header("authorization", format!("Bearer {key}"))
    };
    let json = "application/json";
    let cases = [
        (http.post(&url).header("content-type", json).body(good), 401),
        (post("wrong").header("content-type", json).body(good), 401),
        (
            post(KEY)
                .header("authorization", format!("Bearer {KEY}"))
                .header("content-type", json)
                .body(good),
            401,
        ),
        (
            http.post(&url)
                .header("authorization", "Basic eDp5")
                .header("content-type", json)
                .body(good),
            401,
        ),
        (post(KEY).body(good), 415),
        (
            post(KEY).header("content-type", "text/plain").body(good),
            415,
        ),
        (
            post(KEY)
                .header("content-type", "application/json; charset=utf-16")
                .body(good),
            415,
        ),
        (post(KEY).header("content-type", json).body("{"), 400),
        (post(KEY).header("content-type", json).body(""), 400),
        (
            post(KEY)
                .header("content-type", json)
                .body(format!("{good} x")),
            400,
        ),
        (
            post(KEY)
                .header("content-type", json)
                .body("[".repeat(16_000)),
            422,
        ),
        (
            post(KEY)
                .header("content-type", json)
                .body(r#"{"channel":"sms","channel":"sms","to":"+4915112345678"}"#),
            422,
        ),
        (
            post(KEY)
                .header("content-type", json)
                .body(" ".repeat(17_000)),
            413,
        ),
        (
            post(KEY)
                .header("content-type", json)
                .body("x".repeat(1 << 20)),
            413,
        ),
        (
            http.put(&url)
                .header("authorization", format!("Bearer {KEY}")),
            405,
        ),
        (http.get(format!("{base}/metrics")), 404),
        (http.get(format!("{base}/readyz")), 404),
    ];
    for (request, status) in cases {
        let request = request.build().unwrap();
        let shown = format!(
            "{:?} {:?}",
            request.method(),
            request.headers().get("content-type")
        );
        let answer =
            watchword_tests::pipeline::Answer::of(http.execute(request).await.unwrap()).await;
        assert_eq!(answer.status.as_u16(), status, "{shown}");
        assert_eq!(
            answer.headers["content-type"], "application/problem+json",
            "{shown}"
        );
        assert!(!answer.text("code").is_empty() && answer.body["status"] == status);
    }
    let mut many = post(KEY).header("content-type", json).body(good);
    for number in 0..200 {
        many = many.header(format!("x-{number}"), "1");
    }
    assert_eq!(many.send().await.unwrap().status().as_u16(), 431);
    // The process still works after all of this.
    assert_eq!(
        post(KEY)
            .header("content-type", json)
            .body(good)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16(),
        202
    );
}
