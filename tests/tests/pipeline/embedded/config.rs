//! Configurations: wrong ones are refused, the shipped ones are valid.

use std::process::Command;

use watchword_tests::{Pipeline, Settings};

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
