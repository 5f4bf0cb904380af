//! Searches for codes, recipients and API keys in the memory of every process after the traffic has
//! ended, and in every byte to and from broker and store.
//!
//! Not covered: keys and passwords of the configuration, which a process needs while it runs; the
//! stack, whose layout the compiler decides; and requests by event, whose recipient crosses the
//! broker in clear by contract.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use data_encoding::{BASE64, BASE64URL, HEXLOWER};
use reqwest::Method;
use serde_json::json;
use watchword_tests::gateway::PASSWORD;
use watchword_tests::pipeline::{ADMIN_KEY, KEY};
use watchword_tests::{Gateway, Pipeline, RabbitMq, Recorder, RedisServer, Settings, Sink, until};

const ROLES: [(&str, &str); 4] = [
    ("issuer", "issuer"),
    ("verifier", "verifier"),
    ("sms", "sms-worker"),
    ("email", "email-worker"),
];

fn port_of(url: &str) -> u16 {
    let port = url.rsplit(':').next().unwrap().split('/').next().unwrap();
    port.parse().unwrap()
}

/// Returns a code of ten digits. It occurs by chance once in 10^10 places, so every match in memory
/// is a find.
pub fn code_in(text: &str) -> Option<String> {
    text.split(|c: char| !c.is_ascii_digit())
        .find(|run| run.len() == 10)
        .map(ToOwned::to_owned)
}

pub fn holds(bytes: &[u8], secret: &[u8]) -> bool {
    let Some(first) = secret.first() else {
        return false;
    };
    bytes
        .windows(secret.len())
        .any(|window| window[0] == *first && window == secret)
}

/// Returns the private writable mappings of process `id`, except its stacks.
pub fn memory(id: u32) -> Vec<(String, Vec<u8>)> {
    let maps = fs::read_to_string(format!("/proc/{id}/maps")).expect("root reads the maps");
    let file = File::open(format!("/proc/{id}/mem")).expect("root reads the memory");
    let mut found = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(range), Some(rights)) = (words.next(), words.next()) else {
            continue;
        };
        if !rights.starts_with("rw-p") || line.ends_with("[stack]") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let from = u64::from_str_radix(from, 16).unwrap();
        let to = u64::from_str_radix(to, 16).unwrap();
        let mut bytes = Vec::new();
        let mut page = [0; 4_096];
        for at in (from..to).step_by(page.len()) {
            if file.read_exact_at(&mut page, at).is_ok() {
                bytes.extend_from_slice(&page);
            }
        }
        found.push((line.to_owned(), bytes));
    }
    assert!(found.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > 1 << 20);
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_stays_in_memory_or_crosses_a_wire_in_clear() {
    let (rabbitmq, redis, gateway, sink) = tokio::join!(
        RabbitMq::start(),
        RedisServer::start(),
        Gateway::start(),
        Sink::start()
    );
    let amqp = Recorder::start(port_of(&rabbitmq.url())).await;
    let store = Recorder::start(redis.port()).await;
    let through = |url: String, recorder: &Recorder| {
        url.replace(
            &format!(":{}/", port_of(&url)),
            &format!(":{}/", recorder.port()),
        )
    };
    let mut settings = Settings::distributed(
        &through(rabbitmq.url(), &amqp),
        &through(redis.url(), &store),
    );
    settings.providers = format!(
        "[sms.providers.kannel]\nkind = \"kannel\"\nsender = \"Test\"\n\
         settings = {{ base_url = \"{}\", username = \"watchword\" }}\n\
         secrets = {{ password = {{ env = \"KANNEL_PASSWORD\" }} }}\n\
         [email.providers.relay]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\n\
         from = \"Test <no-reply@mail.example.org>\"\n",
        gateway.url(),
        sink.port()
    );
    let mut settings = settings.with_admin_keys();
    settings.level = "trace".into();
    settings.service = "[services.test.policy]\ncode_length = 10".into();
    let mut pipeline = Pipeline::configure(&settings);
    pipeline.variables = vec![("KANNEL_PASSWORD".into(), PASSWORD.into())];
    for (name, role) in ROLES {
        pipeline.launch(name, &[role]);
    }
    for (name, _) in ROLES {
        pipeline.ready(name).await;
    }

    // Half of the verifications are checked, with wrong and right codes; the others stay open.
    let mut secrets = vec![KEY.to_owned(), ADMIN_KEY.to_owned()];
    for number in 0..8 {
        let (channel, to) = if number % 2 == 0 {
            ("sms", format!("+4915157700{number:03}"))
        } else {
            ("email", format!("canary{number}.person@example.org"))
        };
        let payee = format!("canary payee number {number}");
        let variables = json!({ "payee": payee });
        let body = json!({ "channel": channel, "to": to, "variables": variables });
        let answer = pipeline.post("issuer", "/v1/verifications", body).await;
        assert_eq!(answer.status, 202, "{:?}", answer.body);
        let id = answer.text("id").to_owned();
        let code = until(20, "the message", || async {
            let sms = gateway.received().into_iter().map(|sms| (sms.to, sms.text));
            let mails = sink.mails().into_iter().map(|mail| (mail.to, mail.data));
            let (_, text) = sms.chain(mails).find(|(recipient, _)| *recipient == to)?;
            code_in(&text)
        })
        .await;
        if number < 4 {
            pipeline.check("verifier", &id, "0000000000").await;
            let path = format!("/v1/verifications/{id}/check");
            let body =
                json!({ "code": code, "to": to, "channel": channel, "variables": variables });
            let right = pipeline.post("verifier", &path, body).await;
            assert_eq!(right.body["valid"], true);
        }
        // An operator searches for the recipient and unlocks it.
        for (path, body) in [
            (
                "/verifications/find",
                json!({ "service": "test", "recipient": to }),
            ),
            (
                "/unlock",
                json!({ "service": "test", "recipient": to, "reason": "a test" }),
            ),
        ] {
            let call = pipeline.admin("verifier", ADMIN_KEY, Method::POST, path, Some(body));
            let answer = call.await;
            assert_eq!(answer.status, 200, "{:?}", answer.body);
        }
        secrets.extend([to.trim_start_matches('+').to_owned(), code, payee]);
    }
    until(20, "every delivery has ended", || async {
        let accepted = pipeline
            .total("watchword_deliveries_ended_total", &["accepted"])
            .await;
        (accepted >= 8).then_some(())
    })
    .await;

    let mut seen = Vec::new();
    for (peer, recorder) in [("broker", &amqp), ("store", &store)] {
        let streams = recorder.recorded();
        assert!(streams.iter().map(Vec::len).sum::<usize>() > 10_000);
        for secret in &secrets {
            let plain = secret.as_bytes();
            let forms = [
                plain.to_vec(),
                HEXLOWER.encode(plain).into_bytes(),
                // Whole groups of three bytes only: their base64 does not depend on the bytes
                // around them.
                BASE64.encode(&plain[..plain.len() / 3 * 3]).into_bytes(),
                BASE64URL
                    .encode(&plain[1..=(plain.len() - 1) / 3 * 3])
                    .into_bytes(),
                BASE64
                    .encode(&plain[2..2 + (plain.len() - 2) / 3 * 3])
                    .into_bytes(),
            ];
            for stream in &streams {
                if forms.iter().any(|form| holds(stream, form)) {
                    seen.push(format!("{secret} on the way to or from the {peer}"));
                }
            }
        }
    }
    assert!(seen.is_empty(), "{}", seen.join("\n"));

    // The last message stays in the buffers of its connection until that has been idle for 5 s, and
    // remains of it on a thread's stack until later calls overwrite them. Repeat with other calls
    // in between.
    let begun = Instant::now();
    for round in 0_u32.. {
        seen.clear();
        for (name, role) in &pipeline.processes {
            for (mapping, bytes) in memory(role.process.id()) {
                let held = secrets.iter().filter(|one| holds(&bytes, one.as_bytes()));
                seen.extend(held.map(|secret| format!("{secret} in {name}: {mapping}")));
            }
        }
        if seen.is_empty() || begun.elapsed() > Duration::from_secs(40) {
            break;
        }
        for passer in 0..20 {
            let to = format!("+49160{:08}", round * 100 + passer);
            let answer = pipeline.ask("issuer", "sms", &to).await;
            pipeline
                .check("verifier", answer.text("id"), "9999999999")
                .await;
        }
        until(20, "idle connections have closed", || async {
            (begun.elapsed() > Duration::from_secs(u64::from(round + 1) * 6)).then_some(())
        })
        .await;
    }
    assert!(seen.is_empty(), "{}", seen.join("\n"));
}
