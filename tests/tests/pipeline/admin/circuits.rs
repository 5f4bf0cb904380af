//! Circuits that an operator holds open, and a channel without a provider.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use watchword_tests::pipeline::{ADMIN_KEY, admin_key};
use watchword_tests::{Pipeline, Settings, until};

use super::{NUMBER, command, get, is_problem, post};

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
