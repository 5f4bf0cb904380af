//! The footprint on Redis: how much memory, which keys, their time-to-live, and no clear text.

use futures_util::future::join_all;
use watchword_core::{Policy, VerificationStatus as Status};
use watchword_storage::redis::Value;
use watchword_tests::{RedisServer, until};
use watchword_verifier::store::RedisVerifications;

use crate::engine::{Engine, Place, integer, keys, link, run};
use crate::scene::{
    HOUR_MS, NOW, RIGHT, WRONG, check, id, opened, order, seen, service, slot, verdict,
};

/// Number of live verifications measured.
const MEASURED: u64 = 10_000;
/// The bound for one verification with all its keys. A whole request may take 600.
const LIVE_BYTES: i64 = 450;

const SUM_OF_KEYS: &str = "local sum = 0
    for _, key in ipairs(redis.call('KEYS', '*')) do
      sum = sum + redis.call('MEMORY', 'USAGE', key, 'SAMPLES', '0')
    end
    return sum";

async fn used_memory(engine: &Engine) -> i64 {
    let info = match run(engine.link(), &["INFO", "memory"]).await {
        Value::BulkString(text) => String::from_utf8(text).unwrap(),
        Value::VerbatimString { text, .. } => text,
        other => panic!("a text, not {other:?}"),
    };
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"));
    line.unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn a_live_verification_takes_little_memory() {
    let engine = Engine::redis().await;
    let before = used_memory(&engine).await;
    for hundred in 0..MEASURED / 100 {
        let orders = (0..100).map(|n| opened(engine.store(), order(hundred * 100 + n, n)));
        join_all(orders).await;
    }
    let all = integer(&run(engine.link(), &["EVAL", SUM_OF_KEYS, "0"]).await);
    let measured = i64::try_from(MEASURED).unwrap();
    let in_keys = all / measured;
    let in_all = (used_memory(&engine).await - before) / measured;
    println!("{in_keys} bytes in keys, {in_all} with the tables of the server");
    assert!(in_keys <= LIVE_BYTES, "{in_keys} bytes in keys");
}

#[tokio::test]
async fn every_key_is_forgotten_in_time() {
    let engine = Engine::redis().await;
    let (store, link) = (engine.store(), engine.link());
    let live = opened(store, order(1, 1)).await;
    verdict(store, check(&live.id, WRONG, "1", NOW)).await;
    store.confirm(&live.id, 1).await.unwrap();
    let approved = opened(store, order(2, 1)).await;
    verdict(store, check(&approved.id, RIGHT, "1", NOW)).await;
    let kept = i64::try_from(Policy::default().lifetime_ms + HOUR_MS).unwrap();
    let guesses = NOW.plus_millis(90 * 24 * HOUR_MS).as_millis();
    let all = keys(link).await;
    assert_eq!(all.len(), 5, "{all:?}");
    for key in all {
        if key.ends_with(":g") {
            let at = integer(&run(link, &["PEXPIRETIME", &key]).await);
            assert_eq!(at, guesses, "{key}");
        } else {
            // By the clock of the server, which advances meanwhile.
            let left = integer(&run(link, &["PTTL", &key]).await);
            assert!((kept - 60_000..=kept).contains(&left), "{key}: {left}");
        }
    }
    verdict(store, check(&live.id, RIGHT, "2", NOW)).await;
    let key = keys(link).await.into_iter().find(|key| key.ends_with(":g"));
    let at = integer(&run(link, &["PEXPIRETIME", &key.unwrap()]).await);
    let day = NOW.plus_millis(24 * HOUR_MS).as_millis();
    assert_eq!(at, day, "an approval leaves the hour and the day");
}

/// SQLite deletes expired rows when something is added.
#[tokio::test]
async fn rows_are_forgotten_in_time() {
    let engine = Engine::sqlite().await;
    let Place::Sqlite { sqlite, .. } = engine.place() else {
        panic!("a test about SQLite")
    };
    let store = engine.store();
    let old = opened(store, order(1, 1)).await;
    verdict(store, check(&old.id, WRONG, "1", NOW)).await;
    let rows = async || {
        let counts = "SELECT (SELECT count(*) FROM verifier_verification),
            (SELECT count(*) FROM verifier_slot), (SELECT count(*) FROM verifier_guesses)";
        let counts = sqlite.read(move |connection| {
            connection.query_row(counts, [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
        });
        counts.await.unwrap()
    };
    let days = |days: u64| NOW.plus_millis(days * 24 * HOUR_MS);
    for (subject, now, left) in [(2, days(89), (1, 1, 1)), (3, days(91), (1, 1, 0))] {
        let mut order = order(subject, 1);
        order.now = now;
        opened(store, order).await;
        assert_eq!(rows().await, left, "{subject}");
    }
}

#[tokio::test]
async fn an_ended_verification_holds_no_code_and_no_recipient() {
    let engine = Engine::redis().await;
    let (store, link) = (engine.store(), engine.link());
    let full = opened(store, order(1, 1)).await.id;
    let size = async |key: &str| integer(&run(link, &["STRLEN", key]).await);
    let key = keys(link)
        .await
        .into_iter()
        .find(|key| key.contains(":v:"))
        .unwrap();
    let live = size(&key).await;
    store.cancel(&full, &service("web"), NOW).await.unwrap();
    // 16 bytes of digest, 46 of sealed code, 64 of sealed order, 8 of the recipient's tag.
    assert!(size(&key).await <= live - 134);
}

/// A cluster rejects a script that touches two slots or a key that it did not declare.
#[tokio::test]
async fn all_keys_of_a_subject_share_a_slot_of_a_cluster() {
    let server = RedisServer::with(&["--appendonly", "no", "--cluster-enabled", "yes"]).await;
    server
        .command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"])
        .await;
    until(20, "the cluster is up", async || {
        let info = server.command(&["CLUSTER", "INFO"]).await;
        info.contains("cluster_state:ok").then_some(())
    })
    .await;
    let address = format!("redis+cluster://127.0.0.1:{}", server.port());
    let store = RedisVerifications::new(link(&address).await);
    for number in 1..4 {
        let mut order = order(1, number);
        order.slot = slot(1, &number.to_string());
        opened(&store, order.clone()).await;
        verdict(&store, check(&order.id, WRONG, "1", NOW)).await;
        let again = watchword_verifier::store::VerificationStore::open(&store, order).await;
        assert!(again.is_ok(), "{again:?}");
    }
    let direct = link(&server.url()).await;
    let mut slots = Vec::new();
    for key in keys(&direct).await {
        slots.push(integer(&run(&direct, &["CLUSTER", "KEYSLOT", &key]).await));
    }
    assert_eq!(slots.len(), 7);
    slots.dedup();
    assert_eq!(slots.len(), 1);
    let state = seen(&store, &id(1, 1), NOW).await.unwrap();
    assert_eq!((state.status, state.checks_left), (Status::Pending, 4));
}
