//! The presets against the vendors' own signature libraries and a server that verifies AWS
//! signatures, and our mails against an independent DKIM verifier.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use tempfile::TempDir;
use watchword_chassis::SystemClock;
use watchword_core::{AttemptClass, Channel, Clock, ReceiptState, Recipient, Timestamp, Variables};
use watchword_delivery::{Dispatch, Inbox, Sender};
use watchword_email_worker::{DkimConfig, EmailConfig};
use watchword_sms_worker::{Call, Refusal, SmsChannel, SmsConfig};

const SECRET: &str = "a-secret-of-some-thirty-two-bytes";
const URL: &str = "https://otp.example.org";

fn python() -> String {
    std::env::var("WATCHWORD_PYTHON").expect("WATCHWORD_PYTHON is not set: run tests/run")
}

fn peer(script: &str) -> Child {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("peers")
        .join(script);
    Command::new(python())
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the peer starts")
}

fn channel(folder: &TempDir, providers: &str, secrets: &[(&str, &str)]) -> SmsChannel {
    watchword_tests::tls();
    for (name, value) in secrets {
        let path = folder.path().join(name);
        fs::write(&path, value).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let text = providers.replace("FOLDER", &folder.path().display().to_string());
    let config: SmsConfig = toml::from_str(&text).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    watchword_sms_worker::build(&config, None::<&Path>, &Inbox::default(), &clock).unwrap()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a peer of the pipeline, with a clock of its own"
)]
fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_millis(i64::try_from(now.as_millis()).unwrap())
}

/// A signed call that a test can change in one place.
#[derive(Clone)]
struct Signed {
    tail: String,
    form: bool,
    body: String,
    headers: BTreeMap<String, String>,
    now: Timestamp,
}

impl Signed {
    fn read(&self, channel: &SmsChannel, provider: &str) -> Result<Option<ReceiptState>, Refusal> {
        let plan = &channel.receipts[&provider.parse().unwrap()];
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let kind = if self.form {
            "application/x-www-form-urlencoded"
        } else {
            "application/json"
        };
        headers.append("content-type", kind.parse().unwrap());
        let url = format!("{URL}{}", self.tail);
        let parsed = reqwest::Url::parse(&url).unwrap();
        let query: Vec<_> = parsed.query_pairs().into_owned().collect();
        let call = Call {
            method: &Method::POST,
            url: &url,
            headers: &headers,
            query: &query,
            body: self.body.as_bytes(),
            now: self.now,
        };
        plan.read(&call)
            .map(|receipts| receipts.first().map(|receipt| receipt.state))
    }
}

/// Calls signed by the vendors' libraries are accepted; with any change they are refused.
#[test]
fn receipts_that_the_vendors_own_libraries_accept_are_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let secret = |name: &str| format!("{name} = {{ file = \"FOLDER/{name}\" }}");
    let config = format!(
        "public_url = \"{URL}\"\n\
         [providers.twilio]\nkind = \"twilio\"\nsettings = {{ account_sid = \"AC1\" }}\nsecrets = {{ {} }}\n\
         [providers.messagebird]\nkind = \"messagebird\"\nsecrets = {{ {}, {} }}\n\
         [providers.telnyx]\nkind = \"telnyx\"\nsettings = {{ messaging_profile_id = \"p\" }}\nsecrets = {{ {}, {} }}\n",
        secret("auth_token"),
        secret("access_key"),
        secret("signing_key"),
        secret("api_key"),
        secret("public_key"),
    );
    let mut child = peer("vendors.py");
    let mut sign = {
        let mut input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        move |request: Value| -> BTreeMap<String, String> {
            writeln!(input, "{request}").unwrap();
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            serde_json::from_str(&line).expect("the vendor's library accepts it")
        }
    };
    let delivery = format!("{}-1", "a".repeat(32));
    let tail = |name: &str| format!("/v1/receipts/{name}?d={delivery}");
    let body = json!({ "data": { "event_type": "message.finalized", "payload": {
        "id": "m-1", "to": [{ "status": "delivered" }], "errors": [] } } })
    .to_string();
    let telnyx_headers = sign(json!({ "vendor": "telnyx", "body": body }));
    let key = telnyx_headers["public-key"].clone();
    let channel = channel(
        &folder,
        &config,
        &[
            ("auth_token", SECRET),
            ("access_key", SECRET),
            ("signing_key", SECRET),
            ("api_key", SECRET),
            ("public_key", &key),
        ],
    );
    let fields =
        json!({ "MessageSid": "SM1", "MessageStatus": "delivered", "To": "+4915112345678" });
    let form = "MessageSid=SM1&MessageStatus=delivered&To=%2B4915112345678";
    let query = "id=e80&recipient=4915112345678&status=delivered&statusErrorCode=0";
    let messagebird_tail =
        format!("/v1/receipts/messagebird?d={delivery}&reference={delivery}&{query}");
    let twilio = Signed {
        headers: sign(
            json!({ "vendor": "twilio", "secret": SECRET, "url": format!("{URL}{}", tail("twilio")), "form": fields }),
        ),
        tail: tail("twilio"),
        form: true,
        body: form.into(),
        now: now(),
    };
    let messagebird = Signed {
        headers: sign(
            json!({ "vendor": "messagebird", "secret": SECRET, "url": format!("{URL}{messagebird_tail}") }),
        ),
        tail: messagebird_tail,
        form: false,
        body: String::new(),
        now: now(),
    };
    let telnyx = Signed {
        headers: telnyx_headers
            .into_iter()
            .filter(|(name, _)| name.starts_with("telnyx"))
            .collect(),
        tail: tail("telnyx"),
        form: false,
        body,
        now: now(),
    };
    for (name, signed) in [
        ("twilio", &twilio),
        ("messagebird", &messagebird),
        ("telnyx", &telnyx),
    ] {
        assert_eq!(
            signed.read(&channel, name),
            Ok(Some(ReceiptState::Delivered)),
            "{name}"
        );
        let mut bare = signed.clone();
        bare.headers.clear();
        assert_eq!(
            bare.read(&channel, name),
            Err(Refusal::Forged),
            "{name} unsigned"
        );
        let mut other = signed.clone();
        other.tail = other.tail.replace("aaaa-1", "aaab-1");
        if name != "telnyx" {
            assert_eq!(
                other.read(&channel, name),
                Err(Refusal::Forged),
                "{name} for another"
            );
        }
        let mut edited = signed.clone();
        edited.body = edited.body.replace("delivered", "failed")
            + if name == "messagebird" { "{}" } else { "" };
        assert_eq!(
            edited.read(&channel, name),
            Err(Refusal::Forged),
            "{name} edited"
        );
        let mut late = signed.clone();
        late.now = now().plus_millis(400_000);
        if name != "twilio" {
            assert_eq!(
                late.read(&channel, name),
                Err(Refusal::Forged),
                "{name} stale"
            );
        }
    }
    // A token without an algorithm is refused.
    let mut none = messagebird.clone();
    let token = &messagebird.headers["messagebird-signature-jwt"];
    let payload = token.split('.').nth(1).unwrap();
    let forged = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{payload}.");
    none.headers
        .insert("messagebird-signature-jwt".into(), forged);
    assert_eq!(none.read(&channel, "messagebird"), Err(Refusal::Forged));
    drop(sign);
    child.wait().ok();
}

fn dispatch() -> Dispatch {
    Dispatch {
        delivery_id: format!("{}-1", "a".repeat(32)).parse().unwrap(),
        recipient: Recipient::parse(Channel::Sms, "+4915112345678").unwrap(),
        code: "012345".parse().unwrap(),
        sender: Sender {
            app: "Test & Söhne".into(),
            host: None,
        },
        locale: None,
        variables: Variables::default(),
        remaining: Duration::from_secs(200),
    }
}

/// SNS behind a server that verifies Signature Version 4.
#[tokio::test]
async fn sns_takes_our_signature_and_refuses_a_wrong_one() {
    let mut server = peer("sns.py");
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let [port, key, secret] = line
        .split_whitespace()
        .collect::<Vec<_>>()
        .try_into()
        .expect("the server is up");
    for (secret, key, class) in [
        (secret, key, AttemptClass::Accepted),
        ("wrong-secret-wrong-secret", key, AttemptClass::ConfigFault),
        (secret, "AKIANOSUCHKEY0000000", AttemptClass::ConfigFault),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "[providers.sns]\nkind = \"aws-sns\"\nsecrets = {{ secret_access_key = {{ file = \"FOLDER/key\" }} }}\n\
             settings = {{ base_url = \"http://127.0.0.1:{port}\", region = \"eu-central-1\", access_key_id = \"{key}\" }}\n"
        );
        let channel = channel(&folder, &config, &[("key", secret)]);
        let attempted = channel.providers[0].attempt(&dispatch()).await;
        assert_eq!(attempted.class, class, "{}", attempted.reason);
        assert_eq!(
            attempted.provider_message_id.is_some(),
            class == AttemptClass::Accepted
        );
    }
    drop(server.stdin.take());
    server.wait().unwrap();
}

/// Mails verified by dkimpy: valid with both algorithms, and invalid after one byte has changed.
#[tokio::test]
async fn mails_are_signed_so_that_dkimpy_agrees() {
    let path = |script: &str| {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("peers")
            .join(script)
    };
    let made = Command::new(python())
        .arg(path("dkim_keys.py"))
        .output()
        .unwrap();
    let keys: Value = serde_json::from_slice(&made.stdout).expect("keys");
    let text = |name: &str| keys[name].as_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    for name in ["rsa", "ed25519", "weak"] {
        let file = folder.path().join(name);
        fs::write(&file, text(name)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let sink = watchword_tests::Sink::start().await;
    let build = |keys: &[(&str, &str, &str)]| {
        let list: Vec<_> = keys
            .iter()
            .map(|(domain, selector, file)| {
                let file = folder.path().join(file);
                format!("{{ domain = \"{domain}\", selector = \"{selector}\", key = {{ file = \"{}\" }} }}", file.display())
            })
            .collect();
        let config = format!(
            "[providers.relay]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\n\
             from = \"Test <no-reply@mail.example.org>\"\ndkim = [{}]\n",
            sink.port(),
            list.join(", ")
        );
        let config: EmailConfig = toml::from_str(&config).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        watchword_email_worker::build(&config, None::<&Path>, &Inbox::default(), &clock)
    };
    watchword_tests::tls();
    for (keys, key) in [
        (
            ("example.org", "w", "weak"),
            "email.providers.relay.dkim[0].key",
        ),
        (
            ("example.com", "r", "rsa"),
            "email.providers.relay.dkim[0].domain",
        ),
        (
            ("ample.org", "r", "rsa"),
            "email.providers.relay.dkim[0].domain",
        ),
    ] {
        assert_eq!(build(&[keys]).err().unwrap().key, key);
    }
    for (selector, file, record) in [
        ("r", "rsa", "rsa_record"),
        ("e", "ed25519", "ed25519_record"),
    ] {
        let key = folder.path().join(file);
        let key: DkimConfig = toml::from_str(&format!(
            "domain = \"example.org\"\nselector = \"{selector}\"\nkey = {{ file = \"{}\" }}",
            key.display()
        ))
        .unwrap();
        let printed = key.dns_record().unwrap();
        assert_eq!(printed.name, format!("{selector}._domainkey.example.org"));
        assert_eq!(printed.text, text(record));
    }
    let relay = build(&[
        ("example.org", "r", "rsa"),
        ("mail.example.org", "e", "ed25519"),
    ])
    .unwrap();
    let mail = Dispatch {
        recipient: Recipient::parse(Channel::Email, "jane@example.org").unwrap(),
        ..dispatch()
    };
    let attempted = relay.providers[0].attempt(&mail).await;
    assert_eq!(
        attempted.class,
        AttemptClass::Accepted,
        "{}",
        attempted.reason
    );
    let sent = sink.mails()[0].data.clone();
    let verdicts = |mail: &str| {
        let mut verifier = Command::new(python())
            .arg(path("dkim_verify.py"))
            .args(["r", text("rsa_record"), "e", text("ed25519_record")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        verifier
            .stdin
            .take()
            .unwrap()
            .write_all(mail.as_bytes())
            .unwrap();
        let output = verifier.wait_with_output().unwrap();
        String::from_utf8(output.stdout)
            .unwrap()
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(verdicts(&sent), ["pass", "pass"], "{sent}");
    for (from, to) in [
        ("012345", "543210"),
        ("To: jane@", "To: jake@"),
        ("From: Test", "From: Nobody"),
    ] {
        assert!(sent.contains(from), "{sent}");
        assert_eq!(
            verdicts(&sent.replacen(from, to, 1)),
            ["fail", "fail"],
            "{from}"
        );
    }
    let twice = sent.replacen("\r\nTo:", "\r\nFrom: eve@example.com\r\nTo:", 1);
    assert_eq!(verdicts(&twice), ["fail", "fail"], "a second From");
}
