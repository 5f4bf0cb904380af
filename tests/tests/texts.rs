//! Templates of the operator from the request to the message: a request whose message cannot be
//! made is refused before anything is opened for it.

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use watchword_tests::pipeline::KEY;
use watchword_tests::{Pipeline, Settings, until};

/// A folder with these templates.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

async fn ask(pipeline: &Pipeline, body: Value) -> (u16, String, String) {
    let path = "/v1/verifications";
    let answer = pipeline
        .call("all", KEY, Method::POST, path, Some(body))
        .await;
    (
        answer.status.as_u16(),
        answer.text("code").to_owned(),
        answer.text("detail").to_owned(),
    )
}

#[tokio::test]
async fn a_request_of_which_no_message_can_be_made_opens_nothing() {
    let folder = folder(&[
        ("en/sms.txt", "{{ code }} pays {{ amount }} to {{ payee }}"),
        ("en/email.txt", "{{ code }} for {{ reason }}"),
    ]);
    let mut settings = Settings::embedded();
    let templates = folder.path().display();
    settings.engine = format!("templates = \"{templates}\"\n{}", settings.engine);
    let mut pipeline = Pipeline::configure(&settings);
    pipeline.start("all", &[]).await;
    let to = "+4915112345678";
    let (amount, payee) = ("1 EUR", "Red Cross");
    let mail = json!([{ "channel": "email", "to": "jane@example.org", "after_seconds": 30 }]);
    for (body, said) in [
        (json!({ "channel": "sms", "to": to }), "amount"),
        (
            json!({ "channel": "sms", "to": to, "variables": { "amount": amount } }),
            "payee",
        ),
        (
            json!({ "channel": "email", "to": "jane@example.org", "locale": "en-GB" }),
            "reason",
        ),
        (
            json!({ "channel": "sms", "to": to, "fallback": mail,
                "variables": { "amount": amount, "payee": payee } }),
            "email template needs the variable reason",
        ),
        (
            json!({ "channel": "sms", "to": to,
                "variables": { "amount": "ж".repeat(100), "payee": "ж".repeat(100) } }),
            "more than two parts",
        ),
    ] {
        let (status, code, detail) = ask(&pipeline, body).await;
        assert_eq!((status, code.as_str()), (422, "template_variables"));
        assert!(detail.contains(said), "{detail}");
    }
    let opened = pipeline.total("watchword_verifications_opened_total", &[]);
    assert_eq!(opened.await, 0);
    for body in [
        json!({ "channel": "sms", "to": to, "variables": { "amount": amount, "payee": payee } }),
        // The template of this language uses none.
        json!({ "channel": "sms", "to": "+4915112345679", "locale": "de_DE.UTF-8" }),
        json!({ "channel": "email", "to": "jane@bücher.example", "variables": { "reason": "x" } }),
    ] {
        let (status, code, detail) = ask(&pipeline, body).await;
        assert_eq!(status, 202, "{code} {detail}");
    }

    // A reload gives the issuer the changed texts; a text without the code leaves the earlier ones
    // in use.
    let text = folder.path().join("en/sms.txt");
    let reload = async |result: &str| {
        let series = format!("watchword_config_reloads_total{{result=\"{result}\"}}");
        pipeline.processes["all"].process.signal("HUP");
        until(10, result, || async {
            (pipeline.metrics("all").await[&series] >= 1.0).then_some(())
        })
        .await;
    };
    std::fs::write(&text, "{{ amount }}").unwrap();
    reload("wrong").await;
    let to = "+4915112345670";
    let (status, ..) = ask(&pipeline, json!({ "channel": "sms", "to": to })).await;
    assert_eq!(status, 422);
    std::fs::write(&text, "{{ code }}").unwrap();
    reload("ok").await;
    let (status, ..) = ask(&pipeline, json!({ "channel": "sms", "to": to })).await;
    assert_eq!(status, 202);
}
