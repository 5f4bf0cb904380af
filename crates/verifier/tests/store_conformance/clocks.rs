//! The clock that decides, on each engine.

use watchword_core::{CheckVerdict, Policy, Timestamp, VerificationStatus as Status};
use watchword_storage::redis::Value;
use watchword_tests::until;
use watchword_verifier::store::{OpenCommand, Opened};

use crate::engine::{Engine, run};
use crate::scene::{NOW, RIGHT, WRONG, check, opened, order, seen, verdict};

/// The time of Redis' own clock.
async fn server_time(engine: &Engine) -> Timestamp {
    let Value::Array(parts) = run(engine.link(), &["TIME"]).await else {
        panic!("TIME gives an array")
    };
    let number = |part: &Value| match part {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).parse::<i64>().unwrap(),
        other => panic!("a number, not {other:?}"),
    };
    Timestamp::from_millis(number(&parts[0]) * 1_000 + number(&parts[1]) / 1_000)
}

fn short_lived(order: OpenCommand, lifetime_ms: u64, now: Timestamp) -> OpenCommand {
    OpenCommand {
        policy: Policy {
            lifetime_ms,
            ..Policy::default()
        },
        now,
        ..order
    }
}

/// A verifier that is 20 minutes slow is asked for a code that has expired.
#[tokio::test]
async fn a_slow_verifier_approves_nothing_late() {
    let engine = Engine::redis().await;
    let (store, begun) = (engine.store(), server_time(&engine).await);
    let live = opened(store, short_lived(order(1, 1), 300, begun)).await;
    let slow = || async { server_time(&engine).await.minus_millis(1_200_000) };
    until(10, "the code has expired", async || {
        (server_time(&engine).await >= live.expires_at).then_some(())
    })
    .await;
    let now = slow().await;
    let right = check(&live.id, RIGHT, "1", now);
    assert_eq!(verdict(store, right).await, CheckVerdict::Refused);
    let state = seen(store, &live.id, now).await.unwrap();
    assert_eq!(state.status, Status::Expired);
    let again = store
        .open(OpenCommand { now, ..order(1, 2) })
        .await
        .unwrap();
    let Opened::Send(sent) = again else {
        panic!("{again:?}")
    };
    let opened_at = sent.verification.opened_at;
    assert!(
        sent.is_new && opened_at >= live.expires_at,
        "by the server's clock"
    );
    assert_eq!(
        seen(store, &sent.verification.id, now).await,
        Some(sent.verification)
    );
}

/// An issuer that is ahead, by however much, gives its codes the life of their policy by the clock of
/// Redis.
#[tokio::test]
async fn a_fast_issuer_lengthens_no_life() {
    let engine = Engine::redis().await;
    let (store, begun) = (engine.store(), server_time(&engine).await);
    let ahead = begun.plus_millis(20_000);
    let live = opened(store, short_lived(order(1, 1), 500, ahead)).await;
    assert_eq!(live.opened_at, ahead);
    until(10, "as much time has passed as it may live", async || {
        let passed = server_time(&engine).await.millis_since(begun);
        (passed > 1_000).then_some(())
    })
    .await;
    let now = server_time(&engine).await;
    let right = check(&live.id, RIGHT, "1", now);
    assert_eq!(verdict(store, right).await, CheckVerdict::Refused);

    let far = now.plus_millis(7_200_000);
    // Of one that was guessed at and one that was not: each has a script of its own.
    for (subject, guesses) in [(2, 0), (3, 1)] {
        let live = opened(
            store,
            OpenCommand {
                now: far,
                ..order(subject, 1)
            },
        )
        .await;
        let state = seen(store, &live.id, now).await.unwrap();
        assert_eq!(state.status, Status::Pending);
        for guess in 0..guesses {
            let wrong = check(&live.id, WRONG, &format!("w{guess}"), now);
            assert_eq!(verdict(store, wrong).await, CheckVerdict::Wrong);
        }
        let right = check(&live.id, RIGHT, "1", now);
        assert_eq!(verdict(store, right).await, CheckVerdict::Approved);
    }
    let late = opened(store, short_lived(order(4, 1), 500, far)).await;
    until(10, "as much time has passed as it may live", async || {
        let passed = server_time(&engine).await.millis_since(now);
        (passed > 1_500).then_some(())
    })
    .await;
    let right = check(&late.id, RIGHT, "1", now);
    assert_eq!(verdict(store, right).await, CheckVerdict::Refused);
}

/// The embedded file has one clock, which was set back.
#[tokio::test]
async fn a_file_does_not_go_back_in_time() {
    let engine = Engine::sqlite();
    let store = engine.store();
    let live = opened(store, short_lived(order(1, 1), 30_000, NOW)).await;
    // Another call writes as the code expires, and the clock is set back a little: the code has
    // expired.
    let late = NOW.plus_millis(30_000);
    opened(
        store,
        OpenCommand {
            now: late,
            ..order(2, 1)
        },
    )
    .await;
    let back = late.minus_millis(10_000);
    let right = check(&live.id, RIGHT, "1", back);
    assert_eq!(verdict(store, right).await, CheckVerdict::Refused);
    // A clock that is set back by 20 minutes counts as corrected: a verification ahead of it has
    // ended.
    let corrected = late.minus_millis(1_200_000);
    let state = seen(store, &order(2, 1).id, corrected).await.unwrap();
    assert_eq!(state.status, Status::Expired);
    let now = OpenCommand {
        now: corrected,
        ..order(3, 1)
    };
    assert_eq!(opened(store, now).await.opened_at, corrected);
}
