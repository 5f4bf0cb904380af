//! The harness itself: each peer starts, answers, survives the operations that the suites use, and
//! leaves no process behind.

use std::path::Path;
use std::time::{Duration, Instant};

use lapin::{Connection, ConnectionProperties};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};
use watchword_tests::gateway::PASSWORD as KANNEL_PASSWORD;
use watchword_tests::process::descendants;
use watchword_tests::sink::Script;
use watchword_tests::{Gateway, Postfix, RabbitMq, RedisServer, Sink, TcpProxy, until};

/// The tests count processes below this one, so they run one at a time, even if they share a
/// process.
static TURN: Mutex<()> = Mutex::const_new(());

struct Turn {
    _turn: MutexGuard<'static, ()>,
    started: Instant,
}

async fn turn() -> Turn {
    watchword_tests::tls();
    let turn = TURN.lock().await;
    Turn {
        _turn: turn,
        started: Instant::now(),
    }
}

impl Turn {
    fn up(&self, what: &str) {
        println!("{what} up in {:?}", self.started.elapsed());
    }

    /// Drops `peer` and waits until all its processes are gone.
    async fn ends<T>(&self, peer: T) {
        let ids = descendants(std::process::id());
        assert!(!ids.is_empty(), "the peer has no process");
        drop(peer);
        until(10, "no process is left", || async {
            let left = ids.iter().filter(|id| lives(**id)).count();
            (left == 0).then_some(())
        })
        .await;
    }
}

/// Whether process `id` runs; a zombie does not.
fn lives(id: u32) -> bool {
    std::fs::read_to_string(Path::new("/proc").join(id.to_string()).join("stat"))
        .is_ok_and(|stat| !stat.contains(") Z "))
}

async fn connects(url: &str) -> bool {
    let connection = Connection::connect(url, ConnectionProperties::default());
    match tokio::time::timeout(Duration::from_secs(5), connection).await {
        Ok(Ok(connection)) => connection.close(200, "done".into()).await.is_ok(),
        _ => false,
    }
}

#[tokio::test]
async fn rabbitmq() {
    let turn = turn().await;
    let mut rabbitmq = RabbitMq::start().await;
    turn.up("RabbitMQ");
    assert!(connects(&rabbitmq.url()).await);
    assert!(!connects(&rabbitmq.url_of("guest", "guest")).await);
    rabbitmq.add_user("portal", "secret").await;
    assert!(connects(&rabbitmq.url_of("portal", "secret")).await);

    rabbitmq.pause(true);
    assert!(!connects(&rabbitmq.url()).await);
    rabbitmq.pause(false);
    assert!(connects(&rabbitmq.url()).await);

    rabbitmq.kill();
    assert!(!connects(&rabbitmq.url()).await);
    let again = Instant::now();
    rabbitmq.launch().await;
    println!("RabbitMQ again in {:?}", again.elapsed());
    assert!(connects(&rabbitmq.url_of("portal", "secret")).await);
    turn.ends(rabbitmq).await;
}

#[tokio::test]
async fn a_broker_that_died_by_itself_can_still_be_dropped() {
    let turn = turn().await;
    let rabbitmq = RabbitMq::start().await;
    rabbitmq.control(&["stop"]);
    assert!(!connects(&rabbitmq.url()).await);
    turn.ends(rabbitmq).await;
}

#[tokio::test]
async fn redis() {
    let turn = turn().await;
    let mut redis = RedisServer::start().await;
    turn.up("Redis");
    assert_eq!(redis.command(&["SET", "name", "value"]).await, "+OK\r\n");
    // Redis before 7.2 has no `WAITAOF`; a rewrite makes sure that the file is written.
    redis.command(&["BGREWRITEAOF"]).await;
    until(10, "the append-only file is written", || async {
        let info = redis.command(&["INFO", "persistence"]).await;
        info.contains("aof_rewrite_in_progress:0").then_some(())
    })
    .await;
    redis.kill();
    redis.launch().await;
    assert_eq!(redis.command(&["GET", "name"]).await, "$5\r\nvalue\r\n");
    turn.ends(redis).await;
}

#[tokio::test]
async fn kannel_takes_two_thousand_messages_within_a_minute() {
    const MESSAGES: usize = 2000;
    let turn = turn().await;
    let gateway = Gateway::start().await;
    turn.up("Kannel");
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let start = Instant::now();
    for number in 0..MESSAGES {
        let to = format!("+49151{number:07}");
        let text = format!("Your code is {number:06}.");
        let query = [
            ("username", "watchword"),
            ("password", KANNEL_PASSWORD),
            ("from", "Test"),
            ("to", &to),
            ("text", &text),
        ];
        let request = client.get(gateway.url()).query(&query);
        let status = request.send().await.unwrap().status();
        assert_eq!(status, reqwest::StatusCode::ACCEPTED);
    }
    until(60, "every message has arrived", || async {
        (gateway.received().len() >= MESSAGES).then_some(())
    })
    .await;
    println!("{MESSAGES} messages in {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_mins(1));
    let received = gateway.received();
    assert_eq!(received.len(), MESSAGES);
    assert_eq!(received[7].to, "+491510000007");
    assert_eq!(received[7].text, "Your code is 000007.");
    turn.ends(gateway).await;
}

/// Sends one mail and returns the last reply.
async fn mail(port: u16, to: &str) -> String {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut stream = BufReader::new(stream);
    let mut answer = String::new();
    stream.read_line(&mut answer).await.unwrap();
    for line in [
        "HELO client.example.org",
        "MAIL FROM:<no-reply@example.org>",
        &format!("RCPT TO:<{to}>"),
        "DATA",
        "Subject: code\r\n\r\nYour code is 123456.\r\n.",
    ] {
        let line = format!("{line}\r\n");
        stream.write_all(line.as_bytes()).await.unwrap();
        answer.clear();
        if stream.read_line(&mut answer).await.unwrap_or_default() == 0 {
            return String::new();
        }
    }
    answer
}

#[tokio::test]
async fn sink() {
    let _turn = turn().await;
    let sink = Sink::start().await;
    assert!(
        mail(sink.port(), "one@example.org")
            .await
            .starts_with("250")
    );
    sink.script(".", Script::Reply("451 4.7.1 later"));
    assert!(
        mail(sink.port(), "two@example.org")
            .await
            .starts_with("451")
    );
    sink.script(".", Script::Cut);
    assert_eq!(mail(sink.port(), "three@example.org").await, "");
    let mails = sink.mails();
    assert_eq!((mails.len(), mails[0].to.as_str()), (1, "one@example.org"));
    assert_eq!(sink.connections(), 3);
}

#[tokio::test]
async fn postfix_keeps_and_relays() {
    let turn = turn().await;
    let postfix = Postfix::start().await;
    turn.up("Postfix");
    assert!(
        mail(postfix.port(), "one@example.org")
            .await
            .starts_with("250")
    );
    until(20, "the mail is delivered", || async {
        (postfix.mails().len() == 1).then_some(())
    })
    .await;
    assert!(postfix.mails()[0].contains("123456"), "{}", postfix.log());
    turn.ends(postfix).await;

    // A relay retries by itself: the mail arrives after one refusal.
    let sink = Sink::start().await;
    sink.script("RCPT", Script::Reply("451 4.7.1 greylisted"));
    let relay = Postfix::relaying_to(sink.port()).await;
    assert!(
        mail(relay.port(), "two@example.net")
            .await
            .starts_with("250")
    );
    until(30, "the mail is relayed", || async {
        sink.mails().first().map(|mail| mail.to.clone())
    })
    .await;
    assert!(sink.connections() >= 2, "{}", relay.log());
    turn.ends(relay).await;
}

#[tokio::test]
async fn proxy() {
    let _turn = turn().await;
    let sink = Sink::start().await;
    let proxy = TcpProxy::start(sink.port()).await;
    let mut stream = TcpStream::connect(("127.0.0.1", proxy.port()))
        .await
        .unwrap();
    let mut buffer = [0; 64];
    assert!(stream.read(&mut buffer).await.unwrap() > 0, "the greeting");

    proxy.mute(true);
    stream.write_all(b"NOOP\r\n").await.unwrap();
    let silent = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut buffer)).await;
    assert!(silent.is_err(), "a muted server says nothing");
    proxy.mute(false);
    stream.write_all(b"NOOP\r\n").await.unwrap();
    assert!(stream.read(&mut buffer).await.unwrap() > 0);

    proxy.cut();
    assert_eq!(stream.read(&mut buffer).await.unwrap_or(0), 0);
    assert_eq!(proxy.accepted(), 1);
}
