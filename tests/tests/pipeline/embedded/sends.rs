//! Concurrent requests, and messages that a limit refuses.

use std::sync::Arc;

use reqwest::StatusCode;
use serde_json::json;
use watchword_tests::load::{Mailbox, SmsGateway};
use watchword_tests::{Pipeline, Settings, until};

#[tokio::test]
async fn fifty_requests_at_once_are_one_message_and_the_hour_has_its_limit() {
    let mut settings = Settings::embedded();
    settings.service = "[services.test.limits]\nrecipient_per_hour = 3\n[services.test.policy]\ncooldown_seconds = 0".into();
    let mut pipeline = Pipeline::configure(&settings);
    pipeline.start("all", &[]).await;
    // A message for each of fifty subjects with the same recipient, whose limit is three.
    let requests = (0..50).map(|number| {
        let body =
            json!({ "channel": "sms", "to": "+4915112345678", "subject": format!("s{number}") });
        pipeline.post("all", "/v1/verifications", body)
    });
    let answers = futures_util::future::join_all(requests).await;
    let accepted = answers
        .iter()
        .filter(|answer| answer.status == StatusCode::ACCEPTED)
        .count();
    assert_eq!(accepted, 3);
    for answer in answers
        .iter()
        .filter(|answer| answer.status != StatusCode::ACCEPTED)
    {
        assert_eq!(
            (answer.status.as_u16(), answer.text("code")),
            (429, "rate_limited")
        );
        assert!(answer.headers.contains_key("retry-after"));
    }
    until(10, "three messages", || async {
        (pipeline
            .total("watchword_attempts_total", &["accepted", "sms"])
            .await
            == 3)
            .then_some(())
    })
    .await;
}

/// With a policy of a new code per message, a resend that a limit refuses leaves the earlier code
/// valid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_message_leaves_the_code_before_it_good() {
    const TO: &str = "+4915112345678";
    let mailbox = Arc::<Mailbox>::default();
    let gateway = SmsGateway::start(mailbox.clone()).await;
    let mut settings = Settings::embedded();
    settings.providers =
        SmsGateway::config(gateway.port()) + "[email.providers.inbox]\nkind = \"inbox\"\n";
    settings.service = "[services.test.limits]\nrecipient_per_hour = 2\n\
                        [services.test.policy]\ncooldown_seconds = 0\nresend = \"rotate\""
        .into();
    let mut pipeline = Pipeline::configure(&settings);
    pipeline.start("all", &[]).await;
    let id = pipeline.ask("all", "sms", TO).await.text("id").to_owned();
    let resend = || async {
        let path = format!("/v1/verifications/{id}/resend");
        pipeline.post("all", &path, json!({})).await
    };
    let again = resend().await;
    assert_eq!(
        (again.status, &again.body["sends"]),
        (StatusCode::ACCEPTED, &json!(2))
    );
    let second = until(10, "the message", || async {
        let arrivals = mailbox.of(TO);
        (arrivals.len() == 2).then(|| arrivals[1].code.clone())
    })
    .await;
    for refused in [resend().await, pipeline.ask("all", "sms", TO).await] {
        assert_eq!(
            (refused.status.as_u16(), refused.text("code")),
            (429, "rate_limited")
        );
    }
    let valid = pipeline.check("all", &id, &second).await;
    assert_eq!(valid.body["valid"], true, "{:?}", valid.body);
}
