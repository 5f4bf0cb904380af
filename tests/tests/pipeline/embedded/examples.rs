//! The demo and the login page of docs/login-page.md.

use std::process::Command;
use std::sync::Arc;

use watchword_tests::load::{Mailbox, SmsGateway};
use watchword_tests::pipeline::KEY;
use watchword_tests::{Pipeline, Settings, until};

#[test]
fn the_demo_runs_and_says_so() {
    let pipeline = Pipeline::configure(&Settings::embedded());
    let output = pipeline
        .command()
        .args(["demo", "--exit"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        text.matches("the right code was approved").count(),
        2,
        "{text}"
    );
    assert_eq!(
        text.matches("a wrong code was refused").count(),
        2,
        "{text}"
    );
    assert!(!text.contains('\u{1b}'), "no colours but on a terminal");
}

/// The page of docs/login-page.md keeps the verification id on the server and issues a new session
/// cookie after the password step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_login_page_signs_a_person_in_with_60_lines() {
    const TO: &str = "+4915112345678";
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/login_page.py");
    let source = std::fs::read_to_string(file).unwrap();
    let code = source
        .splitn(3, "\"\"\"")
        .nth(2)
        .unwrap()
        .lines()
        .map(str::trim);
    let is_note = |line: &str| line.starts_with('#') || line.starts_with("\"\"\"");
    let is_code = |line: &&str| !line.is_empty() && !is_note(line);
    let lines = code.filter(is_code).count();
    assert!(lines <= 60 && source.contains(TO), "{lines} lines of code");

    let mailbox = Arc::<Mailbox>::default();
    let gateway = SmsGateway::start(mailbox.clone()).await;
    let mut settings = Settings::embedded();
    settings.providers =
        SmsGateway::config(gateway.port()) + "[email.providers.inbox]\nkind = \"inbox\"\n";
    let mut pipeline = Pipeline::configure(&settings);
    pipeline.start("all", &[]).await;
    let port = watchword_tests::free_port();
    let (http, url) = pipeline.raw("all");
    let mut python = Command::new(std::env::var("WATCHWORD_PYTHON").unwrap_or("python3".into()));
    python.arg(file).env("PORT", port.to_string());
    python.env("WATCHWORD_URL", url).env("WATCHWORD_KEY", KEY);
    let server = watchword_tests::Process::start(python, &pipeline.folder().join("page"));
    let page = format!("http://127.0.0.1:{port}/");
    until(20, "the page", || async {
        http.get(&page).send().await.ok()
    })
    .await;
    let submit = async |cookie: &str, form: String| {
        let request = http.post(&page).header("cookie", cookie).body(form);
        let answer = request.send().await.unwrap();
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        (cookie, answer.text().await.unwrap())
    };

    let (_, text) = submit("session=chosen", "user=jane&password=guessed".into()).await;
    assert!(
        text.contains("not right") && mailbox.of(TO).is_empty(),
        "{text}"
    );
    let (cookie, text) = submit("session=chosen", "user=jane&password=wonderland".into()).await;
    assert!(
        text.contains("+49*********78") && !cookie.contains("chosen"),
        "{text}"
    );
    let code = mailbox.first(TO).await.code;
    let wrong = if code == "000000" { "000001" } else { "000000" };
    for (form, says) in [
        ("", "Wait"),
        ("code=abc", "digits"),
        // An empty field does not trigger a resend.
        ("code=", "digits"),
        (&format!("code={wrong}"), "not right"),
    ] {
        let (_, text) = submit(&cookie, form.into()).await;
        assert!(
            text.contains(says) && !text.contains("Welcome"),
            "{form}: {text}"
        );
    }
    let (_, text) = submit("session=chosen", format!("code={code}")).await;
    assert!(!text.contains("Welcome"), "another browser: {text}");
    let (_, text) = submit(&cookie, format!("code={code}")).await;
    assert!(text.contains("Welcome"), "{text} {}", server.output());
}
