//! A code approves only the content of its message: a request with other content withdraws the live
//! verification and opens a new one, and a check may name its expectations.

use std::sync::Arc;

use serde_json::{Value, json};
use watchword_tests::load::{Mailbox, SmsGateway};
use watchword_tests::pipeline::Answer;
use watchword_tests::{Pipeline, Settings, until};

const NAME: &str = "all";

fn pays(to: &str, amount: &str) -> Value {
    json!({ "channel": "sms", "to": to, "variables": { "amount": amount } })
}

async fn ask(pipeline: &Pipeline, body: Value) -> Answer {
    pipeline.post(NAME, "/v1/verifications", body).await
}

async fn check(pipeline: &Pipeline, id: &str, body: Value) -> Value {
    let path = format!("/v1/verifications/{id}/check");
    let answer = pipeline.post(NAME, &path, body).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    answer.body
}

/// Returns the code of the message `number` to this recipient.
async fn code(mailbox: &Mailbox, to: &str, number: usize) -> String {
    let arrived = || async { mailbox.of(to).get(number - 1).map(|one| one.code.clone()) };
    until(20, "the message", arrived).await
}

async fn started(limits: &str) -> (Pipeline, Arc<Mailbox>, SmsGateway) {
    let mailbox = Arc::<Mailbox>::default();
    let gateway = SmsGateway::start(mailbox.clone()).await;
    let mut settings = Settings::embedded();
    let sms = SmsGateway::config(gateway.port());
    settings.providers = format!("{sms}[email.providers.inbox]\nkind = \"inbox\"\n");
    settings.service = limits.to_owned();
    let mut pipeline = Pipeline::configure(&settings);
    pipeline.start(NAME, &[]).await;
    (pipeline, mailbox, gateway)
}

#[tokio::test]
async fn other_content_is_another_verification_and_kills_the_one_before() {
    let (pipeline, mailbox, _gateway) =
        started("[services.test.policy]\ncooldown_seconds = 0\n").await;
    let to = "+4915112345678";
    let first = ask(&pipeline, pays(to, "1")).await;
    assert_eq!(first.status, 202, "{:?}", first.body);
    let first_code = code(&mailbox, to, 1).await;
    let second = ask(&pipeline, pays(to, "9999")).await;
    assert_eq!(second.status, 202, "{:?}", second.body);
    let (old, new) = (first.text("id"), second.text("id"));
    assert_ne!(old, new);
    let second_code = code(&mailbox, to, 2).await;

    assert_eq!(pipeline.status(NAME, old).await.text("status"), "canceled");
    let dead = check(&pipeline, old, json!({ "code": first_code })).await;
    assert_eq!(dead["valid"], false);
    let crossed = check(&pipeline, new, json!({ "code": first_code })).await;
    assert_eq!(crossed["valid"], false);
    let expected = |amount: &str| {
        json!({
            "code": second_code, "channel": "sms", "to": to, "purpose": "login",
            "variables": { "amount": amount },
        })
    };
    let other = check(&pipeline, new, expected("1")).await;
    assert_eq!(
        (&other["valid"], &other["status"]),
        (&json!(false), &json!("pending"))
    );
    assert!(other.get("to").is_none() && other.get("purpose").is_none());
    let own = check(&pipeline, new, expected("9999")).await;
    assert_eq!(own["valid"], true);
    assert_eq!(
        (&own["purpose"], &own["to"]),
        (&json!("login"), &json!("+49*********78"))
    );
}

#[tokio::test]
async fn a_limit_that_refuses_the_new_message_leaves_the_old_code_valid() {
    let (pipeline, mailbox, _gateway) = started("").await;
    let to = "+4915112345679";
    let first = ask(&pipeline, pays(to, "1")).await;
    assert_eq!(first.status, 202, "{:?}", first.body);
    let first_code = code(&mailbox, to, 1).await;
    let second = ask(&pipeline, pays(to, "9999")).await;
    assert_eq!(
        (second.status.as_u16(), second.text("code")),
        (429, "cooldown")
    );
    assert!(
        second.text("detail").contains("stays valid"),
        "{:?}",
        second.body
    );
    let wait: u64 = second.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=30).contains(&wait));
    let own = json!({ "code": first_code, "variables": { "amount": "1" } });
    let approved = check(&pipeline, first.text("id"), own).await;
    assert_eq!(approved["valid"], true);
    assert_eq!(mailbox.of(to).len(), 1, "nothing else was sent");
}
