//! No trail, log or metric holds a recipient, a subject or a key.

use std::fmt::Write as _;

use serde_json::{Value, json};
use watchword_tests::pipeline::{ADMIN_KEY, VIEWER_KEY};
use watchword_tests::{Pipeline, Settings};

use super::{NUMBER, SUBJECT, get, post};

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
