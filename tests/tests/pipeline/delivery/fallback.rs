//! The timed fallback to the next channel, and the requests that cancel it.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use serde_json::json;
use watchword_tests::pipeline::{KEY, code_in};
use watchword_tests::{Pipeline, Settings, until};

use super::{ROLES, distributed, number, outcome_is, ports, settings_of, simulator, with_secrets};

/// Approval at 29 s cancels the fallback email. Without receipt and approval the email is sent
/// exactly once, even if every process was killed in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mail_follows_after_thirty_seconds_once_or_not_at_all() {
    let mut world = distributed().await;
    let ask = |to: &str, mail: &str| json!({ "channel": "sms", "to": to, "fallback": [{ "channel": "email", "to": mail }] });
    let begun = Instant::now();
    let approved = world
        .pipeline
        .post(
            "issuer",
            "/v1/verifications",
            ask(&number(1), "one@example.org"),
        )
        .await;
    let silent = world
        .pipeline
        .post(
            "issuer",
            "/v1/verifications",
            ask(&number(2), "two@example.org"),
        )
        .await;
    let resent = world
        .pipeline
        .post(
            "issuer",
            "/v1/verifications",
            ask(&number(3), "three@example.org"),
        )
        .await;
    assert_eq!(silent.status, StatusCode::ACCEPTED, "{:?}", silent.body);
    let delivered = world
        .pipeline
        .post(
            "issuer",
            "/v1/verifications",
            ask(&number(4), "four@example.org"),
        )
        .await;
    let text = until(20, "the SMS", || async {
        let messages = world.first.messages();
        (messages.len() == 4).then(|| {
            messages
                .iter()
                .find(|m| m.to == number(1))
                .unwrap()
                .text
                .clone()
        })
    })
    .await;
    // A receipt of delivery cancels the email.
    let message = world
        .first
        .messages()
        .into_iter()
        .find(|m| m.to == number(4))
        .unwrap();
    let control = format!(
        "http://{}/control/receipts",
        world.first.sms_address().unwrap()
    );
    let (client, _) = world.pipeline.raw("sms");
    let told = client
        .post(control)
        .bearer_auth("simulator")
        .json(&json!({ "id": message.id, "status": "delivered" }))
        .send()
        .await
        .unwrap();
    assert!(told.status().is_success());
    outcome_is(
        &world.pipeline,
        "verifier",
        delivered.text("id"),
        1,
        "delivered",
    )
    .await;
    // Kill every process while the fallback steps wait, and restart them.
    for (name, _) in ROLES {
        world.pipeline.processes[name].process.signal("KILL");
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    for (name, role) in ROLES {
        world.pipeline.launch(name, &[role]);
    }
    for (name, _) in ROLES {
        world.pipeline.ready(name).await;
    }
    // Approve one verification at 29 s; request a new message for another after its cooldown.
    tokio::time::sleep(Duration::from_secs(29).saturating_sub(begun.elapsed())).await;
    let check = world
        .pipeline
        .check("verifier", approved.text("id"), &code_in(&text))
        .await;
    assert_eq!(check.body["valid"], true, "{:?}", check.body);
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    let mails = || -> Vec<String> {
        let all = [world.first.messages(), world.second.messages()].concat();
        all.into_iter()
            .filter(|m| m.channel == "email")
            .map(|m| m.to)
            .collect()
    };
    until(30, "the mail", || async {
        mails()
            .contains(&"two@example.org".to_owned())
            .then_some(())
    })
    .await;
    let at = begun.elapsed();
    assert!(
        at >= Duration::from_secs(30) && at < Duration::from_secs(36),
        "{at:?}"
    );
    // Time for a mail that must not be sent.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let mut sent = mails();
    sent.sort();
    assert_eq!(
        sent,
        ["three@example.org", "two@example.org"],
        "each message once, and no other"
    );
    // Both channels carry the same code, which is approved once.
    let status = world
        .pipeline
        .status("verifier", silent.text("id"))
        .await
        .body;
    assert_eq!(status["sends"], 2);
    assert_eq!(status["deliveries"][1]["channel"], "email");
    let mail = [world.first.messages(), world.second.messages()].concat();
    let mail = mail.iter().find(|m| m.to == "two@example.org").unwrap();
    let body = mail.text.split("\r\n\r\n").skip(1).collect::<String>();
    let check = world
        .pipeline
        .check("verifier", silent.text("id"), &code_in(&body))
        .await;
    assert_eq!(check.body["valid"], true, "{:?}", check.body);
    drop(resent);
}

/// A resend cancels the fallback step, and so does a withdrawal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_send_or_a_withdrawal_cancels_the_step() {
    let (first, second) = (simulator().await, simulator().await);
    let mut settings = settings_of(Settings::embedded(), ports(&first), ports(&second));
    settings.service += "\n[services.test.policy]\ncooldown_seconds = 1\n";
    let mut pipeline = with_secrets(Pipeline::configure(&settings));
    pipeline.start("all", &[]).await;
    let ask = |n: usize| {
        let step =
            json!({ "channel": "email", "to": format!("p{n}@example.org"), "after_seconds": 5 });
        json!({ "channel": "sms", "to": number(n), "fallback": [step] })
    };
    let mut ids = Vec::new();
    for n in 1..=3 {
        let asked = pipeline.post("all", "/v1/verifications", ask(n)).await;
        assert_eq!(asked.status, StatusCode::ACCEPTED, "{:?}", asked.body);
        ids.push(asked.text("id").to_owned());
    }
    let path = format!("/v1/verifications/{}", ids[0]);
    let gone = pipeline.call("all", KEY, Method::DELETE, &path, None).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    // The cooldown of the policy is 1 s.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let again = pipeline
        .post(
            "all",
            &format!("/v1/verifications/{}/resend", ids[1]),
            json!({}),
        )
        .await;
    assert_eq!(again.status, StatusCode::ACCEPTED, "{:?}", again.body);
    until(20, "three steps were due", || async {
        let steps = pipeline.total("watchword_fallback_steps_total", &[]).await;
        (steps == 3).then_some(())
    })
    .await;
    let mails = until(20, "the mail", || async {
        let mails: Vec<_> = first
            .messages()
            .into_iter()
            .filter(|m| m.channel == "email")
            .collect();
        (!mails.is_empty()).then_some(mails)
    })
    .await;
    assert_eq!(mails.len(), 1);
    assert_eq!(mails[0].to, "p3@example.org");
    for (wrong, field) in [
        (json!([{ "channel": "email", "to": "x" }]), "fallback"),
        (
            json!([{ "channel": "email", "to": "a@example.org", "after_seconds": 1 }]),
            "fallback",
        ),
        (
            json!([{ "channel": "email", "to": "a@example.org", "after_seconds": 300 }]),
            "fallback",
        ),
        (
            json!([{ "channel": "fax", "to": "a@example.org" }]),
            "fallback",
        ),
    ] {
        let body = json!({ "channel": "sms", "to": number(9), "fallback": wrong });
        let refused = pipeline.post("all", "/v1/verifications", body).await;
        assert_eq!(
            refused.status,
            StatusCode::UNPROCESSABLE_ENTITY,
            "{:?}",
            refused.body
        );
        assert!(
            refused.body.to_string().contains(field),
            "{:?}",
            refused.body
        );
    }
}
