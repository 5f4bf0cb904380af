//! SMPP against an independent SMSC: the npm package `smpp`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use watchword_chassis::SystemClock;
use watchword_core::{AttemptClass as Class, Channel, Clock, ReceiptState, Recipient, Variables};
use watchword_delivery::{Dispatch, Inbox, Sender};
use watchword_sms_worker::{SmsChannel, SmsConfig, Unread};

struct Smsc {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
    port: u16,
}

impl Smsc {
    fn start() -> Self {
        let modules = std::env::var("WATCHWORD_NODE_MODULES")
            .expect("WATCHWORD_NODE_MODULES is not set: run tests/run");
        let mut process = Command::new("node")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/smsc.js"))
            .env("NODE_PATH", modules)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is installed: tests/run does that");
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut port = String::new();
        output.read_line(&mut port).unwrap();
        Self {
            process,
            output,
            port: port.trim().parse().expect("the SMSC is up"),
        }
    }

    /// Returns the next message that the SMSC accepted.
    fn message(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Smsc {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

fn channel(folder: &TempDir, port: u16, password: &str, sender: &str) -> SmsChannel {
    channel_with(folder, port, password, sender, "")
}

fn channel_with(
    folder: &TempDir,
    port: u16,
    password: &str,
    sender: &str,
    more: &str,
) -> SmsChannel {
    watchword_tests::tls();
    let path = folder.path().join("password");
    fs::write(&path, password).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "[providers.smsc]\nkind = \"smpp\"\nsender = \"{sender}\"\ntimeout_seconds = 2\n\
         secrets = {{ password = {{ file = \"{}\" }} }}\n\
         [providers.smsc.smpp]\nhost = \"127.0.0.1\"\nport = {port}\nsystem_id = \"watchword\"\nwindow = 4\n{more}",
        path.display()
    );
    let config: SmsConfig = toml::from_str(&text).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    watchword_sms_worker::build(&config, None::<&Path>, &Inbox::default(), &clock).unwrap()
}

fn dispatch(to: &str, app: &str) -> Dispatch {
    Dispatch {
        delivery_id: format!("{}-1", "a".repeat(32)).parse().unwrap(),
        recipient: Recipient::parse(Channel::Sms, to).unwrap(),
        code: "012345".parse().unwrap(),
        sender: Sender {
            app: app.into(),
            host: None,
        },
        locale: None,
        variables: Variables::default(),
        remaining: Duration::from_secs(200),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_smsc_takes_messages_and_sends_receipts() {
    let mut smsc = Smsc::start();
    let folder = tempfile::tempdir().unwrap();
    let mut channel = channel(&folder, smsc.port, "secret", "Test");
    let provider = channel.providers[0].clone();
    let taken = provider
        .attempt(&dispatch("+4915112345678", "Jira [€]"))
        .await;
    assert_eq!(taken.class, Class::Accepted, "{}", taken.reason);
    let message = smsc.message();
    assert_eq!(taken.provider_message_id.as_deref(), message["id"].as_str());
    assert_eq!(
        (&message["to"], &message["from"]),
        (&"4915112345678".into(), &"Test".into())
    );
    assert!(
        message["text"]
            .as_str()
            .unwrap()
            .starts_with("Jira [€]: your code is 012345"),
        "{message}"
    );
    assert_eq!(
        (
            message["ton"].as_u64(),
            message["coding"].as_u64(),
            message["registered"].as_u64()
        ),
        (Some(5), Some(0), Some(1)),
        "{message}"
    );
    let heard = channel.heard.recv().await.unwrap().receipt.unwrap();
    assert_eq!(
        (heard.state, heard.message_id.as_deref()),
        (ReceiptState::Delivered, message["id"].as_str())
    );

    // Other alphabets, and two parts in one payload.
    for app in ["Жира", &"Ж".repeat(60)] {
        let taken = provider.attempt(&dispatch("+4915112345670", app)).await;
        assert_eq!(taken.class, Class::Accepted, "{}", taken.reason);
        let message = smsc.message();
        assert_eq!(message["coding"], 8);
        assert!(
            message["text"].as_str().unwrap().starts_with(app),
            "{message}"
        );
        channel.heard.recv().await.unwrap();
    }
    // Messages that the SMSC refuses, by status.
    let unknown = provider.attempt(&dispatch("+4915112340001", "Test")).await;
    assert_eq!(
        (unknown.class, unknown.reason.as_str()),
        (Class::RecipientInvalid, "smpp_0x0b")
    );
    let throttled = provider.attempt(&dispatch("+4915112340002", "Test")).await;
    assert_eq!(
        (throttled.class, throttled.retry_after),
        (Class::Transient, Some(Duration::from_secs(1)))
    );
    let silent = provider.attempt(&dispatch("+4915112340003", "Test")).await;
    assert_eq!(silent.class, Class::UnknownOutcome, "{}", silent.reason);
    let cut = provider.attempt(&dispatch("+4915112340004", "Test")).await;
    assert_eq!(
        (cut.class, cut.reason.as_str()),
        (Class::UnknownOutcome, "unbound")
    );
    // The next message binds again.
    let failed = provider.attempt(&dispatch("+4915112340005", "Test")).await;
    assert_eq!(failed.class, Class::Accepted, "{}", failed.reason);
    assert_eq!(
        channel.heard.recv().await.unwrap().receipt.unwrap().state,
        ReceiptState::Failed
    );
}

/// SMSCs differ in their ids, receipt formats and statuses; no such difference ends a bind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_smsc_with_habits_of_its_own_is_understood() {
    let mut smsc = Smsc::start();
    let folder = tempfile::tempdir().unwrap();
    let more = "message_ids = \"hex_then_decimal\"\nstatuses = { \"0x45\" = \"transient\" }\n";
    let mut channel = channel_with(&folder, smsc.port, "secret", "Test", more);
    let provider = channel.providers[0].clone();
    let attempt = async |to: &str| provider.attempt(&dispatch(to, "Test")).await;

    let taken = attempt("+4915112340006").await;
    assert_eq!(taken.class, Class::Accepted, "{}", taken.reason);
    assert_eq!(smsc.message()["binds"], 1);
    let heard = channel.heard.recv().await.unwrap().receipt.unwrap();
    assert_eq!(heard.state, ReceiptState::Delivered);
    assert_eq!(taken.provider_message_id, heard.message_id);

    let failed = attempt("+4915112340007").await;
    assert_eq!(
        (failed.class, failed.reason.as_str()),
        (Class::Transient, "smpp_0x45")
    );
    let bare = attempt("+4915112340009").await;
    assert_eq!(
        (bare.class, bare.provider_message_id),
        (Class::Accepted, None)
    );
    let after = attempt("+4915112340010").await;
    assert_eq!(after.class, Class::Accepted, "{}", after.reason);
    assert_eq!(smsc.message()["binds"], 1, "none of it ended the bind");
    let long = channel.heard.recv().await.unwrap();
    assert_eq!(long.receipt, Err(Unread::Unreadable));
    let cut = channel.heard.recv().await.unwrap();
    assert_eq!(cut.receipt, Err(Unread::Unreadable));
    let heard = channel.heard.recv().await.unwrap().receipt.unwrap();
    assert_eq!(heard.state, ReceiptState::Failed);
    assert_eq!(heard.message_id, after.provider_message_id);

    // A connection that the SMSC no longer considers bound is replaced.
    for (binds, to) in [
        (2, "+4915112340008"),
        (3, "+4915112340011"),
        (4, "+4915112340012"),
    ] {
        let unbound = attempt(to).await;
        assert_eq!(unbound.class, Class::Transient, "{}", unbound.reason);
        let next = attempt("+4915112345678").await;
        assert_eq!(next.class, Class::Accepted, "{}", next.reason);
        assert_eq!(smsc.message()["binds"], binds);
    }
    // A refusal without a reason is not the message's fault: another provider may accept it.
    let refused = attempt("+4915112340013").await;
    assert_eq!(
        refused.class,
        Class::DestinationRefused,
        "{}",
        refused.reason
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_a_fault_and_nobody_there_is_not() {
    let smsc = Smsc::start();
    let folder = tempfile::tempdir().unwrap();
    let wrong = channel(&folder, smsc.port, "guess", "Test");
    let refused = wrong.providers[0]
        .attempt(&dispatch("+4915112345678", "Test"))
        .await;
    assert_eq!(
        (refused.class, refused.reason.as_str()),
        (Class::ConfigFault, "bind_0x0e")
    );
    let nobody = channel(&folder, watchword_tests::free_port(), "secret", "Test");
    let away = nobody.providers[0]
        .attempt(&dispatch("+4915112345678", "Test"))
        .await;
    assert_eq!(away.class, Class::Transient, "{}", away.reason);
}

#[test]
fn clear_text_beyond_loopback_is_refused() {
    let text = "[providers.smsc]\nkind = \"smpp\"\nsecrets = { password = { env = \"PATH\" } }\n\
                [providers.smsc.smpp]\nhost = \"smsc.example.org\"\nport = 2775\nsystem_id = \"watchword\"\n";
    let config: SmsConfig = toml::from_str(text).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let refused = watchword_sms_worker::build(&config, None::<&Path>, &Inbox::default(), &clock);
    assert_eq!(refused.err().unwrap().key, "sms.providers.smsc.smpp.host");
}
