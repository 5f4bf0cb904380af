//! Tests of a Sentinel failover and of a cluster.
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
use std::process::Command;
use std::time::{Duration, Instant};
use support::{Server, connect, until};
use watchword_storage::redis::Value;
use watchword_storage::{Redis, Script, StorageError};

async fn bump(redis: &Redis, key: &str) -> Result<Value, StorageError> {
    redis
        .script(
            &Script::new("count", "#!lua\nreturn redis.call('INCR', KEYS[1])"),
            &[key.to_owned()],
            &[],
        )
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinel_failover() {
    let mut primary = Server::start(&[]);
    let replica = Server::start(&[
        "--replicaof",
        "127.0.0.1",
        &primary.port.to_string(),
        "--repl-diskless-sync-delay",
        "0",
    ]);
    until(10, "replica in sync", async || {
        replica
            .cli(&["INFO", "replication"])
            .contains("master_link_status:up")
    })
    .await;
    let sentinel = Server::sentinel(primary.port);
    until(15, "sentinel knows the replica", async || {
        sentinel
            .cli(&["SENTINEL", "replicas", "main"])
            .contains(&replica.port.to_string())
    })
    .await;
    let redis = connect(
        &format!("redis+sentinel://127.0.0.1:{}/main/0", sentinel.port),
        500,
    )
    .await;
    assert_eq!(bump(&redis, "k").await, Ok(Value::Int(1)));
    let written = redis.pinned().unwrap();
    assert_eq!(written.replicated().await, Ok(()));
    // Another connection does not vouch for these writes.
    primary.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    until(10, "another connection serves", async || {
        bump(&redis, "k").await.is_ok() && redis.pinned().unwrap().replicated().await.is_ok()
    })
    .await;
    assert_eq!(written.replicated().await, Err(StorageError::Timeout));
    primary.kill();
    let took = until(25, "the new primary serves", async || {
        bump(&redis, "k").await.is_ok()
    })
    .await;
    println!("sentinel: served by the new primary after {took:?}");
    assert!(replica.cli(&["ROLE"]).starts_with("master"));
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster() {
    let mut nodes: Vec<_> = (0..3)
        .map(|_| {
            Server::start(&[
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                "2000",
                "--cluster-require-full-coverage",
                "no",
            ])
        })
        .collect();
    let mut create = Command::new("redis-cli");
    create
        .args(["--cluster", "create"])
        .args(nodes.iter().map(|n| format!("127.0.0.1:{}", n.port)))
        .arg("--cluster-yes");
    assert!(create.output().unwrap().status.success());
    for node in &nodes {
        until(20, "cluster ok", async || {
            node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
        })
        .await;
    }
    let redis = connect(
        &format!(
            "redis+cluster://127.0.0.1:{},127.0.0.1:{}",
            nodes[0].port, nodes[1].port
        ),
        500,
    )
    .await;
    let pair = Script::new(
        "pair",
        "#!lua\nredis.call('INCR', KEYS[1]); return redis.call('INCR', KEYS[2])",
    );
    for n in 0..50 {
        let keys = [format!("{{s{n}}}:a"), format!("{{s{n}}}:b")];
        assert_eq!(
            redis.script(&pair, &keys, &[]).await,
            Ok(Value::Int(1)),
            "{n}"
        );
    }
    let crossed = redis
        .script(&pair, &["{a}".to_owned(), "{b}".to_owned()], &[])
        .await;
    println!("cross-slot -> {crossed:?}");
    assert!(matches!(crossed, Err(StorageError::Rejected(_))));
    nodes[1].cli(&["SCRIPT", "FLUSH"]);
    for n in 0..50 {
        assert_eq!(
            bump(&redis, &format!("{{s{n}}}:a")).await,
            Ok(Value::Int(2))
        );
    }
    // A primary dies: the keys of the other two stay available.
    let slot = |key: &str| {
        nodes[0]
            .cli(&["CLUSTER", "KEYSLOT", key])
            .parse::<u32>()
            .unwrap()
    };
    let low = (0..10_000)
        .map(|n| format!("low{n}"))
        .find(|key| slot(key) < 5000)
        .unwrap();
    nodes[2].kill();
    let start = Instant::now();
    let (mut ok, mut failed, mut unhealthy) =
        (0, std::collections::BTreeMap::<String, u32>::new(), 0);
    while start.elapsed() < Duration::from_secs(6) {
        match bump(&redis, &low).await {
            Ok(_) => ok += 1,
            Err(e) => *failed.entry(format!("{e:?}")).or_default() += 1,
        }
        if !redis.is_healthy() {
            unhealthy += 1;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!(
        "cluster, one primary dead 6 s, keys of a living one: ok {ok}, failed {failed:?}, unhealthy samples {unhealthy}"
    );
    assert!(
        failed.values().sum::<u32>() * 20 < ok,
        "the living shards suffer: {failed:?}"
    );
}
