//! The operator's templates from the request to the message: a request whose message cannot be
//! rendered is refused before a verification is opened.

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use watchword_tests::pipeline::KEY;
use watchword_tests::{Pipeline, Settings, free_port, until};

/// Creates a folder with these templates.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

/// Adds the templates to `settings`.
fn with_templates(folder: &TempDir, mut settings: Settings) -> Settings {
    let templates = folder.path().display();
    settings.engine = format!("templates = \"{templates}\"\n{}", settings.engine);
    settings
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
        (
            "en/sms.txt",
            "{# variables: amount, payee #}{{ code }} pays {{ amount }} to {{ payee }}",
        ),
        (
            "en/email.txt",
            "{# variables: reason #}{{ code }} for {{ reason }}",
        ),
        (
            "fr/sms.txt",
            "{# variables: vip #}{% if vip == \"1\" %}{{ code }}{% endif %} bonjour",
        ),
        (
            "fr/email.html",
            "{# variables: vip #}{% if vip == \"1\" %}{{ code }}{% endif %} bonjour",
        ),
        (
            "es/email.subject.txt",
            "{# variables: vip #}{% if vip != \"1\" %}{{ code }}{% endif %} hola",
        ),
    ]);
    let mut pipeline = Pipeline::configure(&with_templates(&folder, Settings::embedded()));
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
        (
            json!({ "channel": "sms", "to": to, "locale": "fr", "variables": { "vip": "no" } }),
            "template fr/sms.txt does not show the code",
        ),
        (
            json!({ "channel": "email", "to": "jane@example.org", "locale": "fr",
                "variables": { "vip": "no" } }),
            "template fr/email.html does not show the code",
        ),
        (
            json!({ "channel": "email", "to": "jane@example.org", "locale": "es",
                "variables": { "vip": "no" } }),
            "template es/email.subject.txt shows the code",
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
        // The template of this language uses no variables.
        json!({ "channel": "sms", "to": "+4915112345679", "locale": "de_DE.UTF-8" }),
        json!({ "channel": "email", "to": "jane@bücher.example", "variables": { "reason": "x" } }),
        json!({ "channel": "sms", "to": "+4915112345677", "locale": "fr", "variables": { "vip": "1" } }),
    ] {
        let (status, code, detail) = ask(&pipeline, body).await;
        assert_eq!(status, 202, "{code} {detail}");
    }

    // A reload gives the issuer the changed texts. A text without the code is refused, and the
    // previous texts stay in use.
    let text = folder.path().join("en/sms.txt");
    let reload = async |result: &str| {
        let series = format!("watchword_config_reloads_total{{result=\"{result}\"}}");
        pipeline.processes["all"].process.signal("HUP");
        until(10, result, || async {
            (pipeline.metrics("all").await[&series] >= 1.0).then_some(())
        })
        .await;
    };
    std::fs::write(&text, "{# variables: amount #}{{ amount }}").unwrap();
    reload("refused").await;
    let logs = pipeline.logs();
    assert!(logs.contains("en/sms.txt does not show the code"), "{logs}");
    let to = "+4915112345670";
    let (status, ..) = ask(&pipeline, json!({ "channel": "sms", "to": to })).await;
    assert_eq!(status, 422);
    std::fs::write(&text, "{{ code }}").unwrap();
    reload("ok").await;
    let (status, ..) = ask(&pipeline, json!({ "channel": "sms", "to": to })).await;
    assert_eq!(status, 202);
}

/// `config check`, the doctor and the start of each role that sends or renders texts give the same
/// verdict.
#[test]
fn every_command_gives_the_same_verdict_on_a_template() {
    for (file, text, said) in [
        (
            "en/sms.txt",
            "hello",
            "template en/sms.txt does not show the code",
        ),
        (
            "da/sms.txt",
            "{{ code }}\n{{ cod }}",
            "template da/sms.txt, line 2: `cod` is not defined",
        ),
        (
            "en/sms.txt",
            "{{ code }}\n\n{% if %}",
            "template en/sms.txt, line 3: syntax error",
        ),
        // The service `other` has no host.
        (
            "en/sms.txt",
            "{% if host %}{{ code }}{% endif %} hello",
            "for service other: template en/sms.txt does not show the code",
        ),
        (
            "en/sms.txt",
            &format!("{{{{ code }}}} {}", "ж".repeat(150)),
            "template en/sms.txt makes a text of 3 parts",
        ),
    ] {
        let folder = folder(&[(file, text)]);
        let pipeline = Pipeline::configure(&with_templates(&folder, Settings::embedded()));
        for arguments in [
            &["config", "check"][..],
            &["config", "check", "issuer"],
            &["config", "check", "sms-worker"],
            &["doctor"],
            &["run"],
        ] {
            let output = pipeline.command().args(arguments).output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "{arguments:?} {text}");
            assert!(errors.contains(said), "{arguments:?}: {errors}");
        }
        // A verifier renders no texts.
        let verifier = ["config", "check", "verifier"];
        let output = pipeline.command().args(verifier).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn what_is_not_used_is_a_warning() {
    let folder = folder(&[
        ("da/sms.txt", "{{ code }}"),
        ("sv/smss.txt", "{{ code }}"),
        ("sms.txt", "{{ code }}"),
        ("..data/sms.txt", "hello"),
    ]);
    let pipeline = Pipeline::configure(&with_templates(&folder, Settings::embedded()));
    for arguments in [&["config", "check"][..], &["doctor"]] {
        let output = pipeline.command().args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
        let warnings: Vec<_> = text
            .lines()
            .filter_map(|line| line.split_once("templates: "))
            .map(|(_, text)| text)
            .collect();
        let files = "email.subject.txt, email.txt, email.html";
        assert_eq!(
            warnings,
            [
                "sms.txt is not used: it is not a locale folder such as de or pt-BR".to_owned(),
                format!("sv/smss.txt is not used: the names are sms.txt, {files}"),
                format!("email messages in da are sent in en: the folder da lacks {files}"),
                "sms messages in sv are sent in en: the folder sv lacks sms.txt".to_owned(),
                format!("email messages in sv are sent in en: the folder sv lacks {files}"),
            ],
            "{arguments:?}"
        );
    }
}

/// A worker may be unable to render a text that the issuer accepted, because the templates changed
/// in between. No provider is blamed.
#[tokio::test]
async fn a_text_that_a_worker_cannot_make_is_no_fault_of_a_provider() {
    let folder = folder(&[("en/sms.txt", "{{ code }}")]);
    let mut settings = with_templates(&folder, Settings::embedded());
    // Nothing listens on this port, so the first attempt fails and the order waits.
    let port = free_port();
    settings.providers = format!(
        "[sms.providers.acme]\nkind = \"http\"\nsender = \"Test\"\n\
         [sms.providers.acme.request]\nmethod = \"POST\"\nurl = \"http://127.0.0.1:{port}/\"\n\
         json = {{ to = \"{{to}}\", text = \"{{text}}\" }}\n\
         [sms.providers.acme.response]\nrules = [{{ status = [\"202\"], class = \"accepted\" }}]\n\
         [email.providers.inbox]\nkind = \"inbox\"\n"
    );
    let mut pipeline = Pipeline::configure(&settings);
    pipeline.start("all", &[]).await;
    let opened = pipeline.ask("all", "sms", "+4915112345678").await;
    let id = opened.text("id").to_owned();
    let attempts = async || pipeline.total("watchword_attempts_total", &["acme"]).await;
    until(10, "the first attempt", async || {
        (attempts().await > 0).then_some(())
    })
    .await;
    let text = "{# variables: payee #}{{ code }} to {{ payee }}";
    std::fs::write(folder.path().join("en/sms.txt"), text).unwrap();
    pipeline.processes["all"].process.signal("HUP");
    let faults = "watchword_text_faults_total{channel=\"sms\"}";
    until(30, "the text fault", async || {
        (pipeline.metrics("all").await[faults] >= 1.0).then_some(())
    })
    .await;
    let calls = attempts().await;

    let delivery = until(10, "the delivery failed", async || {
        let status = pipeline.status("all", &id).await;
        let delivery = status.body["deliveries"][0].clone();
        (delivery["outcome"] == "failed").then_some(delivery)
    })
    .await;
    let tried = delivery["attempts"].as_array().unwrap();
    let (last, before) = tried.split_last().unwrap();
    assert_eq!(last["class"], "text_fault", "{delivery}");
    assert!(last["provider"].is_null() && delivery["provider"].is_null());
    for attempt in before {
        assert_eq!(attempt["provider"], "acme", "{delivery}");
    }
    assert_eq!(calls, before.len() as u64, "no call is counted");
    let metrics = pipeline.metrics("all").await;
    let not_called = pipeline.total("watchword_attempts_not_called_total", &["acme"]);
    assert_eq!(not_called.await, 0);
    let classes = metrics.keys().any(|series| {
        series.starts_with("watchword_attempts_total") && series.contains("text_fault")
    });
    assert!(!classes, "no provider has this class");
    let logs = pipeline.logs();
    let warned = logs
        .lines()
        .find(|line| line.contains("no provider was called"));
    let warned = warned.unwrap_or_else(|| panic!("{logs}"));
    assert!(warned.contains("WARN"), "{warned}");
    assert!(
        warned.contains("template en/sms.txt needs the variable payee"),
        "{warned}"
    );
}
