//! The provider against scripted relays. A script pairs the expected start of each command with the
//! bytes that answer it.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use watchword_core::AttemptClass as Class;
use watchword_core::{Channel, Recipient, Variables};
use watchword_delivery::Sender;

use super::*;

/// Reply to the greeting or to a command with this start, sent after this many milliseconds.
type Line = (&'static str, &'static [u8], u64);

/// Script of a relay that accepts every mail.
const SOUND: [Line; 6] = [
    ("", b"220 relay\r\n", 0),
    ("EHLO ", b"250-relay\r\n250 8BITMIME\r\n", 0),
    ("MAIL FROM:<no-reply@example.org>\r\n", b"250 ok\r\n", 0),
    ("RCPT TO:<jane@example.org>\r\n", b"250 ok\r\n", 0),
    ("DATA\r\n", b"354 go\r\n", 0),
    ("From: ", b"250 taken\r\n", 0),
];

/// Returns the script of a working relay with some lines replaced.
fn with(changes: &[Line]) -> Vec<Line> {
    let mut script = SOUND.to_vec();
    for change in changes {
        let place = script.iter().position(|(start, _, _)| {
            change.0.is_empty() == start.is_empty() && start.starts_with(change.0)
        });
        script[place.unwrap()].1 = change.1;
        script[place.unwrap()].2 = change.2;
    }
    script
}

#[derive(Clone)]
struct Relay {
    port: u16,
    /// Commands received on each connection.
    heard: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Relay {
    /// Starts a relay that follows one script per connection, and the last script for all further
    /// ones.
    async fn start(scripts: Vec<Vec<Line>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Self {
            port: listener.local_addr().unwrap().port(),
            heard: Arc::default(),
        };
        let heard = relay.heard.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = heard.lock().unwrap().len();
                heard.lock().unwrap().push(Vec::new());
                let script = scripts[number.min(scripts.len() - 1)].clone();
                tokio::spawn(follow(stream, script, number, heard.clone()));
            }
        });
        relay
    }

    fn provider(&self, more: &str) -> SmtpProvider {
        let text = format!(
            "host = \"127.0.0.1\"\nport = {}\nfrom = \"no-reply@example.org\"\n{more}",
            self.port
        );
        let config: SmtpConfig = toml::from_str(&text).unwrap();
        let name = "relay".parse().unwrap();
        SmtpProvider::new(name, &config, EmailText::load(None).unwrap()).unwrap()
    }

    fn heard(&self) -> Vec<Vec<String>> {
        self.heard.lock().unwrap().clone()
    }
}

async fn follow(
    mut stream: TcpStream,
    script: Vec<Line>,
    number: usize,
    heard: Arc<Mutex<Vec<Vec<String>>>>,
) {
    let mut lines = script.iter();
    let (_, greeting, delay_ms) = lines.next().unwrap();
    sleep(Duration::from_millis(*delay_ms)).await;
    let _ = stream.write_all(greeting).await;
    // After the last line the script continues at MAIL: the connection stays open.
    let mail = script
        .iter()
        .position(|(start, _, _)| start.starts_with("MAIL"));
    let again = script[mail.unwrap_or(script.len())..].iter().cycle();
    for (start, answer, delay_ms) in lines.chain(again) {
        let mut command = Vec::new();
        let is_mail = *start == "From: ";
        while !command.ends_with(if is_mail { b"\r\n.\r\n" } else { b"\r\n" }) {
            if !matches!(stream.read_buf(&mut command).await, Ok(1..)) {
                return;
            }
        }
        let command = String::from_utf8(command).unwrap();
        let known = command.starts_with(start);
        heard.lock().unwrap()[number].push(command);
        if !known {
            return;
        }
        sleep(Duration::from_millis(*delay_ms)).await;
        let _ = stream.write_all(answer).await;
    }
}

fn dispatch() -> Dispatch {
    Dispatch {
        delivery_id: format!("{}-1", "a".repeat(32)).parse().unwrap(),
        recipient: Recipient::parse(Channel::Email, "jane@example.org").unwrap(),
        code: "012345".parse().unwrap(),
        sender: Sender {
            app: "Test".into(),
            host: None,
        },
        locale: None,
        variables: Variables::default(),
        remaining: Duration::from_secs(200),
    }
}

async fn attempt(script: Vec<Line>, more: &str) -> (Class, String, Vec<Vec<String>>) {
    let relay = Relay::start(vec![script]).await;
    let attempted = relay.provider(more).attempt(&dispatch()).await;
    (attempted.class, attempted.reason, relay.heard())
}

#[tokio::test]
async fn any_text_and_any_second_digit_are_replies() {
    // Command of the step, its reply, the class and the reason.
    let table: [(&str, &[u8], Class, &str); 12] = [
        ("", b"220 gr\xfc\xdf dich\r\n", Class::Accepted, "250"),
        ("", b"220 relay\n", Class::Accepted, "250"),
        ("", b"220-a\r\n220-b\r\n220 c\r\n", Class::Accepted, "250"),
        ("EHLO", b"250-relay\n250 8BITMIME\n", Class::Accepted, "250"),
        (
            "EHLO",
            b"250- \r\n250-\r\n250 x\r\n",
            Class::Accepted,
            "250",
        ),
        ("RCPT", b"251 forwards\r\n", Class::Accepted, "250"),
        ("DATA", b"354 los gehts \xfc\r\n", Class::Accepted, "250"),
        ("From: ", b"250 \xfcbernommen\r\n", Class::Accepted, "250"),
        ("From: ", b"299 taken\r\n", Class::Accepted, "250"),
        ("RCPT", b"571 no\r\n", Class::DestinationRefused, "rcpt_571"),
        (
            "RCPT",
            b"550-5.7.1 denied\r\n550 5.7.1 denied\r\n",
            Class::DestinationRefused,
            "rcpt_550_5.7.1",
        ),
        ("From: ", b"471 later\r\n", Class::Transient, "body_471"),
    ];
    for (start, answer, class, reason) in table {
        let (was, why, heard) = attempt(with(&[(start, answer, 0)]), "tls = \"none\"").await;
        assert_eq!((was, why.as_str()), (class, reason), "{start} {heard:?}");
    }
}

#[tokio::test]
async fn a_reply_too_many_ends_the_connection() {
    // Otherwise the reply to RCPT would be read as the reply to DATA, and so on.
    for (start, answer) in [
        ("EHLO", &b"250 relay\r\n250 ok\r\n"[..]),
        ("MAIL", b"250 ok\r\n250 ok\r\n"),
        ("RCPT", b"250 ok\r\n354 go\r\n"),
    ] {
        let (class, reason, heard) = attempt(with(&[(start, answer, 0)]), "tls = \"none\"").await;
        assert_eq!(class, Class::Transient, "{start}: {reason}");
        assert!(
            heard.iter().flatten().all(|said| !said.starts_with("From")),
            "{heard:?}"
        );
    }
}

/// The attack of CVE-2011-0411: clear-text replies behind the reply to STARTTLS, sent to be read as
/// replies inside TLS.
#[tokio::test]
async fn clear_text_behind_the_reply_to_starttls_is_a_fault() {
    let injected =
        b"220 go\r\n250-x\r\n250 8BITMIME\r\n250 ok\r\n250 ok\r\n354 go\r\n250 queued\r\n";
    let script = |answer: &'static [u8]| {
        vec![
            ("", &b"220 relay\r\n"[..], 0),
            ("EHLO ", b"250-relay\r\n250 STARTTLS\r\n", 0),
            ("STARTTLS\r\n", answer, 0),
        ]
    };
    for answer in [&injected[..], b"220 go\r\n2", b"220 go\r\n\r\n"] {
        let (class, reason, heard) = attempt(script(answer), "tls = \"starttls\"").await;
        assert_eq!(
            (class, reason.as_str()),
            (Class::ConfigFault, "starttls_injected")
        );
        assert_eq!(heard[0].len(), 2, "{heard:?}");
    }
    let (class, reason, _) = attempt(script(b"220 go\r\n"), "tls = \"starttls\"").await;
    assert_eq!(
        (class, reason.as_str()),
        (Class::Transient, "starttls_broken")
    );
    let (class, reason, _) = attempt(script(b"454 later\r\n"), "tls = \"starttls\"").await;
    assert_eq!((class, reason.as_str()), (Class::Transient, "starttls_454"));
    let (class, reason, heard) = attempt(SOUND.to_vec(), "tls = \"starttls\"").await;
    assert_eq!(
        (class, reason.as_str()),
        (Class::ConfigFault, "starttls_not_offered")
    );
    assert_eq!(heard[0].len(), 1, "{heard:?}");
}

#[tokio::test]
async fn a_relay_without_ehlo_gets_helo() {
    for answer in [&b"500 what\r\n"[..], b"502 5.5.1 not here\r\n"] {
        let mut script = with(&[("EHLO", answer, 0)]);
        script.insert(2, ("HELO otp.example.org\r\n", b"250 relay\r\n", 0));
        let more = "tls = \"none\"\nhello = \"otp.example.org\"";
        let (class, reason, heard) = attempt(script, more).await;
        assert_eq!(class, Class::Accepted, "{reason}");
        assert_eq!(heard[0][0], "EHLO otp.example.org\r\n");
    }
    let refused = with(&[("EHLO", b"504 5.5.2 fully-qualified\r\n", 0)]);
    let (class, reason, _) = attempt(refused, "tls = \"none\"").await;
    assert_eq!(
        (class, reason.as_str()),
        (Class::ConfigFault, "connect_504_5.5.2")
    );
}

#[tokio::test]
async fn old_and_odd_ways_to_log_in() {
    const PLAIN: &str = "AUTH PLAIN AGJvYgBzM2NyZXQ=\r\n";
    type Auth = (&'static [u8], Vec<Line>, Class);
    let login = |first: &'static [u8], second: &'static [u8], end: &'static [u8]| {
        vec![
            ("AUTH LOGIN\r\n", first, 0),
            ("Ym9i\r\n", second, 0),
            ("czNjcmV0\r\n", end, 0),
        ]
    };
    let ok = b"235 ok\r\n";
    let table: Vec<Auth> = vec![
        (
            b"250-x\r\n250 AUTH PLAIN LOGIN\r\n",
            vec![(PLAIN, ok, 0)],
            Class::Accepted,
        ),
        (
            b"250-x\r\n250 auth plain\r\n",
            vec![(PLAIN, ok, 0)],
            Class::Accepted,
        ),
        (
            b"250-x\r\n250 AUTH PLAIN\r\n",
            vec![(PLAIN, b"334 \r\n", 0), ("AGJvYgBzM2NyZXQ=\r\n", ok, 0)],
            Class::Accepted,
        ),
        (
            b"250-x\r\n250 AUTH=LOGIN\r\n",
            login(b"334 VXNlcm5hbWU6\r\n", b"334 UGFzc3dvcmQ6\r\n", ok),
            Class::Accepted,
        ),
        (
            b"250-x\n250 AUTH LOGIN\n",
            login(b"334 Benutzer\n", b"334 Kennwort:\n", b"235 willkommen\n"),
            Class::Accepted,
        ),
        (
            b"250-x\r\n250 AUTH LOGIN\r\n",
            login(b"334\r\n", b"334 \r\n", ok),
            Class::Accepted,
        ),
        (
            b"250-x\r\n250 AUTH PLAIN LOGIN\r\n",
            [
                vec![(PLAIN, &b"504 5.5.4 not this\r\n"[..], 0)],
                login(b"334 \r\n", b"334 \r\n", ok),
            ]
            .concat(),
            Class::Accepted,
        ),
        (
            b"250-x\r\n250 AUTH PLAIN\r\n",
            vec![(PLAIN, b"535 \xc8\xcf\xd6\xa4\xca\xa7\xb0\xdc\r\n", 0)],
            Class::ConfigFault,
        ),
        (
            b"250-x\r\n250 AUTH PLAIN\r\n",
            vec![(PLAIN, b"454 later\r\n", 0)],
            Class::Transient,
        ),
        (
            b"250-x\r\n250 AUTH CRAM-MD5\r\n",
            vec![],
            Class::ConfigFault,
        ),
    ];
    let mut password = tempfile::NamedTempFile::new().unwrap();
    password.write_all(b"s3cret\n").unwrap();
    let path = password.path().display();
    let more = format!("tls = \"none\"\nusername = \"bob\"\npassword = {{ file = \"{path}\" }}");
    for (features, auth, class) in table {
        let mut script = with(&[("EHLO", features, 0)]);
        script.splice(2..2, auth);
        let (was, reason, heard) = attempt(script, &more).await;
        assert_eq!(was, class, "{reason}: {heard:?}");
    }
}

#[tokio::test]
async fn the_steps_share_the_time_of_the_attempt() {
    // Neither the greeting nor the final reply has a shorter limit of its own.
    let slow = with(&[
        ("", b"220 relay\r\n", 2_000),
        ("From: ", b"250 ok\r\n", 2_000),
    ]);
    let relay = Relay::start(vec![slow]).await;
    let provider = relay.provider("tls = \"none\"\ntimeout_seconds = 5");
    let attempted = provider.attempt(&dispatch()).await;
    assert_eq!(attempted.class, Class::Accepted, "{}", attempted.reason);
    // The connection that was slow to greet is kept.
    let attempted = provider.attempt(&dispatch()).await;
    assert_eq!(attempted.class, Class::Accepted, "{}", attempted.reason);
    assert_eq!(relay.heard().len(), 1);
}

#[tokio::test]
async fn an_attempt_ends_before_its_limit_and_names_its_step() {
    let table = [
        ("", Class::Transient, "connect_timeout"),
        ("EHLO", Class::Transient, "connect_timeout"),
        ("MAIL", Class::Transient, "mail_timeout"),
        ("RCPT", Class::Transient, "rcpt_timeout"),
        ("DATA", Class::Transient, "data_timeout"),
        ("From: ", Class::UnknownOutcome, "body_timeout"),
    ];
    let attempts = table.map(|(start, class, reason)| async move {
        let begun = Instant::now();
        let more = "tls = \"none\"\ntimeout_seconds = 1";
        let (was, why, _) = attempt(with(&[(start, b"250 ok\r\n", 5_000)]), more).await;
        assert_eq!((was, why.as_str()), (class, reason), "{start}");
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "{start} {:?}",
            begun.elapsed()
        );
    });
    futures_util::future::join_all(attempts).await;
    // The attempt also ends before its code does, if that is earlier than the limit.
    let relay = Relay::start(vec![with(&[("RCPT", b"250 ok\r\n", 5_000)])]).await;
    let short = Dispatch {
        remaining: Duration::from_secs(2),
        ..dispatch()
    };
    let begun = Instant::now();
    let attempted = relay.provider("tls = \"none\"").attempt(&short).await;
    assert_eq!(attempted.reason, "rcpt_timeout");
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_kept_connection_that_is_dead_is_replaced() {
    let mut dead = SOUND.to_vec();
    // The second mail on this connection gets no reply.
    dead.push(("MAIL", b"250 ok\r\n", 60_000));
    let relay = Relay::start(vec![dead, SOUND.to_vec()]).await;
    let provider = relay.provider("tls = \"none\"\ntimeout_seconds = 3");
    for _ in 0..2 {
        let attempted = provider.attempt(&dispatch()).await;
        assert_eq!(attempted.class, Class::Accepted, "{}", attempted.reason);
    }
    assert_eq!(relay.heard().len(), 2);
}

#[tokio::test]
async fn an_internationalized_sender_goes_out_in_ascii() {
    let mut script = SOUND.to_vec();
    script[2].0 = "MAIL FROM:<no-reply@xn--bcher-kva.example>\r\n";
    let relay = Relay::start(vec![script]).await;
    let text = format!(
        "host = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nfrom = \"B\u{fc}cher <no-reply@b\u{fc}cher.example>\"",
        relay.port
    );
    let config: SmtpConfig = toml::from_str(&text).unwrap();
    let text = EmailText::load(None).unwrap();
    let provider = SmtpProvider::new("relay".parse().unwrap(), &config, text).unwrap();
    let attempted = provider.attempt(&dispatch()).await;
    assert_eq!(attempted.class, Class::Accepted, "{}", attempted.reason);
    let heard = relay.heard().concat();
    assert!(heard.iter().all(|said| said.is_ascii()), "{heard:?}");
    assert!(heard[4].contains("@xn--bcher-kva.example>"), "{}", heard[4]);
}
