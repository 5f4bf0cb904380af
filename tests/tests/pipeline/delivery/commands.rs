//! The operator's commands: rules are checked, a provider is tried, dead letters are handled.

use watchword_tests::{Pipeline, Settings, until};

use super::{distributed, number, outcome_is, ports, settings_of, simulator, with_secrets};

/// A wrong response rule is refused at start, with its line number and without values.
#[tokio::test]
async fn a_wrong_rule_is_refused_with_its_line() {
    let base = settings_of(Settings::embedded(), (1, 1), (2, 2));
    for (right, wrong, key) in [
        (
            "status = [\"202\"]",
            "status = [\"2O2\"]",
            "first.response.rules[0].status",
        ),
        (
            "\"/error\" = [\"opted_out\"]",
            "\"error\" = [\"opted_out\"]",
            "first.response.rules[2].json",
        ),
        (
            "class = \"message_rejected\"",
            "class = \"hunter2\"",
            "rules[3].class",
        ),
        ("{setting:path}", "{setting:hunter2}", "first.request.url"),
        (
            "secret = \"webhook\"",
            "secret = \"hunter2\"",
            "first.receipt.verify.secret",
        ),
        (
            "state = \"/body/status\"",
            "state = \"status\"",
            "first.receipt.state",
        ),
        (
            "kind = \"bearer\"",
            "kind = \"hunter2\"",
            "first.request.auth",
        ),
        (
            "providers = [\"first\", \"second\"]",
            "providers = [\"first\", \"hunter2\"]",
            "sms.routes[0].providers",
        ),
    ] {
        let mut settings = base.clone();
        assert!(settings.providers.contains(right), "{right}");
        settings.providers = settings.providers.replacen(right, wrong, 1);
        let pipeline = with_secrets(Pipeline::configure(&settings));
        let mut command = pipeline.command();
        command.env("WATCHWORD_SMS__PUBLIC_URL", "http://127.0.0.1:8080");
        let output = command.args(["config", "check"]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{wrong}");
        assert!(error.contains(key), "{wrong}: {error}");
        assert!(!error.contains("hunter2"), "{error}");
        let text = std::fs::read_to_string(pipeline.folder().join("watchword.toml")).unwrap();
        let marker = wrong.lines().next().unwrap();
        let line = text.lines().position(|line| line.contains(marker)).unwrap() + 1;
        let told = error.split(", line ").nth(1).unwrap_or_default();
        let told: String = told.chars().take_while(char::is_ascii_digit).collect();
        assert_eq!(told, line.to_string(), "{wrong}: {error}");
    }
}

/// `provider test` prints the request without secrets, and can send one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_is_shown_masked_and_tried() {
    let (first, second) = (simulator().await, simulator().await);
    let settings = settings_of(Settings::embedded(), ports(&first), ports(&second));
    let pipeline = with_secrets(Pipeline::configure(&settings));
    let run = |arguments: &[&str]| {
        let output = pipeline
            .command()
            .args(["provider", "test"])
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (
            output.status.success(),
            text + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let (fine, shown) = run(&["first"]);
    assert!(
        fine && shown.contains("POST http://127.0.0.1") && shown.contains("authorization: ****"),
        "{shown}"
    );
    assert!(!shown.contains("Bearer simulator"), "{shown}");
    assert!(first.messages().is_empty());
    let (fine, sent) = run(&["first", "--to", &number(1)]);
    assert!(
        fine && sent.contains("accepted (http_202), id sim-1"),
        "{sent}"
    );
    for part in [
        "HTTP 202",
        "sim-1",
        "response.rules[",
        "content-type: application/json",
    ] {
        assert!(sent.contains(part), "{part}: {sent}");
    }
    assert!(!sent.contains(&number(1)[1..]), "{sent}");
    assert_eq!(first.messages().len(), 1);
    let (fine, missing) = run(&["nosuch"]);
    assert!(!fine && missing.contains("no provider"), "{missing}");
}

/// Dead-lettered orders are listed and shown without content, replayed while their code is valid,
/// and discarded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parked_orders_are_listed_shown_replayed_and_dropped() {
    let mut world = distributed().await;
    // The worker starts with a configuration that lacks the service.
    let whole = world.pipeline.folder().join("watchword.toml");
    let whole = std::fs::read_to_string(whole).unwrap();
    let path = world.pipeline.folder().join("worker.toml");
    let variable = ("WATCHWORD_CONFIG".to_owned(), path.display().to_string());
    let own = world.pipeline.own_variables.entry("sms".to_owned());
    own.or_default().push(variable);
    std::fs::write(
        &path,
        whole
            .replace("[services.test]", "[services.later]")
            .replace("[services.test.limits]", "[services.later.limits]"),
    )
    .unwrap();
    world.pipeline.processes["sms"].process.signal("TERM");
    world
        .pipeline
        .processes
        .get_mut("sms")
        .unwrap()
        .process
        .wait(30);
    world.pipeline.start("sms", &["sms-worker"]).await;

    // An order of an unknown service is retried until the configuration has the service.
    let early = world.pipeline.ask("issuer", "sms", &number(0)).await;
    until(20, "the order has been tried", || async {
        let retries = world.pipeline.total("watchword_retries_total", &["sms"]);
        (retries.await >= 1).then_some(())
    })
    .await;
    let cut = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &whole).unwrap();
    outcome_is(&world.pipeline, "verifier", early.text("id"), 1, "accepted").await;
    std::fs::write(&path, cut).unwrap();
    until(20, "the configuration without it is read", || async {
        let reloads = world.pipeline.metrics("sms").await;
        let read = "watchword_config_reloads_total{result=\"ok\"}";
        (reloads[read] >= 2.0).then_some(())
    })
    .await;

    // After a minute such orders are dead-lettered.
    let mut ids = Vec::new();
    for n in 1..=3 {
        ids.push(
            world
                .pipeline
                .ask("issuer", "sms", &number(n))
                .await
                .text("id")
                .to_owned(),
        );
    }
    for id in &ids {
        until(120, &format!("the delivery of {id} is parked"), || async {
            let status = world.pipeline.status("verifier", id).await.body;
            (status["deliveries"][0]["outcome"] == "parked").then_some(())
        })
        .await;
    }
    std::fs::write(&path, whole).unwrap();
    world.pipeline.processes["sms"].process.signal("TERM");
    world
        .pipeline
        .processes
        .get_mut("sms")
        .unwrap()
        .process
        .wait(30);
    world.pipeline.start("sms", &["sms-worker"]).await;

    let run = |arguments: &[&str]| {
        let output = world
            .pipeline
            .command()
            .arg("dead-letters")
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (
            output.status.success(),
            text + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let delivery = |n: usize| format!("{}-1", ids[n]);
    let (fine, list) = run(&["list"]);
    assert!(
        fine && list.contains("3 dead letters") && list.contains("unknown_service"),
        "{list}"
    );
    for id in &ids {
        assert!(list.contains(&format!("{id}-1")), "{list}");
    }
    let (_, none) = run(&["list", "--reason", "broken_seal"]);
    assert!(none.contains("0 dead letters"), "{none}");
    let (fine, shown) = run(&["show", &delivery(0)]);
    assert!(
        fine && shown.contains("\"reason\": \"unknown_service\"")
            && shown.contains("\"outcome\": \"parked\""),
        "{shown}"
    );
    assert!(
        !shown.contains("4915112") && !shown.contains("sealed"),
        "{shown}"
    );
    let (fine, refused) = run(&["replay"]);
    assert!(!fine && refused.contains("--all"), "{refused}");
    let (fine, replayed) = run(&["replay", "--id", &delivery(0)]);
    assert!(fine && replayed.contains("1 replayed"), "{replayed}");
    outcome_is(&world.pipeline, "verifier", &ids[0], 1, "accepted").await;
    assert_eq!(world.first.messages().len(), 2);
    let (fine, dropped) = run(&["discard", "--id", &delivery(1)]);
    assert!(fine && dropped.contains("1 discarded"), "{dropped}");
    let (_, list) = run(&["list", "--queue", "sms"]);
    assert!(
        list.contains("1 dead letter") && list.contains(&delivery(2)),
        "{list}"
    );
    let (_, list) = run(&["list", "--service", "test"]);
    assert!(
        list.contains("1 dead letter"),
        "listing changes nothing: {list}"
    );
    let audit = world.pipeline.command().arg("audit").output().unwrap();
    assert!(
        audit.status.success(),
        "{}",
        String::from_utf8_lossy(&audit.stdout)
    );
}
