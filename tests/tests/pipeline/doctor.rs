//! `watchword doctor` against real peers: no complaint about a healthy installation, and for each
//! fault a line that names it, a fix, and a status other than 0.

use std::process::Output;

use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use watchword_tests::fault::certificate::{Authority, Flaw};
use watchword_tests::sink::Script;
use watchword_tests::{Pipeline, RabbitMq, RedisServer, Settings, Sink, until};

struct Installation {
    rabbitmq: RabbitMq,
    redis: RedisServer,
    relay: Sink,
    pipeline: Pipeline,
}

impl Installation {
    async fn start() -> Self {
        let rabbitmq = RabbitMq::start().await;
        let redis = RedisServer::with(&["--appendonly", "yes", "--maxmemory", "100mb"]).await;
        let relay = Sink::start().await;
        let mut settings = Settings::distributed(&rabbitmq.url(), &redis.url());
        settings.providers = format!(
            "[sms.providers.inbox]\nkind = \"inbox\"\n[email.providers.relay]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\n\
             tls = \"none\"\nfrom = \"Test <no-reply@mail.example.org>\"\ntimeout_seconds = 3\n",
            relay.port()
        );
        let mut pipeline = Pipeline::configure(&settings);
        pipeline.start("all", &[]).await;
        Self {
            rabbitmq,
            redis,
            relay,
            pipeline,
        }
    }

    /// Runs the doctor with these variables; returns whether it found no error, and its output.
    async fn asked(&self, variables: &[(&str, &str)]) -> (bool, String) {
        let mut command = self.pipeline.command();
        command.envs(variables.iter().copied()).arg("doctor");
        let output: Output = tokio::task::spawn_blocking(move || command.output())
            .await
            .unwrap()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        (output.status.success(), format!("{text}{errors}"))
    }

    async fn finds(&self, variables: &[(&str, &str)], words: &[&str]) {
        let (is_well, text) = self.asked(variables).await;
        assert!(!is_well, "{words:?} in\n{text}");
        let line = text
            .lines()
            .find(|line| line.starts_with("FAIL") && words.iter().all(|word| line.contains(word)));
        assert!(line.is_some(), "{words:?} in\n{text}");
    }
}

/// Starts a TLS listener with a certificate of an unknown authority and returns its port.
async fn untrusted() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(Authority::new().server(Flaw::None));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = acceptor.accept(stream).await;
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_finds_what_is_broken_and_nothing_else() {
    let mut all = Installation::start().await;
    let (is_well, text) = all.asked(&[]).await;
    assert!(is_well && !text.contains("FAIL"), "{text}");
    for line in [
        "rabbitmq ",
        "queues are declared",
        "redis ",
        "clock",
        "email relay",
        "watchword.sms ",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }

    // Faults of the configuration.
    let wrong = all.rabbitmq.url_of("watchword", "not-the-password-4711");
    all.finds(
        &[("WATCHWORD_RABBITMQ__URL", &wrong)],
        &["rabbitmq", "password"],
    )
    .await;
    let (_, text) = all.asked(&[("WATCHWORD_RABBITMQ__URL", &wrong)]).await;
    assert!(!text.contains("4711"), "{text}");
    let nowhere = "redis://127.0.0.1:1/0";
    all.finds(&[("WATCHWORD_REDIS__URL", nowhere)], &["redis", "running"])
        .await;
    let example = "[{ id = \"k1\", sha256 = \"22a60ff8c666ee7f81ede927b1adfb38922412b0bbd7162b99525a22607f603b\" }]";
    // The published key of earlier samples is refused.
    let with_example = ("WATCHWORD_SERVICES__TEST__API_KEYS", example);
    let (is_well, text) = all.asked(&[with_example]).await;
    let says = "the variable WATCHWORD_SERVICES__TEST__API_KEYS";
    assert!(
        !is_well && text.contains(says) && text.contains("published example key"),
        "{text}"
    );
    // Receipts: addresses at which no SMS worker listens.
    let process = &all.pipeline.processes["all"];
    for (port, words) in [
        (process.admin, "something else than an SMS worker"),
        (1, "cannot be reached"),
    ] {
        let url = format!("http://127.0.0.1:{port}");
        let (is_well, text) = all.asked(&[("WATCHWORD_SMS__PUBLIC_URL", &url)]).await;
        let warns = |line: &str| line.starts_with("warn receipts") && line.contains(words);
        assert!(is_well && text.lines().any(warns), "{text}");
    }
    let url = format!("http://127.0.0.1:{}", process.http);
    let (is_well, text) = all.asked(&[("WATCHWORD_SMS__PUBLIC_URL", &url)]).await;
    assert!(is_well && text.contains("leads to an SMS worker"), "{text}");

    // A certificate of an authority that is not trusted.
    let port = untrusted().await;
    for (variable, url, about) in [
        ("WATCHWORD_RABBITMQ__URL", "amqps://watchword@", "rabbitmq"),
        ("WATCHWORD_REDIS__URL", "rediss://", "redis"),
    ] {
        let url = format!("{url}127.0.0.1:{port}");
        let words = [about, "no authority that is trusted here"];
        all.finds(&[(variable, &url)], &words).await;
    }

    // A clock that is off, set with libfaketime.
    let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
    all.finds(
        &[("LD_PRELOAD", library), ("FAKETIME", "+120s")],
        &["clock", "time server"],
    )
    .await;

    // Faults of the store.
    all.redis
        .command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
        .await;
    all.finds(&[], &["redis", "noeviction"]).await;
    all.redis
        .command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"])
        .await;
    all.redis
        .command(&["CONFIG", "SET", "maxmemory", "1200000"])
        .await;
    all.finds(&[], &["redis", "raise it"]).await;
    all.redis
        .command(&["CONFIG", "SET", "maxmemory", "100mb"])
        .await;

    // Faults of the broker: an alarm, a missing queue, a queue with other arguments, a queue
    // without a consumer.
    all.rabbitmq.disk_alarm(true);
    all.finds(&[], &["rabbitmq", "alarm"]).await;
    all.rabbitmq.disk_alarm(false);
    all.pipeline.processes.clear();
    let path = "queues/%2f/watchword.sms.retry.5s";
    all.rabbitmq
        .call(reqwest::Method::DELETE, path, None)
        .await
        .unwrap();
    all.finds(&[], &["topology", "watchword.sms.retry.5s", "--apply"])
        .await;
    let body = json!({ "durable": true, "arguments": { "x-queue-type": "quorum" } });
    all.rabbitmq
        .call(reqwest::Method::PUT, path, Some(body))
        .await
        .unwrap();
    all.finds(
        &[],
        &["topology", "watchword.sms.retry.5s", "other arguments"],
    )
    .await;
    all.rabbitmq
        .call(reqwest::Method::DELETE, path, None)
        .await
        .unwrap();
    let body = json!({
        "properties": { "delivery_mode": 2 }, "routing_key": "sms", "payload": "x", "payload_encoding": "string",
    });
    let publish = "exchanges/%2f/watchword.send/publish";
    all.rabbitmq
        .call(reqwest::Method::POST, publish, Some(body))
        .await
        .unwrap();
    all.finds(&[], &["watchword.sms", "no consumer", "1 messages"])
        .await;

    let path = format!("permissions/%2f/{}", watchword_tests::rabbitmq::USER);
    for (write, is_right) in [("^watchword.*$", false), (".*", true)] {
        let body = json!({ "configure": ".*", "write": write, "read": ".*" });
        all.rabbitmq
            .call(reqwest::Method::PUT, &path, Some(body))
            .await
            .unwrap();
        if !is_right {
            all.finds(&[], &["rabbitmq", "amq.default"]).await;
        }
    }

    // Faults of a provider.
    all.relay.habit("EHLO", Some(Script::Cut));
    all.finds(&[], &["email relay", "cannot be reached"]).await;
}

/// A process with the role verifier alone needs no broker configuration; all other roles report
/// that it is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verifier_alone_needs_nothing_of_the_broker() {
    let redis = RedisServer::with(&["--appendonly", "yes", "--maxmemory", "100mb"]).await;
    let mut settings = Settings::embedded();
    settings.engine = "engine = \"distributed\"\n[redis]\nurl = \"redis://replaced\"\n".into();
    let mut pipeline = Pipeline::configure(&settings);
    (pipeline.variables).push(("WATCHWORD_REDIS__URL".into(), redis.url()));
    pipeline.start("verifier", &["verifier"]).await;
    for (arguments, is_well) in [
        (&["config", "check", "verifier"][..], true),
        (&["doctor", "verifier"], true),
        (&["unlock", "test", "jane"], true),
        (&["config", "check"], false),
        (&["config", "check", "verifier", "issuer"], false),
        (&["doctor"], false),
        (&["audit"], false),
        (&["run", "issuer"], false),
    ] {
        let output = pipeline.command().args(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), is_well, "{arguments:?}: {errors}");
        assert!(
            is_well || errors.contains("rabbitmq"),
            "{arguments:?}: {errors}"
        );
    }
    // A file shared by all roles may have a broker section; its address does not matter to a
    // verifier.
    let path = pipeline.folder().join("watchword.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text + "[rabbitmq]\nurl = \"amqp://elsewhere\"\n").unwrap();
    pipeline.processes["verifier"].process.signal("HUP");
    let reloads = |result| pipeline.total("watchword_config_reloads_total", result);
    until(10, "the configuration is reloaded", || async {
        (reloads(&["ok"]).await > 0).then_some(())
    })
    .await;
    assert_eq!(reloads(&["refused"]).await, 0);
}
