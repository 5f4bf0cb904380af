//! Large numbers of slow callers, while well-behaved callers are still served.

use std::process::Command;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use watchword_tests::pipeline::KEY;
use watchword_tests::{Pipeline, Settings, until};

use crate::{embedded, memory_kib};

/// Makes one verification on a new connection, as a well-behaved caller, and returns its duration.
async fn sound(pipeline: &Pipeline, number: usize) -> Duration {
    let begun = Instant::now();
    let answer = pipeline
        .ask("all", "email", &format!("sound{number}@example.org"))
        .await;
    assert_eq!(answer.status, 202, "{:?}", answer.body);
    begun.elapsed()
}

async fn crowd(port: u16, count: usize, begin: &[u8]) -> Vec<TcpStream> {
    let mut crowd = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(begin).await.unwrap();
        crowd.push(stream);
    }
    crowd
}

/// Reads the server's output until it closes the connection.
async fn last_words(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    let read = stream.read_to_end(&mut text);
    let _ = tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .expect("the server closes it");
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_and_silent_callers_keep_nobody_out() {
    let pipeline = embedded().await;
    let (http, admin) = {
        let role = &pipeline.processes["all"];
        (role.http, role.admin)
    };
    let before = memory_kib(pipeline.processes["all"].process.id());
    let head = format!(
        "POST /v1/verifications HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\n\
         content-type: application/json\r\ncontent-length: 5000\r\n\r\n{{"
    );
    let silent = crowd(http, 1_000, b"").await;
    let slow_heads = crowd(http, 200, b"GET /v1/verifications/").await;
    let slow_bodies = crowd(http, 200, head.as_bytes()).await;
    let at_admin = crowd(admin, 200, b"GET /metrics").await;
    for number in 0..20 {
        let took = sound(&pipeline, number).await;
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert!(!pipeline.metrics("all").await.is_empty());
    }
    let grown = memory_kib(pipeline.processes["all"].process.id()) - before;
    assert!(grown < 128 * 1024, "{grown} KiB for 1,600 connections");
    for stream in slow_heads.into_iter().chain(at_admin).step_by(20) {
        last_words(stream).await;
    }
    for stream in slow_bodies.into_iter().step_by(20) {
        let answer = last_words(stream).await;
        assert!(answer.contains("request_timeout"), "{answer}");
    }
    drop(silent);
    sound(&pipeline, 100).await;
}

/// Starts a pipeline whose gateway sends receipts.
async fn with_receipts() -> Pipeline {
    let mut settings = Settings::embedded();
    settings.service = "[services.test.limits]\nservice_per_minute = 100000".into();
    settings.providers = "[sms.providers.kannel]\nkind = \"kannel\"\nsender = \"Test\"\n\
         settings = { base_url = \"http://127.0.0.1:1/\", username = \"watchword\" }\n\
         secrets = { password = { env = \"KANNEL_PASSWORD\" }, receipt_token = { env = \"KANNEL_TOKEN\" } }\n\
         [email.providers.inbox]\nkind = \"inbox\"\n"
        .into();
    let mut pipeline = Pipeline::configure(&settings);
    for (name, value) in [
        ("KANNEL_PASSWORD", "p"),
        ("KANNEL_TOKEN", "a-token-of-kannel"),
    ] {
        pipeline.variables.push((name.into(), value.into()));
    }
    pipeline.start("all", &[]).await;
    pipeline
}

/// More than the limit of requests in flight (512).
const CROWD: usize = 600;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_whose_body_does_not_come_leave_the_api_its_places() {
    let pipeline = with_receipts().await;
    let http = pipeline.processes["all"].http;
    let head = "POST /v1/receipts/kannel HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n";
    let silent = crowd(http, CROWD, head.as_bytes()).await;
    for number in 0..20 {
        let took = sound(&pipeline, number).await;
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    let answer = last_words(silent.into_iter().next().unwrap()).await;
    assert!(answer.contains("request_timeout"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_bodies_take_no_place_on_any_route() {
    let pipeline = with_receipts().await;
    let http = pipeline.processes["all"].http;
    let before = memory_kib(pipeline.processes["all"].process.id());
    let id = "A".repeat(32);
    let key = format!("authorization: Bearer {KEY}\r\n");
    let mut slow = Vec::new();
    for (method, path) in [
        ("POST", "/v1/verifications".to_owned()),
        ("POST", format!("/v1/verifications/{id}/check")),
        ("POST", format!("/v1/verifications/{id}/resend")),
        ("DELETE", format!("/v1/verifications/{id}")),
        ("GET", format!("/v1/verifications/{id}")),
        ("POST", "/v1/receipts/kannel".to_owned()),
        ("GET", "/v1/receipts/kannel".to_owned()),
        ("POST", "/v1/receipts/nosuch".to_owned()),
        ("POST", "/healthz".to_owned()),
        ("POST", "/nosuch".to_owned()),
    ] {
        for key in ["", &key] {
            for body in [
                "content-length: 5000\r\n\r\n{",
                "transfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
            ] {
                let begin = format!(
                    "{method} {path} HTTP/1.1\r\nhost: a\r\n{key}content-type: application/json\r\n{body}"
                );
                slow.extend(crowd(http, CROWD / 20, begin.as_bytes()).await);
            }
        }
    }
    assert!(slow.len() > 512);
    for number in 0..20 {
        // Send a further byte on each connection; that is not progress for the server.
        for stream in &mut slow {
            let _ = stream.write_all(b"1\r\nx\r\n").await;
        }
        let took = sound(&pipeline, number).await;
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    let grown = memory_kib(pipeline.processes["all"].process.id()).saturating_sub(before);
    assert!(grown < 96 * 1024, "{grown} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oversized_and_encoded_requests_are_refused() {
    let pipeline = embedded().await;
    let role = &pipeline.processes["all"];
    let before = memory_kib(role.process.id());
    let huge = "x".repeat(1 << 20);
    for port in [role.http, role.admin] {
        let request = format!("GET /livez HTTP/1.1\r\nhost: a\r\nx-huge: {huge}\r\n\r\n");
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        // The server may close the connection while the request is being sent.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = [0; 64];
        if let Ok(count) = stream.read(&mut answer).await {
            let answer = String::from_utf8_lossy(&answer[..count]).into_owned();
            assert!(answer.is_empty() || answer.contains(" 431 "), "{answer}");
        }
    }
    let (client, base) = pipeline.raw("all");
    let url = format!("{base}/v1/verifications");
    let post = || {
        client
            .post(&url)
            .bearer_auth(KEY)
            .header("content-type", "application/json")
    };
    let answer = post().body(vec![b' '; 1 << 20]).send().await.unwrap();
    assert_eq!(answer.status(), 413);
    // A compressed body is refused, so that a small body cannot unpack into a large one.
    let packed = post().header("content-encoding", "gzip").body("{}");
    assert_eq!(packed.send().await.unwrap().status(), 415);
    assert!(memory_kib(role.process.id()) < before + 32 * 1024);
    sound(&pipeline, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_descriptors_it_waits_and_recovers() {
    let pipeline = embedded().await;
    let role = &pipeline.processes["all"];
    let id = role.process.id();
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        let fields: Vec<_> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let open = std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
    let limit = Command::new("prlimit")
        .args(["--pid", &id.to_string(), &format!("--nofile={}:", open + 8)])
        .status();
    assert!(limit.unwrap().success());
    let held = crowd(role.http, 64, b"").await;
    let begun = ticks();
    let took = sound(&pipeline, 0).await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    let spent = ticks() - begun;
    assert!(spent < 300, "{spent} hundredths of a second: it spins");
    assert!(pipeline.logs().contains("cannot accept connections"));
    drop(held);
    until(10, "callers are served quickly again", || async {
        (sound(&pipeline, 1).await < Duration::from_secs(1)).then_some(())
    })
    .await;
}
