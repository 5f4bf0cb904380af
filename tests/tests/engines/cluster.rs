//! A RabbitMQ cluster of three nodes and a Redis Cluster of six. Under load the test kills the node
//! that leads a queue, then the primary of a slot, and checks that no message is lost.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use tokio::time::sleep;
use watchword_core::SecretString;
use watchword_storage::{Redis, RedisSettings, StorageError};
use watchword_tests::load::{Load, Mailbox, SmsGateway, Target, Window, judge, last_bad, now_ms};
use watchword_tests::pipeline::KEY;
use watchword_tests::{Pipeline, RabbitMq, RedisServer, Settings, Sink, until};

const PER_SECOND: u32 = 20;
const LIFETIME: Duration = Duration::from_secs(30);

/// Starts three primaries with so many replicas each.
async fn redis_cluster(replicas: usize) -> Vec<RedisServer> {
    let nodes = 3 * (1 + replicas);
    let mut servers = Vec::new();
    for _ in 0..nodes {
        let options = [
            "--appendonly",
            "yes",
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "2000",
        ];
        servers.push(RedisServer::with(&options).await);
    }
    let addresses = servers
        .iter()
        .map(|one| format!("127.0.0.1:{}", one.port()));
    let mut create = Command::new("redis-cli");
    create.args(["--cluster", "create"]).args(addresses);
    create.args(["--cluster-replicas", &replicas.to_string(), "--cluster-yes"]);
    let created = tokio::task::spawn_blocking(move || create.output())
        .await
        .unwrap()
        .unwrap();
    assert!(
        created.status.success(),
        "{}",
        String::from_utf8_lossy(&created.stdout)
    );
    until(30, "the cluster is up", || async {
        for server in &servers {
            let info = server.command(&["CLUSTER", "INFO"]).await;
            let known = format!("cluster_known_nodes:{nodes}");
            let is_whole = info.contains("cluster_state:ok") && info.contains(&known);
            is_whole.then_some(())?;
        }
        Some(())
    })
    .await;
    servers
}

/// Waits until every verification has been served promptly for four seconds. Panics after
/// `seconds`.
async fn normal(pipeline: &Pipeline, load: &Load, mailbox: &Mailbox, seconds: u64) {
    let since = now_ms();
    while now_ms() < since + seconds * 1_000 {
        sleep(Duration::from_millis(250)).await;
        let bad = last_bad(&load.lives(), mailbox, since).unwrap_or(since);
        if now_ms() > bad + 4_000 {
            return;
        }
    }
    let bad = last_bad(&load.lives(), mailbox, since);
    let lives = load.lives();
    let life = lives.iter().rev().find(|life| Some(life.begun_ms()) == bad);
    let logs = pipeline.logs();
    let lines: Vec<_> = logs
        .lines()
        .filter(|line| !line.contains(" attempt "))
        .collect();
    panic!("it does not become normal: {life:?}\n{}", lines.join("\n"));
}

/// Lists the keys as `watchword audit` does: page by page, one primary after the other.
async fn keys_of(redis: &Redis) -> Result<Vec<String>, StorageError> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let (keys, next) = redis.scan(cursor.as_deref(), "ww:{*}:v:*", 50).await?;
        found.extend(keys);
        match next {
            Some(next) => cursor = Some(next),
            None => return Ok(found),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_reads_every_primary_and_refuses_without_one() {
    const KEYS: usize = 900;
    let mut stores = redis_cluster(0).await;
    let nodes: Vec<_> = (stores.iter())
        .map(|one| format!("127.0.0.1:{}", one.port()))
        .collect();
    let url = SecretString::new(format!("redis+cluster://{}", nodes.join(",")));
    let redis = Redis::connect(RedisSettings::new(url)).await.unwrap();
    let mut written = Vec::new();
    for number in 0..KEYS {
        let key = format!("ww:{{{number}}}:v:x");
        let mut set = watchword_storage::redis::cmd("SET");
        redis.command(set.arg(&key).arg("x")).await.unwrap();
        written.push(key);
    }
    written.sort();
    for _ in 0..3 {
        let mut found = keys_of(&redis).await.unwrap();
        found.sort();
        found.dedup();
        assert_eq!(found, written);
    }
    stores[1].kill();
    until(20, "the cluster notices", || async {
        keys_of(&redis).await.is_err().then_some(())
    })
    .await;
    for _ in 0..5 {
        assert!(keys_of(&redis).await.is_err(), "never a part of the keys");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_of_each_is_killed_and_the_accounts_balance() {
    let (mut brokers, mut stores) = tokio::join!(RabbitMq::cluster(3), redis_cluster(1));
    let list = |ports: Vec<u16>| {
        let nodes: Vec<_> = ports
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        nodes.join(",")
    };
    let (user, password) = (
        watchword_tests::rabbitmq::USER,
        watchword_tests::rabbitmq::PASSWORD,
    );
    let nodes = list(brokers.iter().map(RabbitMq::port).collect());
    let amqp = format!("amqp://{user}:{password}@{nodes}/%2f");
    let nodes = list(stores.iter().map(RedisServer::port).collect());
    let mailbox = Arc::<Mailbox>::default();
    let (gateway, relay) = (
        SmsGateway::start(mailbox.clone()).await,
        Sink::start().await,
    );
    relay.deliver_to(mailbox.clone());
    let mut settings = Settings::distributed(&amqp, &format!("redis+cluster://{nodes}"));
    settings.providers = format!(
        "{}[email.providers.relay]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\n\
         from = \"Test <no-reply@mail.example.org>\"\n",
        SmsGateway::config(gateway.port()),
        relay.port()
    );
    settings.service = format!(
        "[services.test.limits]\nservice_per_minute = 100000\n[services.test.policy]\nlifetime_seconds = {}\n",
        LIFETIME.as_secs()
    );
    let mut pipeline = Pipeline::configure(&settings);
    for (name, role) in [
        ("issuer", "issuer"),
        ("verifier", "verifier"),
        ("sms-1", "sms-worker"),
        ("sms-2", "sms-worker"),
        ("email-1", "email-worker"),
    ] {
        pipeline.start(name, &[role]).await;
    }
    let url = |name: &str| format!("http://127.0.0.1:{}", pipeline.processes[name].http);
    let target = Target {
        issuer: url("issuer"),
        verifier: url("verifier"),
        key: KEY.to_owned(),
    };
    let load = Load::start(target.clone(), mailbox.clone(), PER_SECOND, LIFETIME, false);
    sleep(Duration::from_secs(2)).await;
    let begun_ms = now_ms();

    let path = "queues/%2f/watchword.sms";
    let queue = brokers[0].call(Method::GET, path, None).await.unwrap();
    assert_eq!(queue["members"].as_array().unwrap().len(), 3, "{queue}");
    let leader = queue["leader"].as_str().unwrap().to_owned();
    let place = brokers
        .iter()
        .position(|one| one.node_name() == leader)
        .unwrap();
    tokio::task::block_in_place(|| brokers[place].kill());
    normal(&pipeline, &load, &mailbox, 60).await;
    brokers[place].launch().await;

    // Kill the primary with the most keys, so that its slots are in use.
    let mut primary = None;
    for (place, server) in stores.iter().enumerate() {
        if server.command(&["ROLE"]).await.contains("master") {
            primary = Some(place);
        }
    }
    stores[primary.unwrap()].kill();
    normal(&pipeline, &load, &mailbox, 60).await;
    stores[primary.unwrap()].launch().await;
    normal(&pipeline, &load, &mailbox, 60).await;

    load.stop();
    until(90, "the last code has been checked", || async {
        (load.open() == 0).then_some(())
    })
    .await;
    let window = Window {
        begun_ms,
        healed_ms: now_ms(),
        clocks_were_wrong: false,
        // Redis replicates asynchronously, so the last writes of the killed primary may be lost.
        store_forgot: true,
    };
    let verdict = judge(&load, &mailbox, &target, window).await;
    assert!(verdict.approved > 300, "{verdict:?}");
    assert!(verdict.lost.is_empty(), "{verdict:?}");
    assert_eq!(verdict.ends(), verdict.accepted, "{verdict:?}");
    assert_eq!(
        (verdict.late, verdict.double_approvals),
        (0, 0),
        "{verdict:?}"
    );
    assert!(verdict.duplicates <= verdict.touched, "{verdict:?}");
    eprintln!("{verdict:?}");
}
