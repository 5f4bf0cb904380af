//! Providers against misbehaving peers: an SMTP relay that hangs, sends wrong replies and cuts at
//! every verb, and an HTTP gateway that throttles, redirects, sends slowly and breaks off.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use watchword_core::{
    AttemptClass as Class, Channel, Clock, ManualClock, Recipient, Timestamp, Variables,
};
use watchword_delivery::{Attempted, Dispatch, Inbox, Provider, Sender};
use watchword_email_worker::EmailConfig;
use watchword_sms_worker::SmsConfig;
use watchword_tests::Sink;
use watchword_tests::fault::certificate::{Authority, Flaw};
use watchword_tests::sink::Script;

fn only(mut providers: Vec<Arc<dyn Provider>>) -> Arc<dyn Provider> {
    assert_eq!(providers.len(), 1);
    providers.remove(0)
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::at(Timestamp::from_millis(0)))
}

fn dispatch(channel: Channel, number: u32) -> Dispatch {
    let to = if channel == Channel::Sms {
        "+4915112345678"
    } else {
        "jane@example.org"
    };
    Dispatch {
        delivery_id: format!("{}-{}", "a".repeat(32), number % 200 + 1)
            .parse()
            .unwrap(),
        recipient: Recipient::parse(channel, to).unwrap(),
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

fn relay(port: u16, more: &str) -> Arc<dyn Provider> {
    watchword_tests::tls();
    let text = format!(
        "[providers.relay]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = {port}\nfrom = \"Test <no-reply@mail.example.org>\"\n{more}"
    );
    let config: EmailConfig = toml::from_str(&text).unwrap();
    only(
        watchword_email_worker::build(&config, None::<&Path>, &Inbox::default(), &clock())
            .unwrap()
            .providers,
    )
}

async fn mail(provider: &Arc<dyn Provider>) -> Attempted {
    provider.attempt(&dispatch(Channel::Email, 1)).await
}

#[tokio::test]
async fn a_relay_connection_is_kept_and_does_not_stall() {
    let sink = Sink::start().await;
    let provider = relay(sink.port(), "tls = \"none\"");
    let mut times = Vec::new();
    for number in 0..20 {
        let begun = Instant::now();
        let attempted = provider.attempt(&dispatch(Channel::Email, number)).await;
        assert_eq!(attempted.class, Class::Accepted, "{}", attempted.reason);
        times.push(begun.elapsed());
    }
    times.sort();
    println!("one mail on a kept connection: median {:?}", times[10]);
    // Without TCP_NODELAY every mail waits 40 ms for a delayed acknowledgement.
    assert!(times[10] < Duration::from_millis(30), "{times:?}");
    assert_eq!((sink.connections(), sink.mails().len()), (1, 20));
    assert!(
        sink.mails()[0]
            .data
            .contains("Auto-Submitted: auto-generated")
    );
}

#[tokio::test]
async fn replies_decide_by_verb() {
    let table = [
        ("CONNECT", "421 later", Class::Transient),
        ("CONNECT", "554 no", Class::ConfigFault),
        ("EHLO", "504 what", Class::ConfigFault),
        ("MAIL", "451 later", Class::Transient),
        ("MAIL", "550 who", Class::ConfigFault),
        ("RCPT", "450 4.2.0 greylisted", Class::Transient),
        ("RCPT", "550 5.1.1 unknown", Class::RecipientInvalid),
        (
            "RCPT",
            "554 5.7.1 relay access denied",
            Class::DestinationRefused,
        ),
        ("RCPT", "571 no", Class::DestinationRefused),
        ("DATA", "554 no", Class::MessageRejected),
        ("DATA", "250 odd", Class::UnknownOutcome),
        (".", "452 full", Class::Transient),
        (".", "554 5.6.0 spam", Class::MessageRejected),
        (
            ".",
            "550 5.7.26 unauthenticated sender",
            Class::DestinationRefused,
        ),
        (".", "354 odd", Class::UnknownOutcome),
        (".", "nonsense", Class::UnknownOutcome),
    ];
    for (verb, reply, class) in table {
        let sink = Sink::start().await;
        let provider = relay(sink.port(), "tls = \"none\"");
        sink.script(verb, Script::Reply(reply));
        let attempted = mail(&provider).await;
        assert_eq!(
            attempted.class, class,
            "{verb} {reply}: {}",
            attempted.reason
        );
        assert!(!attempted.reason.contains("jane"));
        // The connection was not kept: the next mail opens its own and reads its own replies.
        assert_eq!(
            mail(&provider).await.class,
            Class::Accepted,
            "after {verb} {reply}"
        );
        assert_eq!(
            (sink.connections(), sink.mails().len()),
            (2, 1),
            "{verb} {reply}"
        );
    }
}

/// If the relay is silent at any step, the attempt ends within its limit and names the step.
#[tokio::test]
async fn m1_silence_at_any_verb_ends_in_time() {
    let silences = ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "."].map(|verb| async move {
        let sink = Sink::start().await;
        let provider = relay(sink.port(), "tls = \"none\"\ntimeout_seconds = 3");
        sink.script(verb, Script::Hang);
        let begun = Instant::now();
        let attempted = mail(&provider).await;
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{verb} {:?}",
            begun.elapsed()
        );
        let class = if verb == "." {
            Class::UnknownOutcome
        } else {
            Class::Transient
        };
        assert_eq!(attempted.class, class, "{verb}: {}", attempted.reason);
        // The silent connection is not reused.
        assert_eq!(mail(&provider).await.class, Class::Accepted, "after {verb}");
        assert_eq!(sink.connections(), 2, "after {verb}");
    });
    join_all(silences).await;
}

/// A mail that is canceled while its last reply is outstanding leaves no reply for the next mail to
/// read.
#[tokio::test]
async fn m2_a_cancelled_mail_poisons_no_connection() {
    let sink = Sink::start().await;
    let provider = relay(sink.port(), "tls = \"none\"\nmax_connections = 1");
    assert_eq!(mail(&provider).await.class, Class::Accepted);
    sink.script(".", Script::Hang);
    assert!(
        tokio::time::timeout(Duration::from_millis(500), mail(&provider))
            .await
            .is_err()
    );
    sink.script(".", Script::Reply("554 5.6.0 refused"));
    assert_eq!(mail(&provider).await.class, Class::MessageRejected);
    assert_eq!(sink.connections(), 2);
    assert_eq!(sink.mails().len(), 1);
}

/// A relay whose connections are all busy has accepted nothing, so the outcome is transient.
#[tokio::test]
async fn a_busy_relay_is_a_transient_end() {
    let sink = Sink::start().await;
    let provider = relay(
        sink.port(),
        "tls = \"none\"\nmax_connections = 1\ntimeout_seconds = 4",
    );
    sink.script(".", Script::Hang);
    let (first, second) = tokio::join!(mail(&provider), mail(&provider));
    assert_eq!(first.class, Class::UnknownOutcome, "{}", first.reason);
    assert_eq!(
        (second.class, second.reason.as_str()),
        (Class::Transient, "connect_busy")
    );
}

/// Each step is in time, but all together exceed the limit before anything was handed over, so the
/// outcome is transient.
#[tokio::test]
async fn a_slow_dialogue_is_a_transient_end() {
    let sink = Sink::start().await;
    let provider = relay(sink.port(), "tls = \"none\"\ntimeout_seconds = 3");
    sink.script("RCPT", Script::Hang);
    let slow = mail(&provider).await;
    assert_eq!(
        (slow.class, slow.reason.as_str()),
        (Class::Transient, "rcpt_timeout")
    );
}

#[tokio::test]
async fn a_cut_is_unknown_after_the_dot_and_a_retry_before_it() {
    let sink = Sink::start().await;
    let provider = relay(sink.port(), "tls = \"none\"");
    assert_eq!(mail(&provider).await.class, Class::Accepted);
    // The relay closed the kept connection: the mail goes over a new one.
    sink.script("MAIL", Script::Cut);
    assert_eq!(mail(&provider).await.class, Class::Accepted);
    assert_eq!(sink.connections(), 2);
    sink.script(".", Script::Cut);
    assert_eq!(mail(&provider).await.class, Class::UnknownOutcome);
    sink.script("RCPT", Script::Cut);
    assert_eq!(mail(&provider).await.class, Class::Transient);
    let refused = relay(watchword_tests::free_port(), "tls = \"none\"");
    assert_eq!(mail(&refused).await.class, Class::Transient);
}

/// A relay that hides STARTTLS gets neither mail nor password.
#[tokio::test]
async fn hidden_tls_is_a_fault_and_nothing_is_sent() {
    let sink = Sink::start().await;
    let provider = relay(sink.port(), "tls = \"starttls\"");
    let attempted = mail(&provider).await;
    assert_eq!(
        (attempted.class, attempted.reason.as_str()),
        (Class::ConfigFault, "starttls_not_offered")
    );
    let provider = relay(sink.port(), "tls = \"implicit\"");
    assert_eq!(mail(&provider).await.class, Class::ConfigFault);
    assert!(sink.mails().is_empty());
}

/// A man in the middle appends replies to the STARTTLS reply, while the relay itself refuses
/// everything. Read inside TLS, the injected replies would make the mail look accepted (RFC 3207
/// section 6).
#[tokio::test]
async fn replies_from_before_tls_are_not_believed_inside_it() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let sink = Sink::start().await;
    sink.offer_starttls(authority.server(Flaw::None));
    let settings = format!("tls = \"starttls\"\nca_file = \"{}\"", ca.display());
    let provider = relay(sink.port(), &settings);
    let sound = mail(&provider).await;
    assert_eq!(sound.class, Class::Accepted, "{}", sound.reason);
    // Another provider opens its own connection.
    let provider = relay(sink.port(), &settings);
    sink.habit("MAIL", Some(Script::Reply("550 5.7.1 no")));
    sink.habit("RCPT", Some(Script::Reply("550 5.7.1 no")));
    sink.script(
        "STARTTLS",
        Script::Reply(
            "220 go\r\n250-x\r\n250 8BITMIME\r\n250 ok\r\n250 ok\r\n354 go\r\n250 queued",
        ),
    );
    let attempted = mail(&provider).await;
    assert_eq!(
        (attempted.class, attempted.reason.as_str()),
        (Class::ConfigFault, "starttls_injected")
    );
    assert_eq!((sink.connections(), sink.mails().len()), (2, 1));
    // The connection with injected replies was not kept.
    sink.habit("MAIL", None);
    sink.habit("RCPT", None);
    let sound = mail(&provider).await;
    assert_eq!(sound.class, Class::Accepted, "{}", sound.reason);
    assert_eq!((sink.connections(), sink.mails().len()), (3, 2));
}

/// A certificate that is not valid for the relay ends the attempt before any login.
#[tokio::test]
async fn a_wrong_certificate_is_a_fault() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    for (flaw, reason) in [
        (Flaw::Expired, "starttls_tls_expired"),
        (Flaw::WrongName, "starttls_tls_wrong_name"),
        (Flaw::UnknownAuthority, "starttls_tls_unknown_issuer"),
    ] {
        let sink = Sink::start().await;
        sink.offer_starttls(authority.server(flaw));
        let settings = format!("tls = \"starttls\"\nca_file = \"{}\"", ca.display());
        let attempted = mail(&relay(sink.port(), &settings)).await;
        assert_eq!(
            (attempted.class, attempted.reason.as_str()),
            (Class::ConfigFault, reason),
            "{flaw:?}"
        );
        assert!(sink.mails().is_empty());
    }
}

/// A relay that restarts behind a load balancer cuts the handshake; that says nothing about its
/// certificate, so the outcome is transient.
#[tokio::test]
async fn a_handshake_that_is_cut_is_tried_again() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
        }
    });
    let attempted = mail(&relay(port, "tls = \"implicit\"")).await;
    assert_eq!(
        (attempted.class, attempted.reason.as_str()),
        (Class::Transient, "starttls_broken")
    );
}

/// An independent relay: Postfix's smtp-sink with a fault at each verb.
#[tokio::test]
async fn smtp_sink_faults_decide_by_verb() {
    let sinks = [
        (&["-f", "CONNECT"][..], Class::ConfigFault),
        (&["-f", "MAIL"], Class::ConfigFault),
        // "500 5.3.0" concerns the relay's system, not this mail.
        (&["-f", "RCPT"], Class::DestinationRefused),
        (
            &["-f", "RCPT", "-B", "550 5.1.1 nobody"],
            Class::RecipientInvalid,
        ),
        (&["-f", "DATA"], Class::DestinationRefused),
        (&["-f", "."], Class::DestinationRefused),
        (&["-r", "CONNECT"], Class::Transient),
        (&["-r", "MAIL"], Class::Transient),
        (&["-r", "RCPT"], Class::Transient),
        (&["-r", "DATA"], Class::Transient),
        (&["-r", "."], Class::Transient),
        (&["-q", "MAIL"], Class::Transient),
        (&["-q", "."], Class::UnknownOutcome),
        (&["-Q", "RCPT"], Class::Transient),
        (&["-W", "MAIL:1"], Class::Accepted),
        (&["-W", "RCPT:7"], Class::Accepted),
        (&["-W", "RCPT:20"], Class::Transient),
        (&[], Class::Accepted),
    ];
    let folder = tempfile::tempdir().unwrap();
    let attempts = sinks.into_iter().enumerate().map(|(row, (flags, class))| {
        let port = watchword_tests::free_port();
        let mut command = std::process::Command::new("/usr/sbin/smtp-sink");
        // smtp-sink run as root requires a user to switch to.
        let user = if is_root() {
            &["-u", "nobody"][..]
        } else {
            &[]
        };
        command.args(user).args(flags);
        command.args([&format!("127.0.0.1:{port}"), "10"]);
        let sink = watchword_tests::Process::start(command, &folder.path().join(row.to_string()));
        async move {
            watchword_tests::until(10, "smtp-sink listens", || async {
                tokio::net::TcpStream::connect(("127.0.0.1", port))
                    .await
                    .ok()
            })
            .await;
            let attempted = mail(&relay(port, "tls = \"none\"")).await;
            assert_eq!(attempted.class, class, "{flags:?}: {}", attempted.reason);
            drop(sink);
        }
    });
    join_all(attempts).await;
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

// ---- HTTP

/// How the gateway treats a connection after the request.
#[derive(Debug, Clone)]
enum Answer {
    Whole(String),
    Start(String),
    Stall(String),
    Drip,
    Hang,
    Cut,
}

async fn gateway(answer: Answer) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = vec![0; 64 * 1024];
                let _ = stream.read(&mut request).await;
                match answer {
                    Answer::Whole(text) | Answer::Start(text) => {
                        let _ = stream.write_all(text.as_bytes()).await;
                    }
                    Answer::Stall(text) => {
                        let _ = stream.write_all(text.as_bytes()).await;
                        std::future::pending::<()>().await;
                    }
                    Answer::Drip => {
                        for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"
                            .iter()
                            .chain([b' '; 100].iter())
                        {
                            let _ = stream.write_all(&[*byte]).await;
                            tokio::time::sleep(Duration::from_millis(200)).await;
                        }
                    }
                    Answer::Hang => std::future::pending().await,
                    Answer::Cut => {}
                }
            });
        }
    });
    port
}

fn http(port: u16) -> Arc<dyn Provider> {
    http_at(&format!("http://127.0.0.1:{port}/messages"))
}

fn http_at(url: &str) -> Arc<dyn Provider> {
    watchword_tests::tls();
    let text = format!(
        "[providers.acme]\nkind = \"http\"\ntimeout_seconds = 2\n[providers.acme.request]\nmethod = \"POST\"\n\
         url = \"{url}\"\njson = {{ to = \"{{to}}\", text = \"{{text}}\", ttl = \"{{ttl_seconds}}\" }}\n\
         [providers.acme.response]\nid = {{ json = \"/id\" }}\nrules = [{{ status = [\"201\"], class = \"accepted\" }}]\n"
    );
    let config: SmsConfig = toml::from_str(&text).unwrap();
    only(
        watchword_sms_worker::build(&config, None::<&Path>, &Inbox::default(), &clock())
            .unwrap()
            .providers,
    )
}

async fn classified(answer: Answer) -> Attempted {
    let provider = http(gateway(answer).await);
    let begun = Instant::now();
    let message = dispatch(Channel::Sms, 1);
    // Like a worker, check the limit before the response.
    let attempted = tokio::select! {
        biased;
        () = tokio::time::sleep(provider.attempt_limit()) => {
            Attempted::new(Class::UnknownOutcome, "deadline")
        }
        attempted = provider.attempt(&message) => attempted,
    };
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    attempted
}

fn whole(head: &str, body: &str) -> Answer {
    Answer::Whole(format!(
        "HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ))
}

/// If a gateway's certificate is not trusted, the reason says so, and so does the doctor's probe.
#[tokio::test]
async fn a_gateway_that_fails_in_tls_is_named() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = TlsAcceptor::from(Authority::new().server(Flaw::None));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = server.accept(stream).await;
        }
    });
    let unknown = http_at(&format!("https://127.0.0.1:{port}/messages"));
    let attempted = unknown.attempt(&dispatch(Channel::Sms, 1)).await;
    assert_eq!(
        (attempted.class, attempted.reason.as_str()),
        (Class::Transient, "connect_tls_unknown_issuer")
    );
    let probed = unknown.probe().await.unwrap_err();
    assert_eq!(probed.reason, "connect_tls_unknown_issuer");
    let clear = gateway(whole("201 Created", "")).await;
    let clear = http_at(&format!("https://127.0.0.1:{clear}/messages"));
    let attempted = clear.attempt(&dispatch(Channel::Sms, 1)).await;
    assert_eq!(attempted.reason, "connect_tls_not_tls");
}

#[tokio::test]
async fn a_gateway_is_read_by_its_rules_and_bounded_in_everything() {
    let accepted = classified(whole("201 Created", "{\"id\":\"m-1\"}")).await;
    assert_eq!(
        (accepted.class, accepted.provider_message_id.as_deref()),
        (Class::Accepted, Some("m-1"))
    );
    let throttled = classified(whole("429 Slow\r\nretry-after: 7", "")).await;
    assert_eq!(
        (throttled.class, throttled.retry_after),
        (Class::Transient, Some(Duration::from_secs(7)))
    );
    let cases = [
        (whole("200 OK", "<html>"), Class::UnknownOutcome),
        (whole("503 Away", ""), Class::Transient),
        (whole("401 Who", ""), Class::ConfigFault),
        (
            whole("422 No", "{\"to\":\"+4915112345678\"}"),
            Class::MessageRejected,
        ),
        // A redirect is not followed: it could send code and number to any host.
        (
            whole("302 Found\r\nlocation: http://169.254.169.254/", ""),
            Class::ConfigFault,
        ),
        // The rule needs no body, so an unreadable body does not matter.
        (whole("201 Created", &"x".repeat(10 << 20)), Class::Accepted),
        (
            Answer::Start("HTTP/1.1 201 Created\r\ncontent-length: 99\r\n\r\nhalf".into()),
            Class::Accepted,
        ),
        (
            Answer::Stall("HTTP/1.1 201 Created\r\ncontent-length: 99\r\n\r\nhalf".into()),
            Class::Accepted,
        ),
        (Answer::Start("HTTP/1.1 2".into()), Class::UnknownOutcome),
        (Answer::Stall("HTTP/1.1 2".into()), Class::UnknownOutcome),
        (Answer::Drip, Class::UnknownOutcome),
        (Answer::Hang, Class::UnknownOutcome),
        (Answer::Cut, Class::UnknownOutcome),
    ];
    for (answer, class) in cases {
        let shown = format!("{answer:.60?}");
        let attempted = classified(answer).await;
        assert_eq!(attempted.class, class, "{shown}: {}", attempted.reason);
        assert!(!attempted.reason.contains("4915112345678"));
    }
    let nobody = http(watchword_tests::free_port());
    assert_eq!(
        nobody.attempt(&dispatch(Channel::Sms, 1)).await.class,
        Class::Transient
    );
}
