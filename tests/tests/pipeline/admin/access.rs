//! Authorization: keys and their roles, where the API listens, the limit of look-ups.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use watchword_tests::pipeline::{ADMIN_KEY, VIEWER_KEY};
use watchword_tests::{Pipeline, Settings};

use super::{NUMBER, command, get, is_problem, post, routes, with_keys};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_route_answers_without_a_key_and_a_viewer_changes_nothing() {
    let pipeline = with_keys("").await;
    for (method, path, body, changes) in routes() {
        for key in ["", "guessed", watchword_tests::pipeline::KEY] {
            let answer = pipeline.admin("all", key, method.clone(), path, body.clone());
            is_problem(&answer.await, 401, "unauthorized");
            // All unknown keys share one rate limit bucket; wait until it has refilled.
            tokio::time::sleep(Duration::from_millis(350)).await;
        }
        let viewed = pipeline.admin("all", VIEWER_KEY, method.clone(), path, body.clone());
        let viewed = viewed.await;
        if changes {
            is_problem(&viewed, 403, "forbidden");
        } else {
            assert!(
                viewed.status.is_success() || viewed.status == 404,
                "{path}: {:?}",
                viewed.body
            );
        }
        let done = pipeline.admin("all", ADMIN_KEY, method, path, body).await;
        assert!(
            done.status.is_success() || done.status == 404,
            "{path}: {:?}",
            done.body
        );
    }
    // The metrics route needs no key.
    let metrics = pipeline.metrics("all").await;
    let refused =
        metrics["watchword_admin_requests_total{action=\"none\",result=\"unauthorized\"}"];
    assert!((refused - 45.0).abs() < 0.1, "{refused}");
    for (method, path, status, code) in [
        (Method::GET, "/nowhere", 404, "not_found"),
        (Method::DELETE, "/unlock", 405, "method_not_allowed"),
    ] {
        let answer = pipeline.admin("all", ADMIN_KEY, method, path, None).await;
        is_problem(&answer, status, code);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_is_off_without_a_key_and_in_clear_beyond_loopback() {
    for (settings, listen, behind_tls, why) in [
        (
            Settings::embedded(),
            "127.0.0.1",
            false,
            "no admin key is configured",
        ),
        (
            Settings::embedded().with_admin_keys(),
            "0.0.0.0",
            false,
            "admin.behind_tls",
        ),
        (Settings::embedded().with_admin_keys(), "0.0.0.0", true, ""),
    ] {
        let mut pipeline = Pipeline::configure(&settings);
        let (_, port) = pipeline.ports("all");
        let own = vec![
            ("WATCHWORD_ADMIN__BEHIND_TLS".into(), behind_tls.to_string()),
            ("WATCHWORD_ADMIN__LISTEN".into(), format!("{listen}:{port}")),
        ];
        pipeline.own_variables.insert("all".into(), own);
        pipeline.launch("all", &[]);
        pipeline.ready("all").await;
        let answer = get(&pipeline, "/status").await;
        if why.is_empty() {
            assert_eq!(answer.status, 200, "{:?}", answer.body);
            continue;
        }
        is_problem(&answer, 404, "admin_off");
        assert!(answer.text("detail").contains(why), "{:?}", answer.body);
        let is_told = pipeline.logs().contains("the admin API is off");
        assert_eq!(is_told, listen != "127.0.0.1");
        // The running process owns the file, so the command cannot work on it directly and must say
        // so.
        let (is_fine, told) = command(&pipeline, ADMIN_KEY, &["audit"]);
        assert!(!is_fine && told.contains("is off: "), "{told}");
        // Metrics and health checks are still served.
        assert!(!pipeline.metrics("all").await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_follow_a_reload_and_the_configuration_shows_no_secret() {
    let pipeline = with_keys("").await;
    let shown = get(&pipeline, "/configuration").await;
    let text = shown.body.to_string();
    assert!(
        text.contains("/index") && text.contains("\"role\":\"operator\""),
        "{text}"
    );
    for line in std::fs::read_to_string(pipeline.folder().join("watchword.toml"))
        .unwrap()
        .split('"')
        .filter(|part| part.len() == 64)
    {
        assert!(!text.contains(line), "{text}");
    }
    let path = pipeline.folder().join("watchword.toml");
    let whole = std::fs::read_to_string(&path).unwrap();
    let reload = json!({ "reason": "a test" });
    std::fs::write(
        &path,
        whole.replace("role = \"viewer\"", "role = \"owner\""),
    )
    .unwrap();
    let wrong = post(&pipeline, "/reload", reload.clone()).await;
    is_problem(&wrong, 422, "invalid_request");
    assert!(
        wrong.text("detail").contains("admin.keys.desk.role"),
        "{:?}",
        wrong.body
    );
    // A later status explains why the process runs with an earlier configuration.
    let status = get(&pipeline, "/status").await.body;
    let refused = status["reload_refused"].as_str().unwrap();
    assert!(refused.contains("admin.keys.desk.role"), "{refused}");
    // A command cannot read the wrong file either, and needs the address.
    let url = format!("http://127.0.0.1:{}", pipeline.processes["all"].admin);
    let (is_fine, told) = command(&pipeline, ADMIN_KEY, &["status", "--admin-url", &url]);
    let warning = "warning: the last reload was refused";
    assert!(is_fine && told.contains(warning), "{told}");
    let retention = "[ledger]\nretention_hours = 31\n";
    std::fs::write(&path, format!("{whole}{retention}")).unwrap();
    assert_eq!(post(&pipeline, "/reload", reload.clone()).await.status, 200);
    let status = get(&pipeline, "/status").await.body;
    assert_eq!(status["reload_refused"], Value::Null);
    assert_eq!(status["restart_needed"], json!(["ledger.retention_hours"]));
    for arguments in [&["status"][..], &["doctor"]] {
        let (_, told) = command(&pipeline, ADMIN_KEY, arguments);
        let warning = "the earlier values of ledger.retention_hours until it is restarted";
        assert!(told.contains(warning), "{told}");
    }
    let hash = whole
        .split("[admin.keys.desk]")
        .nth(1)
        .unwrap()
        .split('"')
        .nth(1)
        .unwrap();
    std::fs::write(&path, whole.replace(hash, &"0".repeat(64))).unwrap();
    let viewed = pipeline.admin("all", VIEWER_KEY, Method::GET, "/status", None);
    assert_eq!(viewed.await.status, 200);
    assert_eq!(post(&pipeline, "/reload", reload).await.status, 200);
    let viewed = pipeline.admin("all", VIEWER_KEY, Method::GET, "/status", None);
    is_problem(&viewed.await, 401, "unauthorized");
    let status = get(&pipeline, "/status").await.body;
    assert_eq!(status["ready"], true);
    assert_eq!(status["roles"].as_array().unwrap().len(), 4);
    assert_eq!(status["queues"].as_array().unwrap().len(), 5);
    assert_eq!(status["last_hour"][0]["channel"], "sms");
}

/// Look-ups are limited per key, so that a list of numbers cannot be tried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn look_ups_are_limited_and_other_requests_go_on() {
    let pipeline = with_keys("").await;
    let mut refused = None;
    let mut granted = 0;
    for number in 0..60 {
        let to = format!("+49151123456{number:02}");
        let body = json!({ "service": "test", "recipient": to });
        let answer = post(&pipeline, "/verifications/find", body).await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
        granted += 1;
        // Stay below the limit of requests per second, so that only the limit of look-ups applies.
        tokio::time::sleep(Duration::from_millis(110)).await;
    }
    let refused = refused.expect("a limit");
    is_problem(&refused, 429, "too_many_requests");
    assert!(refused.headers.contains_key("retry-after"));
    assert!((30..=36).contains(&granted), "{granted}");
    let unlock = json!({ "service": "test", "recipient": NUMBER, "reason": "a test" });
    let mut unlocked = Vec::new();
    for _ in 0..4 {
        // A permit may have been refilled meanwhile, so one of several tries must be refused.
        let answer = post(&pipeline, "/unlock", unlock.clone()).await;
        unlocked.push(answer.status.as_u16());
    }
    assert!(unlocked.contains(&429), "{unlocked:?}");
    let by_id = json!({ "id": "a".repeat(32) });
    is_problem(
        &post(&pipeline, "/verifications/find", by_id).await,
        404,
        "not_found",
    );
    // Each key has its own limit.
    let body = json!({ "service": "test", "recipient": NUMBER });
    let find = "/verifications/find";
    let other = pipeline.admin("all", VIEWER_KEY, Method::POST, find, Some(body));
    assert_eq!(other.await.status, 200);

    let mut answers = Vec::new();
    for _ in 0..80 {
        answers.push(get(&pipeline, "/status").await.status.as_u16());
    }
    assert!(answers.contains(&429), "{answers:?}");
}
