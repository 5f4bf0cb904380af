//! Attempts at a gateway that answers with the given bytes.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use watchword_chassis::SystemClock;
use watchword_core::{Channel, Recipient, Variables};
use watchword_delivery::{Inbox, Sender};

use super::*;
use crate::config::{SmsConfig, build};

fn dispatch() -> Dispatch {
    Dispatch {
        delivery_id: format!("{}-1", "a".repeat(32)).parse().unwrap(),
        recipient: Recipient::parse(Channel::Sms, "+4915112345678").unwrap(),
        code: "012345".parse().unwrap(),
        sender: Sender {
            app: "App".into(),
            host: None,
        },
        locale: None,
        variables: Variables::default(),
        remaining: Duration::from_secs(60),
    }
}

/// Makes an attempt at a gateway that answers with these bytes; also returns the request's head.
async fn attempt(answer: Vec<u8>) -> (Attempted, String) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let gateway = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let read = stream.read(&mut request).await.unwrap();
        stream.write_all(&answer).await.unwrap();
        String::from_utf8_lossy(&request[..read]).to_ascii_lowercase()
    });
    let config: SmsConfig = toml::from_str(&format!(
        r#"
        [providers.gateway]
        kind = "http"
        request = {{ method = "GET", url = "http://127.0.0.1:{port}/", query = {{ to = "{{to}}" }} }}
        [providers.gateway.response]
        id = {{ json = "/id" }}
        rules = [{{ status = ["202"], json = {{ "/status" = ["queued"] }}, class = "accepted" }}]"#,
    ))
    .unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let channel = build(&config, None, &Inbox::default(), &clock).unwrap();
    let attempted = channel.providers[0].attempt(&dispatch()).await;
    (attempted, gateway.await.unwrap())
}

#[tokio::test]
async fn an_answer_with_many_headers_or_a_deep_or_endless_body_is_judged_by_what_can_be_read() {
    let body = r#"{"status":"queued","id":"g1"}"#;
    let many = (0..300).fold(String::new(), |all, n| {
        all + &format!("X-Trace-{n}: {n}\r\n")
    });
    let answer = |status: &str, headers: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
    };
    let deep = format!(
        r#"{{"status":"queued","more":{}{}}}"#,
        "[".repeat(200),
        "]".repeat(200)
    );
    let long = "x".repeat(70_000);
    for (answer, class, reason) in [
        (
            answer("202 A", &many, body),
            AttemptClass::Accepted,
            "http_202",
        ),
        // The rule needs the body, which is nested too deeply to parse.
        (
            answer("202 A", "", &deep),
            AttemptClass::UnknownOutcome,
            "http_202",
        ),
        (
            answer("202 A", "", &long),
            AttemptClass::UnknownOutcome,
            "http_202_unreadable",
        ),
        (
            answer("503 B", "", &deep),
            AttemptClass::Transient,
            "http_503",
        ),
        (
            answer("503 B", "", &long),
            AttemptClass::Transient,
            "http_503",
        ),
        (
            answer("404 N", "", &long),
            AttemptClass::DestinationRefused,
            "http_404",
        ),
    ] {
        let (attempted, _) = attempt(answer.into_bytes()).await;
        assert_eq!((attempted.class, &*attempted.reason), (class, reason));
    }
}

#[tokio::test]
async fn an_answer_that_is_compressed_or_malformed_in_a_header_is_understood() {
    let body = br#"{"status":"queued","id":"g1"}"#;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(body).unwrap();
    for (header, body) in [
        ("Content-Encoding: gzip\r\n", gzip.finish().unwrap()),
        ("X-Trace : 7\r\nX Bad Name: 8\r\n", body.to_vec()),
        ("X-Note: a\r\n b\r\n", body.to_vec()),
    ] {
        let length = body.len();
        let head = format!("HTTP/1.1 202 Accepted\r\n{header}Content-Length: {length}\r\n\r\n");
        let (attempted, request) = attempt([head.into_bytes(), body].concat()).await;
        assert_eq!(attempted.class, AttemptClass::Accepted, "{header}");
        assert_eq!(attempted.provider_message_id.as_deref(), Some("g1"));
        assert!(request.contains("accept-encoding: identity"), "{request}");
    }
}
