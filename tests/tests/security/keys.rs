//! Each role has the keys it needs and no other: it runs with a configuration without the other
//! keys, and does not read them if they are configured.

use std::fs;

use data_encoding::BASE64;
use sha2::{Digest, Sha256};
use watchword_tests::pipeline::secret;
use watchword_tests::{Pipeline, RabbitMq, RedisServer, Settings, Sink, until};

use crate::secrets::{code_in, holds, memory};

/// A role, and whether it needs the sealing, the digest and the index key.
const ROLES: [(&str, [bool; 3]); 4] = [
    ("issuer", [true, true, true]),
    ("verifier", [false, true, true]),
    ("sms-worker", [true, false, false]),
    ("email-worker", [true, false, false]),
];
const KEYS: [&str; 3] = ["sealing", "digest", "index"];

fn key(name: &str) -> [u8; 32] {
    Sha256::digest(format!("the {name} key of this test")).into()
}

/// Returns the configuration without the keys that the role does not need.
fn cut(whole: &str, has: [bool; 3]) -> String {
    let is_other = |line: &&str| {
        KEYS.iter()
            .zip(has)
            .any(|(key, has)| !has && line.starts_with(&format!("{key} =")))
    };
    let kept: Vec<_> = whole.lines().filter(|line| !is_other(line)).collect();
    kept.join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_works_with_its_own_keys_and_reads_no_other() {
    let (rabbitmq, redis, sink) =
        tokio::join!(RabbitMq::start(), RedisServer::start(), Sink::start());
    let mut settings = Settings::distributed(&rabbitmq.url(), &redis.url());
    settings.providers = format!(
        "[sms.providers.inbox]\nkind = \"inbox\"\n[email.providers.relay]\nkind = \"smtp\"\n\
         host = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nfrom = \"Test <no-reply@mail.example.org>\"\n",
        sink.port()
    );
    settings.service = "[services.test.policy]\ncode_length = 10".into();
    let mut pipeline = Pipeline::configure(&settings);
    for name in KEYS {
        secret(pipeline.folder(), name, &BASE64.encode(&key(name)));
    }
    let whole = fs::read_to_string(pipeline.folder().join("watchword.toml")).unwrap();
    for (role, has) in ROLES {
        let file = pipeline.folder().join(format!("{role}.toml"));
        fs::write(&file, cut(&whole, has)).unwrap();
        for command in [&["config", "check", role][..], &["doctor", role]] {
            // The doctor finds missing queues until a role has declared them, so only `config
            // check` succeeds here.
            let is_static = command[0] == "config";
            let output = pipeline
                .command()
                .env("WATCHWORD_CONFIG", &file)
                .args(command)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() || !is_static, "{role}: {text}");
            assert!(!text.contains("keys."), "{role}: {text}");
        }
        let variable = ("WATCHWORD_CONFIG".to_owned(), file.display().to_string());
        pipeline
            .own_variables
            .insert(role.to_owned(), vec![variable]);
        pipeline.launch(role, &[role]);
    }
    // The same roles with a configuration that names every key.
    for (role, _) in ROLES {
        pipeline.launch(&format!("whole {role}"), &[role]);
    }
    for name in pipeline.processes.keys() {
        pipeline.ready(name).await;
    }
    // The configuration of one role is not enough for a role that needs more keys.
    let output = pipeline
        .command()
        .env("WATCHWORD_CONFIG", pipeline.folder().join("verifier.toml"))
        .args(["config", "check", "issuer"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && text.contains("keys.sealing"),
        "{text}"
    );

    for number in 0..4 {
        let to = format!("person{number}@example.org");
        let answer = pipeline.ask("issuer", "email", &to).await;
        assert_eq!(answer.status, 202, "{:?}", answer.body);
        let code = until(20, "the message", || async {
            let mails = sink.mails();
            code_in(&mails.iter().find(|mail| mail.to == to)?.data)
        })
        .await;
        for verifier in ["verifier", "whole verifier"] {
            let status = pipeline.status(verifier, answer.text("id")).await;
            assert_eq!(status.body["status"], "pending");
        }
        let right = pipeline.check("verifier", answer.text("id"), &code).await;
        assert_eq!(right.body["valid"], true);
    }

    for (role, has) in ROLES {
        for name in [role.to_owned(), format!("whole {role}")] {
            let memory = memory(pipeline.processes[&name].process.id());
            for (kind, has) in KEYS.iter().zip(has) {
                let key = key(kind);
                let forms = [key.to_vec(), BASE64.encode(&key).into_bytes()];
                let found = memory
                    .iter()
                    .any(|(_, bytes)| forms.iter().any(|form| holds(bytes, form)));
                assert_eq!(found, has, "{name} and the {kind} key");
            }
        }
    }
}
