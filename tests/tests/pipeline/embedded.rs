//! The embedded engine as a user meets it: the demo, the HTTP API with hostile input, a crash, and
//! a search for secrets.

use std::process::Command;
use std::sync::Arc;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use watchword_tests::load::{Mailbox, SmsGateway};
use watchword_tests::pipeline::{KEY, OTHER_KEY};
use watchword_tests::{Pipeline, Settings, SteppedClock, until};

async fn running() -> Pipeline {
    let mut pipeline = Pipeline::configure(&Settings::embedded());
    pipeline.start("all", &[]).await;
    pipeline
}

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
async fn hostile_input_is_refused_by_field_and_never_echoed() {
    let pipeline = running().await;
    let long = "1".repeat(8_000);
    let phones = [
        "",
        "+",
        "+123456",
        "+1234567890123456",
        "004915112345678",
        " +4915112345678",
        "+4915112345678 ",
        "+49\u{200b}15112345678",
        "+4915112345678\r\n",
        "+４９15112345678",
        "+3367a829916",
        "tel:+4915112345678",
        "+4915112345678;ext=12",
        "+78401234567",
        "+99912345678",
        // Extra digits behind a handset's number, and the format that Mexico used before 2019.
        "+49151123456780",
        "+5215512345678",
        &long,
    ];
    for phone in phones {
        let answer = pipeline.ask("all", "sms", phone).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text("code")),
            (422, "invalid_phone"),
            "{phone:.30}"
        );
        assert_eq!(answer.text("field"), "to");
        assert!(phone.len() < 5 || !answer.body.to_string().contains(phone));
    }
    for phone in [
        "+19002345678",
        "+449098790000",
        "+979123456789",
        "+881612345678",
        "+448431234567",
        "+493012345678",
        "+390236618300",
        "+447092123456",
        "+190023456780",
        "+447700900222",
    ] {
        let answer = pipeline.ask("all", "sms", phone).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text("code")),
            (403, "destination_blocked"),
            "{phone}"
        );
    }
    // The service `other` sends to Germany only. Jamaica and the Bahamas share +1 with the United
    // States but are other countries.
    for (phone, status) in [
        ("+4915112345699", 202),
        ("+12025550123", 403),
        ("+18762101234", 403),
        ("+12423591234", 403),
    ] {
        let body = json!({ "channel": "sms", "to": phone });
        let answer = pipeline
            .call(
                "all",
                OTHER_KEY,
                Method::POST,
                "/v1/verifications",
                Some(body),
            )
            .await;
        assert_eq!(answer.status.as_u16(), status, "{phone}");
    }
    let long_local = format!("{}@example.org", "a".repeat(65));
    let long_domain = format!("a@{}.org", "a.".repeat(127));
    let emails = [
        "",
        "a@b@c.org",
        "a@b.org\r\nBcc: eve@example.org",
        "a\0@b.org",
        "a\t@b.org",
        "\"a b\"@b.org",
        "a(c)@b.org",
        "a@[127.0.0.1]",
        "a@b.org.",
        "Jane <a@b.org>",
        "a@b.org,c@d.org",
        "jané@b.org",
        "а@b.org",
        &long_local,
        &long_domain,
    ];
    for email in emails {
        let answer = pipeline.ask("all", "email", email).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text("code")),
            (422, "invalid_email"),
            "{email:.40}"
        );
    }
    let to = "+4915112345678";
    let bodies = [
        (json!({}), "invalid_request"),
        (json!({ "channel": "sms" }), "invalid_request"),
        (json!({ "channel": "fax", "to": to }), "invalid_request"),
        (
            json!({ "channel": "sms", "to": 4915112345678_i64 }),
            "invalid_request",
        ),
        (
            json!({ "channel": "sms", "to": to, "ttl": 9 }),
            "invalid_request",
        ),
        (
            json!({ "channel": "sms", "to": to, "purpose": "a b" }),
            "invalid_request",
        ),
        (
            json!({ "channel": "sms", "to": to, "subject": "a\nb" }),
            "invalid_request",
        ),
        (
            json!({ "channel": "sms", "to": to, "subject": "" }),
            "invalid_request",
        ),
        (
            json!({ "channel": "sms", "to": to, "variables": { "x": "https://evil.example/a" } }),
            "invalid_request",
        ),
        (
            json!({ "channel": "sms", "to": to, "variables": { "x": "a\n@evil.example #000000" } }),
            "invalid_request",
        ),
        (
            json!({ "channel": "sms", "to": to, "variables": { "code": "000000" } }),
            "invalid_request",
        ),
        (json!([1, 2]), "invalid_request"),
    ];
    for (body, code) in bodies {
        let answer = pipeline
            .post("all", "/v1/verifications", body.clone())
            .await;
        assert_eq!(
            (answer.status.as_u16(), answer.text("code")),
            (422, code),
            "{body}"
        );
    }
    let id = pipeline.ask("all", "sms", to).await.text("id").to_owned();
    let check = format!("/v1/verifications/{id}/check");
    let codes = [
        (json!(""), "invalid_code"),
        (json!("123"), "invalid_code"),
        (json!("12345678901"), "invalid_code"),
        (json!("１２３"), "invalid_code"),
        (json!("12345a"), "invalid_code"),
        (json!("1".repeat(9_000)), "invalid_code"),
        (json!(12345), "invalid_request"),
        (json!(["123456"]), "invalid_request"),
        (Value::Null, "invalid_request"),
    ];
    for (code, problem) in codes {
        let answer = pipeline.post("all", &check, json!({ "code": code })).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text("code")),
            (422, problem),
            "{code:.30}"
        );
    }
    // None of these requests counted as a check: five wrong codes are still compared.
    for _ in 0..4 {
        assert_eq!(
            pipeline.check("all", &id, "00000").await.text("status"),
            "pending"
        );
    }
    for hostile in [
        "..%2F..%2Fadmin",
        "%7Bx%7D",
        "*",
        "a",
        &"a".repeat(10_000),
        "%00",
        "'%3B--",
    ] {
        let answer = pipeline
            .call(
                "all",
                KEY,
                Method::GET,
                &format!("/v1/verifications/{hostile}"),
                None,
            )
            .await;
        assert!(
            matches!(answer.status.as_u16(), 404 | 414 | 431 | 400),
            "{hostile:.20} {}",
            answer.status
        );
        let answer = pipeline
            .post(
                "all",
                &format!("/v1/verifications/{hostile}/check"),
                json!({ "code": "123456" }),
            )
            .await;
        assert_ne!(answer.body["valid"], true);
        assert!(!answer.status.is_server_error());
    }
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

#[tokio::test]
async fn a_killed_process_loses_nothing() {
    let mut pipeline = Pipeline::configure(&Settings::embedded());
    pipeline.start("first", &[]).await;
    let mut ids = Vec::new();
    for number in 0..40 {
        let answer = pipeline
            .ask("first", "sms", &format!("+4915110{number:06}"))
            .await;
        assert_eq!(answer.status, StatusCode::ACCEPTED);
        ids.push(answer.text("id").to_owned());
        if number == 39 {
            pipeline.processes["first"].process.signal("KILL");
        }
    }
    pipeline
        .processes
        .get_mut("first")
        .unwrap()
        .process
        .wait(10);
    pipeline.processes.remove("first");
    pipeline.start("second", &[]).await;
    until(40, "every accepted message was handed over", || async {
        for id in &ids {
            let status = pipeline.status("second", id).await;
            if status.body["deliveries"][0]["outcome"] != "accepted" {
                return None;
            }
        }
        Some(())
    })
    .await;
    let role = pipeline.processes.get_mut("second").unwrap();
    role.process.signal("TERM");
    assert!(role.process.wait(30).success());
}

/// Runs a command and returns its output. Panics unless it ends as `succeeds` says.
fn said(pipeline: &Pipeline, arguments: &[&str], succeeds: bool) -> String {
    let output = pipeline.command().args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert_eq!(output.status.success(), succeeds, "{arguments:?}: {text}");
    text
}

/// A backup is made while the process runs. After it is restored, no earlier code is right, and the
/// guesses recorded in it still count.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_file_makes_no_used_code_right_again() {
    const USED: &str = "+4915112345678";
    const GUESSED: &str = "+4915112345679";
    let mailbox = Arc::<Mailbox>::default();
    let gateway = SmsGateway::start(mailbox.clone()).await;
    let mut settings = Settings::embedded();
    settings.providers =
        SmsGateway::config(gateway.port()) + "[email.providers.inbox]\nkind = \"inbox\"\n";
    settings.service =
        "[services.test.policy]\ncooldown_seconds = 0\n[services.test.guesses]\nper_hour = 4"
            .into();
    let mut pipeline = Pipeline::configure(&settings);
    pipeline.start("before", &[]).await;
    let ask = async |pipeline: &Pipeline, name: &str, to: &str| {
        let answer = pipeline.ask(name, "sms", to).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{:?}", answer.body);
        let arrivals = until(10, "the message", || async {
            let arrivals = mailbox.of(to);
            (!arrivals.is_empty()).then_some(arrivals)
        });
        let code = arrivals.await[0].code.clone();
        (answer.text("id").to_owned(), code)
    };
    let (used, used_code) = ask(&pipeline, "before", USED).await;
    let (guessed, guessed_code) = ask(&pipeline, "before", GUESSED).await;
    for _ in 0..3 {
        pipeline.check("before", &guessed, "00000").await;
    }

    let backup = pipeline.folder().join("backup.db");
    let name = backup.display().to_string();
    said(&pipeline, &["backup", &name], true);
    let mode = std::fs::metadata(&backup).unwrap().permissions();
    let mode = std::os::unix::fs::PermissionsExt::mode(&mode);
    assert_eq!(mode & 0o777, 0o600);
    let again = said(&pipeline, &["backup", &name], false);
    assert!(again.contains("exists and is not overwritten"), "{again}");
    let approved = pipeline.check("before", &used, &used_code).await;
    assert_eq!(approved.body["valid"], true);

    let running = said(&pipeline, &["restore", &name], false);
    assert!(
        running.contains("another process uses this file"),
        "{running}"
    );
    let process = &mut pipeline.processes.get_mut("before").unwrap().process;
    process.signal("TERM");
    assert!(process.wait(30).success());
    let taken = said(&pipeline, &["restore", &name], false);
    assert!(taken.contains("exists and is not overwritten"), "{taken}");
    for ending in ["", "-wal", "-shm"] {
        let name = format!("watchword.db{ending}");
        let to = pipeline.folder().join(format!("replaced.db{ending}"));
        let moved = std::fs::rename(pipeline.folder().join(name), to);
        assert!(moved.is_ok() || !ending.is_empty(), "{moved:?}");
    }
    let restored = said(&pipeline, &["restore", &name], true);
    assert!(restored.contains("have ended"), "{restored}");

    pipeline.start("after", &[]).await;
    for (id, code) in [(&used, &used_code), (&guessed, &guessed_code)] {
        let answer = pipeline.check("after", id, code).await;
        assert_eq!(answer.body["valid"], false, "{:?}", answer.body);
        assert_eq!(pipeline.status("after", id).await.text("status"), "expired");
    }
    // The fourth wrong code locks the subject.
    let (new, _) = ask(&pipeline, "after", GUESSED).await;
    pipeline.check("after", &new, "00000").await;
    let locked = pipeline.ask("after", "sms", GUESSED).await;
    assert_eq!(locked.text("code"), "subject_locked", "{:?}", locked.body);
    // Another subject is not locked.
    let (other, _) = ask(&pipeline, "after", USED).await;
    let code = until(10, "the second message", || async {
        mailbox.of(USED).get(1).map(|arrival| arrival.code.clone())
    });
    let valid = pipeline.check("after", &other, &code.await).await;
    assert_eq!(valid.body["valid"], true, "{:?}", valid.body);
}

/// A wall clock set back slightly extends no code. Set back further, it ends all codes sent before,
/// in the running process and after a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_back_ends_the_codes_sent_before() {
    let mailbox = Arc::<Mailbox>::default();
    let gateway = SmsGateway::start(mailbox.clone()).await;
    let mut settings = Settings::embedded();
    settings.providers =
        SmsGateway::config(gateway.port()) + "[email.providers.inbox]\nkind = \"inbox\"\n";
    let mut pipeline = Pipeline::configure(&settings);
    let clock = SteppedClock::of(pipeline.folder(), "all");
    pipeline.variables = clock.variables();
    pipeline.start("all", &[]).await;
    let ask = async |pipeline: &Pipeline, number: u64| {
        let to = format!("+4915112{number:06}");
        let answer = pipeline.ask("all", "sms", &to).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{:?}", answer.body);
        let code = until(10, "the message", || async {
            mailbox.of(&to).first().map(|arrival| arrival.code.clone())
        });
        (answer.text("id").to_owned(), code.await)
    };
    let begun = pipeline.metrics("all").await["watchword_clock_seconds"];
    let is_behind = async |pipeline: &Pipeline, seconds: f64| {
        until(10, "the process notices its clock", || async {
            let clock = pipeline.metrics("all").await["watchword_clock_seconds"];
            // The test takes less time than the smaller step, so the two cannot be confused.
            (begun - clock > seconds - 20.0 && begun - clock <= seconds).then_some(())
        })
        .await;
    };
    let valid = async |pipeline: &Pipeline, (id, code): &(String, String)| {
        pipeline.check("all", id, code).await.body["valid"].clone()
    };

    let (small, large, restarted) = (
        ask(&pipeline, 1).await,
        ask(&pipeline, 2).await,
        ask(&pipeline, 3).await,
    );
    clock.step(-20);
    is_behind(&pipeline, 20.0).await;
    assert_eq!(valid(&pipeline, &small).await, true);
    clock.step(-1_200);
    is_behind(&pipeline, 1_200.0).await;
    assert_eq!(valid(&pipeline, &large).await, false);
    assert!(pipeline.logs().contains("was set back by more than 30 s"));
    let next = ask(&pipeline, 4).await;
    assert_eq!(valid(&pipeline, &next).await, true);

    let live = ask(&pipeline, 5).await;
    let process = &mut pipeline.processes.get_mut("all").unwrap().process;
    process.signal("TERM");
    assert!(process.wait(30).success());
    clock.step(-1_260);
    pipeline.start("all", &[]).await;
    for ended in [&restarted, &live] {
        assert_eq!(valid(&pipeline, ended).await, false);
        let status = pipeline.status("all", &ended.0).await;
        assert_eq!(status.text("status"), "expired", "{:?}", status.body);
    }
    let next = ask(&pipeline, 6).await;
    assert_eq!(valid(&pipeline, &next).await, true);
}

#[test]
fn a_wrong_configuration_names_its_key_and_no_value() {
    let cases = [
        (
            "lifetime_seconds = 601",
            "services.test.policy.lifetime_seconds",
        ),
        ("code_length = 4", "services.test.policy.code_length"),
        ("max_checks = 6", "services.test.policy.max_checks"),
        ("nonsense = 1", "nonsense"),
        ("resend = \"hunter2\"", "services.test.policy.resend"),
    ];
    for (line, key) in cases {
        let mut settings = Settings::embedded();
        settings.service = format!("[services.test.policy]\n{line}");
        refused(&Pipeline::configure(&settings), &[], key);
    }
    let sound = Pipeline::configure(&Settings::embedded());
    // The error names the path of a secret, not the secret.
    refused(
        &sound,
        &[("WATCHWORD_KEYS__INDEX__FILE", "/nonexistent/index")],
        "`keys.index.file`: the file /nonexistent/index does not exist",
    );
    refused(
        &sound,
        &[("WATCHWORD_KEYS__INDEX", "{ env = \"hunter2\" }")],
        "keys.index.env",
    );
    refused(
        &sound,
        &[("WATCHWORD_HTTP__LISTEN", "hunter2")],
        "http.listen",
    );
    refused(
        &sound,
        &[("WATCHWORD_HTTP__MAX_IN_FLIGHT", "0")],
        "http.max_in_flight",
    );
    refused(
        &sound,
        &[("WATCHWORD_SERVICES__TEST__COUNTRIES", "[\"UK\"]")],
        "services.test.countries",
    );
    refused(&sound, &[("WATCHWORD_NOSUCH__KEY", "hunter2")], "nosuch");
    refused(
        &sound,
        &[("WATCHWORD_EMAIL__PROVIDERS__INBOX", PLAIN_SMTP)],
        "email.providers.inbox.tls",
    );
    refused(
        &sound,
        &[("WATCHWORD_SMS__PROVIDERS__INBOX", PLAIN_HTTP)],
        "sms.providers.inbox.request.url",
    );
    let key = sound.folder().join("sealing");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    refused(&sound, &[], "keys.sealing[0]");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(&key, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
    refused(&sound, &[], "keys.sealing[0]");
}

/// `config check` refuses every address that `run` would refuse.
#[test]
fn an_unusable_address_of_broker_or_store_is_refused() {
    let (broker, store) = ("amqp://hunter2@127.0.0.1", "redis://:hunter2@127.0.0.1");
    for (broker, store, key) in [
        ("amqp://hunter2@broker.example", store, "rabbitmq.url"),
        ("http://hunter2", store, "rabbitmq.url"),
        (broker, "redis://:hunter2@store.example", "redis.url"),
        (broker, "redis+sentinel://:hunter2@127.0.0.1", "redis.url"),
    ] {
        let pipeline = Pipeline::configure(&Settings::distributed(broker, store));
        refused(&pipeline, &[], key);
        let allowed = [
            ("WATCHWORD_RABBITMQ__ALLOW_CLEARTEXT", "true"),
            ("WATCHWORD_REDIS__ALLOW_CLEARTEXT", "true"),
        ];
        if broker.contains("broker.") || store.contains("store.") {
            let mut command: Command = pipeline.command();
            let output = command.envs(allowed).args(["config", "check"]).output();
            assert!(output.unwrap().status.success(), "{key}");
        }
    }
    let pipeline = Pipeline::configure(&Settings {
        engine: "engine = \"embedded\"\n".into(),
        ..Settings::embedded()
    });
    refused(&pipeline, &[], "embedded");
}

const PLAIN_SMTP: &str = r#"{ kind = "smtp", host = "smtp.example.org", port = 25, tls = "none", from = "a@example.org" }"#;
const PLAIN_HTTP: &str =
    r#"{ kind = "http", request = { method = "POST", url = "http://api.example.org/hunter2" } }"#;

fn refused(pipeline: &Pipeline, variables: &[(&str, &str)], key: &str) {
    let mut command: Command = pipeline.command();
    let output = command
        .envs(variables.iter().copied())
        .args(["config", "check"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{key} was accepted");
    assert!(text.contains(key), "{key}: {text}");
    assert!(!text.contains("hunter2"), "{text}");
}

/// The sample configurations are valid except for the hash of an API key, and the error about it
/// says how to make one.
#[test]
fn the_shipped_configurations_are_valid_but_for_an_api_key() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let pipeline = Pipeline::configure(&Settings::embedded());
    let api_keys = format!("[{{ id = \"k1\", sha256 = \"{}\" }}]", "1".repeat(64));
    for file in ["watchword.toml", "distributed.toml"] {
        let mut command = pipeline.command();
        let key = |name: &str| pipeline.folder().join(name);
        command
            .current_dir(root)
            .env("WATCHWORD_CONFIG", format!("{root}/config/{file}"))
            .env(
                "WATCHWORD_KEYS__SEALING",
                format!("[{{ id = \"s1\", file = {:?} }}]", key("sealing")),
            )
            .env(
                "WATCHWORD_KEYS__DIGEST",
                format!("[{{ id = \"d1\", file = {:?} }}]", key("digest")),
            )
            .env("WATCHWORD_KEYS__INDEX__FILE", key("index"))
            .env("WATCHWORD_RABBITMQ_PASSWORD", "guest")
            .env("WATCHWORD_KANNEL_PASSWORD", "x");
        let output = command.args(["config", "check"]).output().unwrap();
        let shown = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{file}");
        for word in ["services.example.api_keys[0].sha256", "watchword init"] {
            assert!(shown.contains(word), "{file}: {shown}");
        }
        let output = command.env("WATCHWORD_SERVICES__EXAMPLE__API_KEYS", &api_keys);
        let output = output.output().unwrap();
        let shown = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{file}: {shown}");
    }
}
