//! Tests of the Redis connection against real servers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::pedantic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a test may panic and print"
)]
mod support;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use support::{Proxy, Server, connect, settings, until};
use watchword_storage::redis::{Value, cmd};
use watchword_storage::{Redis, Script, StorageError};

const COUNT: &str = "#!lua flags=no-cluster\nreturn redis.call('INCR', KEYS[1])";
fn count() -> Script {
    Script::new("count", "#!lua\nreturn redis.call('INCR', KEYS[1])")
}
async fn bump(redis: &Redis, key: &str) -> Result<Value, StorageError> {
    redis.script(&count(), &[key.to_owned()], &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn script_after_flush() {
    let _ = COUNT;
    let server = Server::start(&[]);
    let redis = connect(&server.url(), 1000).await;
    for expected in 1..=3 {
        assert_eq!(bump(&redis, "k").await, Ok(Value::Int(expected)));
        server.cli(&["SCRIPT", "FLUSH"]);
    }
    let broken = Script::new("broken", "#!lua\nreturn redis.call('NOPE')");
    assert!(matches!(
        redis.script(&broken, &["k".to_owned()], &[]).await,
        Err(StorageError::Rejected(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn oom_runs_nothing() {
    let server = Server::start(&[]);
    let redis = connect(&server.url(), 1000).await;
    assert_eq!(bump(&redis, "k").await, Ok(Value::Int(1)));
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let error = bump(&redis, "k").await;
    println!("OOM -> {error:?}, healthy {}", redis.is_healthy());
    assert!(matches!(error, Err(StorageError::Unavailable(_))));
    assert_eq!(server.cli(&["GET", "k"]), "1");
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(bump(&redis, "k").await, Ok(Value::Int(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_is_unavailable_and_ends() {
    let server = Server::start(&["--replica-read-only", "yes"]);
    let other = Server::start(&[]);
    let proxy = Proxy::start(server.port).await;
    let redis = connect(&format!("redis://127.0.0.1:{}", proxy.port), 1000).await;
    server.cli(&["REPLICAOF", "127.0.0.1", &other.port.to_string()]);
    let mut seen_healthy = 0;
    let start = Instant::now();
    let (mut calls, mut other_errors) = (0, 0);
    while start.elapsed() < Duration::from_secs(2) {
        calls += 1;
        match bump(&redis, "k").await {
            Err(StorageError::Unavailable(_)) => {}
            other => {
                other_errors += 1;
                println!("READONLY phase: {other:?}");
            }
        }
        if redis.is_healthy() {
            seen_healthy += 1;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!(
        "READONLY 2 s: calls {calls}, not Unavailable {other_errors}, seen healthy {seen_healthy}, dials {}",
        proxy.accepts.load(Ordering::SeqCst)
    );
    server.cli(&["REPLICAOF", "NO", "ONE"]);
    let took = until(10, "recovers", async || bump(&redis, "k").await.is_ok()).await;
    println!("READONLY recovered after {took:?}");
    assert_eq!(other_errors, 0);
    assert!(proxy.accepts.load(Ordering::SeqCst) < 30, "dial storm");
}

#[tokio::test(flavor = "multi_thread")]
async fn evicting_policy_is_refused() {
    for policy in [
        "allkeys-lru",
        "volatile-lru",
        "volatile-ttl",
        "allkeys-random",
    ] {
        let server = Server::start(&["--maxmemory-policy", policy]);
        let Err(StorageError::Config(text)) = Redis::connect(settings(&server.url(), 1000)).await
        else {
            panic!("{policy}")
        };
        assert!(text.contains("maxmemory-policy"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_is_checked_again_after_a_restart() {
    let mut server = Server::start(&[]);
    let redis = connect(&server.url(), 500).await;
    server.kill();
    until(5, "lost", async || !redis.is_healthy()).await;
    let _evicting = Server::start_on(server.port, &["--maxmemory-policy", "allkeys-lru"]);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(4) {
        assert!(
            bump(&redis, "k").await.is_err(),
            "an evicting server was accepted after a redial"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn away_at_start_is_unavailable() {
    let port = support::free_port();
    let error = Redis::connect(settings(&format!("redis://127.0.0.1:{port}"), 500))
        .await
        .unwrap_err();
    assert!(matches!(error, StorageError::Unavailable(_)), "{error:?}");
    let server = Server::start(&["--requirepass", "x1"]);
    let error = Redis::connect(settings(&server.url(), 500))
        .await
        .unwrap_err();
    println!("NOAUTH at connect -> {error:?}");
    assert!(matches!(error, StorageError::Unavailable(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_server() {
    let server = Server::start(&[]);
    let redis = connect(&server.url(), 300).await;
    server.signal("-STOP");
    let stopped = Instant::now();
    let first = Instant::now();
    assert_eq!(bump(&redis, "k").await, Err(StorageError::Timeout));
    println!("STOP: first call took {:?}", first.elapsed());
    let unhealthy = until(3, "unhealthy", async || !redis.is_healthy()).await;
    println!("STOP: unhealthy after {unhealthy:?} more");
    while stopped.elapsed() < Duration::from_secs(4) {
        let call = Instant::now();
        assert!(bump(&redis, "k").await.is_err());
        assert!(call.elapsed() < Duration::from_millis(600));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    server.signal("-CONT");
    let back = until(10, "back", async || bump(&redis, "k").await.is_ok()).await;
    println!("CONT: call ok after {back:?}");
    assert!(back < Duration::from_secs(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_health_of_a_killed_server() {
    let mut server = Server::start(&[]);
    let redis = connect(&server.url(), 1000).await;
    for round in 0..6 {
        server.kill();
        let lost = until(5, "unhealthy", async || !redis.is_healthy()).await;
        assert!(matches!(
            bump(&redis, "k").await,
            Err(StorageError::Unavailable(_) | StorageError::Timeout)
        ));
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        server.launch();
        let back = until(5, "healthy", async || redis.is_healthy()).await;
        println!("round {round}: lost seen after {lost:?}, return seen after {back:?}");
        assert!(lost < Duration::from_millis(2_200));
        assert!(bump(&redis, "k").await.is_ok());
        assert!(
            back < Duration::from_millis(1_100),
            "return seen only after {back:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mute_peer_gets_a_new_connection() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.port).await;
    let redis = connect(&format!("redis://127.0.0.1:{}", proxy.port), 300).await;
    // Load the script first: if the proxy swallowed a NOSCRIPT reply, the call would count nothing.
    assert_eq!(bump(&redis, "warm").await, Ok(Value::Int(1)));
    assert_eq!(proxy.accepts.load(Ordering::SeqCst), 1);
    proxy.mute_first.store(true, Ordering::SeqCst);
    let (mut sent, start) = (0, Instant::now());
    loop {
        sent += 1;
        match bump(&redis, "k").await {
            Ok(_) => break,
            Err(StorageError::Timeout) => {}
            Err(StorageError::Unavailable(_)) => {
                sent -= 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            other => panic!("{other:?}"),
        }
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    let counted: u32 = server.cli(&["GET", "k"]).parse().unwrap();
    println!(
        "mute: accepts {}, calls sent {sent}, counted {counted}, {:?}",
        proxy.accepts.load(Ordering::SeqCst),
        start.elapsed()
    );
    assert_eq!(proxy.accepts.load(Ordering::SeqCst), 2);
    assert_eq!(counted, sent, "a script was repeated");
}

#[tokio::test(flavor = "multi_thread")]
async fn late_timeouts_do_not_harm_the_new_connection() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.port).await;
    let redis = connect(&format!("redis://127.0.0.1:{}", proxy.port), 500).await;
    proxy.mute_first.store(true, Ordering::SeqCst);
    // Three timeouts drop the old connection at 500 ms. Ten more calls, sent over it at 400 ms,
    // time out at 900 ms, when the new one is in use.
    let send = |count: u32, after_ms: u64| {
        for _ in 0..count {
            let redis = redis.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
                let _ = redis.ping().await;
            });
        }
    };
    send(3, 0);
    send(10, 400);
    let (mut unhealthy_ms, start) = (0, Instant::now());
    until(5, "a new connection", async || {
        proxy.accepts.load(Ordering::SeqCst) == 2 && redis.is_healthy()
    })
    .await;
    let up = start.elapsed();
    while start.elapsed() < Duration::from_millis(2_500) {
        if !redis.is_healthy() {
            unhealthy_ms += 5;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!(
        "late timeouts: new link at {up:?}, then unhealthy for about {unhealthy_ms} ms, dials {}",
        proxy.accepts.load(Ordering::SeqCst)
    );
    assert_eq!(proxy.accepts.load(Ordering::SeqCst), 2);
    assert_eq!(unhealthy_ms, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_flight_then_fails_fast() {
    let mut server = Server::start(&[]);
    let redis = connect(&server.url(), 1000).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.kill();
    let mut seen = Vec::new();
    for _ in 0..5 {
        let at = Instant::now();
        let answer = redis.command(cmd("GET").arg("k")).await;
        seen.push(format!("{answer:?} {:?}", at.elapsed()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("after kill: {seen:#?}");
    server.launch();
    until(5, "back", async || bump(&redis, "k").await.is_ok()).await;
}
