use super::*;
use crate::cli::Role;

const RUNNING: &str = r#"
engine = "distributed"
templates = "templates"

[http]
listen = "127.0.0.1:8080"
max_in_flight = 512

[admin]
listen = "127.0.0.1:9090"

[log]
format = "human"
level = "info"

[traces]
url = "http://127.0.0.1:4318/v1/traces"
share = 0.5

[rabbitmq]
url = "amqp://watchword@127.0.0.1"
password = { env = "RABBITMQ_PASSWORD" }

[redis]
url = "redis://127.0.0.1"
password = { env = "REDIS_PASSWORD" }

[ledger]
retention_hours = 24

[services.web]
app = "Web"

[sms]
concurrency = 10
public_url = "https://otp.example.org"
unknown_retries = 1
[sms.providers.acme]
kind = "inbox"

[email]
concurrency = 20
unknown_retries = 1
[email.providers.post]
kind = "inbox"
"#;

fn config(text: &str) -> Config {
    toml::from_str(text).unwrap()
}

/// Returns the held configuration and the waiting keys if `old` becomes `new` in the file.
fn changed(changes: &[(&str, &str)], roles: &[Role]) -> (Config, Vec<&'static str>) {
    let mut text = RUNNING.to_owned();
    for (old, new) in changes {
        assert!(text.contains(old), "{old}");
        text = text.replacen(old, new, 1);
    }
    let (held, waiting) = hold(&config(RUNNING), config(&text), Needs::of(roles));
    (held, waiting.keys().to_vec())
}

#[test]
fn each_role_waits_for_the_keys_it_uses() {
    use Role::{EmailWorker, Issuer, SmsWorker, Verifier};
    let (every, api) = (&Role::ALL[..], &[Issuer, Verifier][..]);
    for (old, new, key, users) in [
        ("\"distributed\"", "\"embedded\"", "engine", every),
        (
            ":8080",
            ":8081",
            "http.listen",
            &[Issuer, Verifier, SmsWorker],
        ),
        ("= 512", "= 511", "http.max_in_flight", api),
        (":9090", ":9091", "admin.listen", every),
        ("\"human\"", "\"json\"", "log.format", every),
        ("share = 0.5", "share = 1.0", "traces.share", every),
        (
            "@127.0.0.1\"",
            "@127.0.0.2\"",
            "rabbitmq.url",
            &[Issuer, SmsWorker, EmailWorker],
        ),
        ("redis://127.0.0.1", "redis://127.0.0.2", "redis.url", every),
        ("hours = 24", "hours = 48", "ledger.retention_hours", every),
        (
            "concurrency = 10",
            "concurrency = 11",
            "sms.concurrency",
            &[SmsWorker],
        ),
        ("otp.example", "sms.example", "sms.public_url", &[SmsWorker]),
        (
            "concurrency = 20",
            "concurrency = 21",
            "email.concurrency",
            &[EmailWorker],
        ),
    ] {
        for role in Role::ALL {
            // A change that needs no restart is applied together with one that does.
            let changes = [(old, new), ("app = \"Web\"", "app = \"Shop\"")];
            let (held, keys) = changed(&changes, &[role]);
            let expected = users.contains(&role).then_some(key);
            assert_eq!(keys, Vec::from_iter(expected), "{key} {role:?}");
            assert_eq!(held.services.values().next().unwrap().app, "Shop", "{key}");
            let running = config(RUNNING);
            assert_eq!(held.engine, running.engine);
            assert_eq!(held.http.listen, running.http.listen);
            assert_eq!(held.redis.unwrap().url, running.redis.unwrap().url);
            assert_eq!(held.rabbitmq.unwrap().url, running.rabbitmq.unwrap().url);
            let url = |config: Option<SmsConfig>| config.unwrap().public_url;
            assert_eq!(url(held.sms), url(running.sms));
        }
    }
}

#[test]
fn what_is_reloaded_waits_for_nothing() {
    let (held, keys) = changed(
        &[
            ("\"templates\"", "\"others\""),
            ("\"info\"", "\"debug\""),
            (":4318", ":4319"),
            ("\"RABBITMQ_PASSWORD\"", "\"OTHER\""),
            ("unknown_retries = 1", "unknown_retries = 2"),
            ("[email.providers.post]", "[email.providers.mail]"),
        ],
        &Role::ALL,
    );
    assert!(keys.is_empty(), "{keys:?}");
    assert_eq!(held.templates.unwrap().to_str(), Some("others"));
    assert!(held.traces.unwrap().url.contains(":4319"));
    let password = held.rabbitmq.unwrap().password.unwrap();
    assert_eq!(password.env.as_deref(), Some("OTHER"));
    assert_eq!(held.sms.unwrap().unknown_retries, 2);
    assert!(
        held.email
            .unwrap()
            .providers
            .keys()
            .any(|it| it.as_str() == "mail")
    );
}

/// A new password that comes with a new URL belongs to that URL.
#[test]
fn a_password_waits_with_its_url() {
    let (held, keys) = changed(
        &[
            ("@127.0.0.1\"", "@127.0.0.2\""),
            ("\"RABBITMQ_PASSWORD\"", "\"OTHER\""),
            ("\"REDIS_PASSWORD\"", "\"OTHER\""),
        ],
        &Role::ALL,
    );
    assert_eq!(keys, ["rabbitmq.url"]);
    let env = |peer: Option<PeerConfig>| peer.unwrap().password.unwrap().env.unwrap();
    assert_eq!(env(held.rabbitmq), "RABBITMQ_PASSWORD");
    assert_eq!(env(held.redis), "OTHER");
}

#[test]
fn a_section_that_comes_or_goes_waits() {
    let traces = "[traces]\nurl = \"http://127.0.0.1:4318/v1/traces\"\nshare = 0.5\n";
    let (held, keys) = changed(&[(traces, "")], &Role::ALL);
    assert_eq!(
        (keys.as_slice(), held.traces.is_some()),
        (&["traces"][..], true)
    );
    let without = RUNNING.replace(traces, "");
    let (held, waiting) = hold(&config(&without), config(RUNNING), Needs::ALL);
    assert_eq!(
        (waiting.keys(), held.traces.is_none()),
        (&["traces"][..], true)
    );
}
