//! Records that this program did not write lead to an error, not to a panic or a free guess.

use watchword_core::{CheckVerdict, GuessBudget};
use watchword_storage::StorageError;
use watchword_storage::rusqlite::params;
use watchword_verifier::store::{Opened, StoreError, VerificationStore};

use crate::engine::{Engine, Place, keys, run};
use crate::scene::{NOW, RIGHT, WRONG, check, opened, order, seen, service, tag, verdict};

/// A kind of record: the mark of its keys on Redis, its table and column on SQLite.
struct Kind {
    mark: &'static str,
    table: &'static str,
    column: &'static str,
}

const VERIFICATION: Kind = Kind {
    mark: ":v:",
    table: "verifier_verification",
    column: "record",
};
const SLOT: Kind = Kind {
    mark: ":s:",
    table: "verifier_slot",
    column: "id",
};
const GUESSES: Kind = Kind {
    mark: "}:g",
    table: "verifier_guesses",
    column: "wrong_at_ms",
};

/// Text, JSON and MessagePack in other shapes; the last is an array of three numbers.
const OTHERS: [&str; 7] = ["", "x", "{}", "null", "[1,2]", "\u{0}", "\u{3}\u{2}\u{1}"];

/// Writes `value` in place of the records of `kind`.
async fn damage(engine: &Engine, kind: &Kind, value: &str) {
    match engine.place() {
        Place::Redis { link, .. } => {
            for key in keys(link).await {
                if key.contains(kind.mark) {
                    run(link, &["SET", &key, value, "KEEPTTL"]).await;
                }
            }
        }
        Place::Sqlite { sqlite, .. } => {
            let statement = format!("UPDATE {} SET {} = ?1", kind.table, kind.column);
            let value = value.to_owned();
            let write = move |connection: &watchword_storage::rusqlite::Connection| {
                connection.execute(&statement, params![value])
            };
            sqlite.write(write).await.unwrap();
        }
    }
}

fn is_refusal(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Corrupt | StoreError::Storage(StorageError::Rejected(_))
    )
}

/// Asserts that every call that reads the verification fails.
async fn all_refuse(store: &dyn VerificationStore, what: &str) {
    let (order, web, budget) = (order(1, 1), service("web"), GuessBudget::default());
    let id = order.id.clone();
    let errors = [
        store.open(crate::scene::order(1, 2)).await.err(),
        store.resend(&id, &web, None, 0, budget, NOW).await.err(),
        store.confirm(&id, 1).await.err(),
        store.check(check(&id, RIGHT, "9", NOW), budget).await.err(),
        store.cancel(&id, &web, NOW).await.err(),
        store.get(&id, &web, NOW).await.err(),
    ];
    for (call, error) in errors.iter().enumerate() {
        let refused = error.as_ref().is_some_and(is_refusal);
        assert!(refused, "call {call} of {what:?}: {error:?}");
    }
}

pub async fn records_of_others_are_corrupt(engine: &Engine) {
    let (store, budget) = (engine.store(), GuessBudget::default());
    let live = opened(store, order(1, 1)).await;
    verdict(store, check(&live.id, WRONG, "1", NOW)).await;
    for other in ["", "x", "{}"] {
        damage(engine, &SLOT, other).await;
        let error = store.open(order(1, 2)).await.unwrap_err();
        assert!(is_refusal(&error), "{other:?}: {error:?}");
    }
    damage(engine, &SLOT, slot_value(engine, live.id.as_str())).await;
    assert!(matches!(
        store.open(order(1, 2)).await.unwrap(),
        Opened::Cooling(_)
    ));

    for other in ["x", "1 x", "{}", "[]"] {
        damage(engine, &GUESSES, other).await;
        let right = store.check(check(&live.id, RIGHT, "2", NOW), budget).await;
        assert!(is_refusal(&right.unwrap_err()), "{other:?}");
        assert!(is_refusal(&store.open(order(1, 2)).await.unwrap_err()));
    }
    store.forget_guesses(tag(1)).await.unwrap();
    let before = seen(store, &live.id, NOW).await;
    assert_eq!(before.unwrap().checks_left, 4, "nothing was written");

    for other in OTHERS {
        damage(engine, &VERIFICATION, other).await;
        all_refuse(store, other).await;
    }
}

/// Returns the verification's id in the form that its slot stores.
fn slot_value<'a>(engine: &Engine, id: &'a str) -> &'a str {
    match engine.place() {
        Place::Redis { .. } => &id[16..],
        Place::Sqlite { .. } => id,
    }
}

/// The right layout with a missing field, and with a string instead of a time.
#[tokio::test]
async fn a_record_with_a_hole_is_corrupt_and_charges_nobody() {
    let engine = Engine::redis().await;
    let (store, link) = (engine.store(), engine.link());
    let live = opened(store, order(1, 1)).await;
    let key = keys(link).await.into_iter().find(|key| key.contains(":v:"));
    let key = key.unwrap();
    for damage in [
        "v[22] = nil",
        "v[9] = nil",
        "v[3] = '1'",
        "v[9] = 9",
        "v[5] = 'x'",
        "v[11] = 'x'",
        "v[22] = {{'1', 'approved'}}",
        "v[1] = 4",
        "v[25] = {{'1', 'approved'}}",
        "v[25] = {'1'}",
    ] {
        let script = format!(
            "local v = cmsgpack.unpack(redis.call('GET', KEYS[1])); {damage}
            redis.call('SET', KEYS[2], cmsgpack.pack(v)); redis.call('COPY', KEYS[2], KEYS[1], 'REPLACE')"
        );
        run(link, &["COPY", &key, "kept", "REPLACE"]).await;
        run(link, &["EVAL", &script, "2", &key, "damaged"]).await;
        for code in [RIGHT, WRONG] {
            let refused = store.check(check(&live.id, code, "1", NOW), GuessBudget::default());
            assert_eq!(refused.await, Err(StoreError::Corrupt), "{damage}");
        }
        run(link, &["COPY", "kept", &key, "REPLACE"]).await;
    }
    let guesses = format!("ww:{{{}}}:g", tag(1));
    assert!(!keys(link).await.contains(&guesses));
    for damage in ["{}", "{0, 'x'}", "{'0'}", "{1, {'a', 'b'}}", "{1, {7, 1}}"] {
        let script = format!("redis.call('SET', KEYS[1], cmsgpack.pack({damage}))");
        run(link, &["EVAL", &script, "1", &guesses]).await;
        let refused = store.check(check(&live.id, RIGHT, "1", NOW), GuessBudget::default());
        assert_eq!(refused.await, Err(StoreError::Corrupt), "{damage}");
    }
    store.forget_guesses(tag(1)).await.unwrap();
    let right = verdict(store, check(&live.id, RIGHT, "1", NOW)).await;
    assert_eq!(right, CheckVerdict::Approved);
}

#[tokio::test]
async fn keys_of_another_type_are_refused() {
    let engine = Engine::redis().await;
    let (store, link) = (engine.store(), engine.link());
    let live = opened(store, order(1, 1)).await;
    for key in keys(link).await {
        run(link, &["DEL", &key]).await;
        run(link, &["RPUSH", &key, "x"]).await;
    }
    all_refuse(store, "a list").await;
    for key in keys(link).await {
        run(link, &["DEL", &key]).await;
        run(link, &["HSET", &key, "sv", "web"]).await;
    }
    all_refuse(store, "a hash").await;

    // An evicted record is unknown: the user requests another code.
    run(link, &["FLUSHALL"]).await;
    assert_eq!(seen(store, &live.id, NOW).await, None);
    let right = verdict(store, check(&live.id, RIGHT, "1", NOW)).await;
    assert_eq!(right, CheckVerdict::Refused);
    store.confirm(&live.id, 1).await.unwrap();
    assert!(keys(link).await.is_empty(), "nothing without a deadline");
    opened(store, order(1, 2)).await;
}
