//! Keys, secrets and API keys change under load without a failed request or a restart. Old and new
//! values are both valid for a while, and the processes reload one after the other, beginning with
//! the one that seals.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER};
use http::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::sleep;
use watchword_chassis::SystemClock;
use watchword_core::{Clock, ProviderName, Timestamp};
use watchword_delivery::Inbox;
use watchword_sms_worker::{Call, ReceiptPlan, ReceiptPlans, Refusal, SmsConfig};
use watchword_tests::fault::{Kind, Stand, Wire};
use watchword_tests::load::{SmsGateway, Window, judge, last_bad, now_ms};
use watchword_tests::pipeline::{KEY, OTHER_KEY, secret};
use watchword_tests::{Pipeline, Recorder, RedisServer, Settings, until};

const PER_SECOND: u32 = 20;
const NEW_KEY: &str = "harness-key-of-the-next-year-0";
const RELOADS: &str = "watchword_config_reloads_total";

/// Returns a key in the form in which files hold it.
fn random(seed: u8) -> String {
    let mut key = [seed; 32];
    // A key whose bytes are all equal is refused.
    key[0] = 0;
    BASE64.encode(&key)
}

fn edit(pipeline: &Pipeline, change: impl Fn(String) -> String) {
    let path = pipeline.folder().join("watchword.toml");
    let new = change(fs::read_to_string(&path).unwrap());
    assert_ne!(new, fs::read_to_string(&path).unwrap(), "a change");
    // Write and rename: a process may read the file at any moment and must not see half of it.
    let beside = path.with_extension("new");
    fs::write(&beside, new).unwrap();
    fs::rename(beside, path).unwrap();
}

/// Signals the processes one after the other, and waits until each has reloaded.
async fn tell(pipeline: &Pipeline, names: &[&str], result: &str) {
    let label = format!("result=\"{result}\"");
    for name in names {
        let series = format!("{RELOADS}{{{label}}}");
        let before = pipeline.metrics(name).await[&series];
        pipeline.processes[*name].process.signal("HUP");
        until(
            10,
            &format!(
                "{name} has reloaded; {}",
                pipeline.processes[*name].process.output()
            ),
            || async { (pipeline.metrics(name).await[&series] > before).then_some(()) },
        )
        .await;
        // Time for load while the processes have different configurations.
        sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_secret_changes_under_load_and_nobody_notices() {
    let mut stand = Stand::start(Kind::Distributed).await;
    let load = stand.load(PER_SECOND);
    let names = stand.names();
    sleep(Duration::from_secs(1)).await;
    let folder = stand.pipeline.folder().to_owned();

    // Rotates sealing and digest keys as documented: first every process knows the new key, then it
    // is used.
    let keys = |number: u8| {
        let key = |kind: &str, seed| secret(&folder, &format!("{kind}-{number}"), &random(seed));
        let (sealing, digest) = (key("sealing", 100 + number), key("digest", 200 + number));
        (
            format!("{{ id = \"s{number}\", {sealing} }}"),
            format!("{{ id = \"d{number}\", {digest} }}"),
        )
    };
    let (sealing, digest) = keys(2);
    edit(&stand.pipeline, |text| {
        text.replace("/sealing\" }]", &format!("/sealing\" }}, {sealing}]"))
            .replace("/digest\" }]", &format!("/digest\" }}, {digest}]"))
    });
    tell(&stand.pipeline, &names, "ok").await;
    edit(&stand.pipeline, |text| {
        text.replace(&format!(", {sealing}]"), "]")
            .replace(&format!(", {digest}]"), "]")
            .replace("sealing = [", &format!("sealing = [{sealing}, "))
            .replace("digest = [", &format!("digest = [{digest}, "))
    });
    tell(&stand.pipeline, &names, "ok").await;

    // Adds an API key.
    let hash = HEXLOWER.encode(&Sha256::digest(NEW_KEY.as_bytes()));
    edit(&stand.pipeline, |text| {
        let more = format!("api_keys = [{{ id = \"k9\", sha256 = \"{hash}\" }}, {{ id = \"k2\"");
        text.replace("api_keys = [{ id = \"k2\"", &more)
    });
    tell(&stand.pipeline, &["issuer"], "ok").await;
    let body = json!({ "channel": "email", "to": "both@example.org" });
    for key in [NEW_KEY, OTHER_KEY] {
        let body = Some(body.clone());
        let path = "/v1/verifications";
        let answer = stand.pipeline.call("issuer", key, Method::POST, path, body);
        assert_eq!(answer.await.status, StatusCode::ACCEPTED);
    }

    // An invalid configuration changes nothing and is reported.
    edit(&stand.pipeline, |text| {
        text.replace("[services.other]", "[services.other]\nnonsense = 1")
    });
    tell(&stand.pipeline, &names, "refused").await;
    edit(&stand.pipeline, |text| text.replace("\nnonsense = 1", ""));
    tell(&stand.pipeline, &names, "ok").await;
    let bad = last_bad(&load.lives(), &stand.mailbox, 0);
    assert_eq!(bad, None, "someone was not served at once");

    // Rotates keys in one step: the processes that open learn the new key later than the one that
    // seals, and messages wait for them.
    let (sealing, digest) = keys(3);
    edit(&stand.pipeline, |text| {
        text.replace("sealing = [", &format!("sealing = [{sealing}, "))
            .replace("digest = [", &format!("digest = [{digest}, "))
    });
    tell(&stand.pipeline, &names, "ok").await;

    // Changes the passwords of broker and store; every connection is reopened with them.
    let (broker, store) = ("next-broker-password", "next-store-password");
    let password = secret(&folder, "broker", broker);
    edit(&stand.pipeline, |text| {
        text.replace(
            "[rabbitmq]",
            &format!("[rabbitmq]\npassword = {{ {password} }}"),
        )
    });
    let rabbitmq = stand.rabbitmq.as_ref().unwrap();
    let path = format!("users/{}", watchword_tests::rabbitmq::USER);
    let body = json!({ "password": broker, "tags": "administrator" });
    rabbitmq.call(Method::PUT, &path, Some(body)).await.unwrap();
    let redis = stand.redis.as_ref().unwrap();
    let rule = format!(">{store}");
    let reply = redis
        .command(&["ACL", "SETUSER", "default", "resetpass", &rule])
        .await;
    assert!(reply.starts_with("+OK"), "{reply}");
    let password = secret(&folder, "store", store);
    edit(&stand.pipeline, |text| {
        text.replace("[redis]", &format!("[redis]\npassword = {{ {password} }}"))
    });
    tell(&stand.pipeline, &names, "ok").await;
    let begun_ms = now_ms();
    for wire in Wire::ALL {
        stand.wires[&wire].cut();
    }
    until(20, "all processes use the new passwords", || async {
        let since = begun_ms + 3_000;
        let calm = now_ms() > since + 4_000;
        (calm && last_bad(&load.lives(), &stand.mailbox, since).is_none()).then_some(())
    })
    .await;
    load.stop();
    until(60, "the last code has been checked", || async {
        (load.open() == 0).then_some(())
    })
    .await;
    let window = Window {
        begun_ms,
        healed_ms: now_ms(),
        clocks_were_wrong: false,
        store_forgot: false,
    };
    let target = stand.target();
    let verdict = judge(&load, &stand.mailbox, &target, window).await;
    assert!(verdict.approved > 100, "{verdict:?}");
    assert_eq!(
        (verdict.refused, verdict.late, verdict.double_approvals),
        (0, 0, 0),
        "{verdict:?}"
    );
    assert!(verdict.lost.is_empty(), "{verdict:?}");
    assert_eq!(verdict.ends(), verdict.accepted, "{verdict:?}");
    assert!(
        !stand.pipeline.logs().contains("password\""),
        "no password in a log"
    );
}

/// A changed file is noticed without a signal, and the next message uses it. The old API key stays
/// valid until it is removed.
#[tokio::test]
async fn a_changed_file_is_noticed_by_itself() {
    let gateway = SmsGateway::start(Arc::default()).await;
    let recorder = Recorder::start(gateway.port()).await;
    let url = format!("http://127.0.0.1:{}/messages", recorder.port());
    let mut settings = Settings::embedded();
    settings.providers = format!(
        "[sms.providers.acme]\nkind = \"http\"\nsender = \"Test\"\n\
         secrets = {{ token = {{ file = \"FOLDER/token\" }} }}\n\
         [sms.providers.acme.request]\nmethod = \"POST\"\nurl = \"{url}\"\n\
         auth = {{ kind = \"bearer\", secret = \"token\" }}\njson = {{ to = \"{{to}}\", text = \"{{text}}\" }}\n\
         [sms.providers.acme.response]\nrules = [{{ status = [\"202\"], class = \"accepted\" }}]\n\
         [email.providers.inbox]\nkind = \"inbox\"\n"
    );
    let mut pipeline = Pipeline::configure(&settings);
    secret(pipeline.folder(), "token", "token-of-this-year");
    pipeline.start("all", &[]).await;
    let sent = |token: &'static str| {
        let recorder = &recorder;
        async move {
            until(10, &format!("a message with {token}"), || async {
                let bytes = recorder.recorded();
                let needle = format!("Bearer {token}");
                let holds = |stream: &Vec<u8>| String::from_utf8_lossy(stream).contains(&needle);
                bytes.iter().any(holds).then_some(())
            })
            .await;
        }
    };
    pipeline.ask("all", "sms", "+4915112345670").await;
    sent("token-of-this-year").await;
    secret(pipeline.folder(), "token", "token-of-the-next");
    let series = format!("{RELOADS}{{result=\"ok\"}}");
    until(15, "the change was noticed", || async {
        (pipeline.metrics("all").await[&series] >= 1.0).then_some(())
    })
    .await;
    pipeline.ask("all", "sms", "+4915112345671").await;
    sent("token-of-the-next").await;

    let hash = HEXLOWER.encode(&Sha256::digest(NEW_KEY.as_bytes()));
    let old = HEXLOWER.encode(&Sha256::digest(KEY.as_bytes()));
    edit(&pipeline, |text| text.replace(&old, &hash));
    tell(&pipeline, &["all"], "ok").await;
    let body = json!({ "channel": "email", "to": "one@example.org" });
    for (key, status) in [
        (KEY, StatusCode::UNAUTHORIZED),
        (NEW_KEY, StatusCode::ACCEPTED),
    ] {
        let (path, body) = ("/v1/verifications", Some(body.clone()));
        let answer = pipeline.call("all", key, Method::POST, path, body).await;
        assert_eq!(answer.status, status);
    }

    // The store is searched by the index key, so a new one takes a restart, and so does the log
    // format. Neither holds up other changes.
    let index = std::fs::read_to_string(pipeline.folder().join("index")).unwrap();
    secret(pipeline.folder(), "index", &random(9));
    edit(&pipeline, |text| {
        let text = text.replace("level = \"info\"", "format = \"json\"");
        text.replace(&hash, &old)
    });
    tell(&pipeline, &["all"], "restart_needed").await;
    let body = json!({ "channel": "email", "to": "two@example.org" });
    for (key, status) in [
        (NEW_KEY, StatusCode::UNAUTHORIZED),
        (KEY, StatusCode::ACCEPTED),
    ] {
        let (path, body) = ("/v1/verifications", Some(body.clone()));
        let answer = pipeline.call("all", key, Method::POST, path, body).await;
        assert_eq!(answer.status, status);
    }
    let logs = pipeline.logs();
    assert!(logs.contains("keys=\"log.format, keys.index\""), "{logs}");
    let waiting = "watchword_config_restart_needed";
    assert_eq!(pipeline.total(waiting, &[]).await, 2);
    // After the changes are reverted, no restart is needed.
    secret(pipeline.folder(), "index", index.trim());
    edit(&pipeline, |text| {
        text.replace("format = \"json\"", "level = \"info\"")
    });
    tell(&pipeline, &["all"], "ok").await;
    assert_eq!(pipeline.total(waiting, &[]).await, 0);

    let successful = "watchword_config_last_reload_successful";
    assert_eq!(pipeline.total(successful, &[]).await, 1);
    secret(pipeline.folder(), "token", "");
    tell(&pipeline, &["all"], "refused").await;
    assert_eq!(pipeline.total(successful, &[]).await, 0);
    let named = format!(
        "the file {} is empty",
        pipeline.folder().join("token").display()
    );
    assert!(pipeline.logs().contains(&named), "{}", pipeline.logs());
}

/// Builds the receivers of a gateway that calls back with this password.
fn receivers(folder: &Path, password: &str) -> BTreeMap<ProviderName, Arc<ReceiptPlan>> {
    let file = secret(folder, password, &format!("{password}-password"));
    let text = format!(
        "public_url = \"https://otp.example.org\"\n[providers.acme]\nkind = \"http\"\nsender = \"Test\"\n\
         secrets = {{ webhook = {{ {file} }} }}\n[providers.acme.request]\nmethod = \"POST\"\n\
         url = \"https://gateway.example.org/messages\"\njson = {{ to = \"{{to}}\", text = \"{{text}}\", notify = \"{{callback}}\" }}\n\
         [providers.acme.response]\nrules = [{{ status = [\"202\"], class = \"accepted\" }}]\n[providers.acme.receipt]\n\
         verify = {{ kind = \"basic\", username = \"acme\", secret = \"webhook\" }}\n\
         id = \"/body/id\"\nstate = \"/body/state\"\nstates = {{ delivered = \"delivered\" }}\n"
    );
    let config: SmsConfig = toml::from_str(&text).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    watchword_tests::tls();
    let built = watchword_sms_worker::build(&config, None, &Inbox::default(), &clock);
    built.unwrap().receipts
}

/// Verifies a receipt with `password` at `now`.
fn receipt(plans: &ReceiptPlans, password: &str, now: Timestamp) -> Result<usize, Refusal> {
    let mut headers = HeaderMap::new();
    let login = BASE64.encode(format!("acme:{password}-password").as_bytes());
    headers.insert("authorization", format!("Basic {login}").parse().unwrap());
    headers.insert("content-type", "application/json".parse().unwrap());
    let call = Call {
        method: &Method::POST,
        url: "https://otp.example.org/v1/receipts/acme",
        headers: &headers,
        query: &[],
        body: br#"{"id":"m-1","state":"delivered"}"#,
        now,
    };
    let read = plans.read(&"acme".parse().unwrap(), &call);
    read.map(|receipts| receipts.len())
}

#[tokio::test]
async fn a_gateway_may_use_the_secret_before_for_a_quarter_of_an_hour() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (
        receivers(folder.path(), "old"),
        receivers(folder.path(), "new"),
    );
    let changed = Timestamp::from_millis(1_795_000_000_000);
    let plans = ReceiptPlans::new(old).followed_by(new, changed, 15);
    let (soon, last, late) = (1, 899_999, 900_000);
    for (password, after_ms, read) in [
        ("old", soon, Ok(1)),
        ("old", last, Ok(1)),
        ("old", late, Err(Refusal::Forged)),
        ("new", soon, Ok(1)),
        ("new", late, Ok(1)),
        ("other", soon, Err(Refusal::Forged)),
    ] {
        let now = changed.plus_millis(after_ms);
        assert_eq!(
            receipt(&plans, password, now),
            read,
            "{password} {after_ms}"
        );
    }
    // A further reload, for whatever reason, does not shorten the quarter of an hour for which an
    // earlier configuration stays valid.
    let third = receivers(folder.path(), "third");
    let plans = plans.followed_by(third, changed.plus_millis(10_000), 15);
    for (password, after_ms, read) in [
        ("old", last, Ok(1)),
        ("old", late, Err(Refusal::Forged)),
        ("new", late, Ok(1)),
        ("new", late + 10_000, Err(Refusal::Forged)),
        ("third", late + 10_000, Ok(1)),
    ] {
        let now = changed.plus_millis(after_ms);
        let found = receipt(&plans, password, now);
        assert_eq!(found, read, "{password} {after_ms}");
    }
}

/// A process that waits for its store says so and starts with the configuration current at that
/// time: an API key removed meanwhile is invalid, and a corrected password opens the store. A
/// command does not wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_while_the_store_is_away_counts() {
    let redis = RedisServer::start().await;
    redis
        .command(&["CONFIG", "SET", "requirepass", "right-password"])
        .await;
    let mut settings = Settings::distributed("amqp://nobody@127.0.0.1:1/", "");
    settings.providers = "[sms.providers.inbox]\nkind = \"inbox\"\n".into();
    let mut pipeline = Pipeline::configure(&settings);
    // The password is in a file, because environment variables cannot change.
    let plain = redis.url();
    let folder = pipeline.folder().to_owned();
    let password = secret(&folder, "redis-password", "wrong-password");
    edit(&pipeline, |text| {
        text.replace(
            "url = \"redis://replaced\"",
            &format!("url = \"{plain}\"\npassword = {{ {password} }}"),
        )
    });
    pipeline.variables = vec![("WATCHWORD_REDIS__URL".into(), plain.clone())];
    pipeline.launch("verifier", &["verifier"]);
    let ready = async |pipeline: &Pipeline| {
        let (http, _) = pipeline.raw("verifier");
        let url = format!(
            "http://127.0.0.1:{}/readyz",
            pipeline.processes["verifier"].admin
        );
        let answer = http.get(url).send().await.ok()?;
        Some(watchword_tests::pipeline::Answer::of(answer).await)
    };
    until(20, "the process logs what it waits for", || async {
        let report = ready(&pipeline).await?;
        let waits = pipeline.logs().contains("waiting for the store");
        (waits && report.body["dependencies"]["redis"] == "down").then_some(())
    })
    .await;
    let mut command = pipeline.command();
    command.arg("audit");
    let asked = std::time::Instant::now();
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && told.contains("error: "),
        "{told}"
    );
    assert!(
        asked.elapsed() < Duration::from_secs(15),
        "{:?}",
        asked.elapsed()
    );

    let hash = |key: &str| HEXLOWER.encode(&Sha256::digest(key.as_bytes()));
    edit(&pipeline, |text| {
        text.replace(&hash(OTHER_KEY), &hash(NEW_KEY))
    });
    let right = secret(&folder, "next-redis-password", "right-password");
    edit(&pipeline, |text| text.replace(&password, &right));
    pipeline.ready("verifier").await;
    let path = format!("/v1/verifications/{}", "a".repeat(32));
    for (key, status) in [(OTHER_KEY, 401), (NEW_KEY, 404)] {
        let answer = pipeline
            .call("verifier", key, Method::GET, &path, None)
            .await;
        assert_eq!(answer.status, status, "{:?}", answer.body);
    }
}
