//! A store that does not reply, has lost its scripts or is out of memory.

use watchword_core::{CheckVerdict, GuessBudget, SecretString, VerificationStatus as Status};
use watchword_storage::{Redis, RedisSettings, StorageError};
use watchword_tests::until;
use watchword_verifier::store::{Opened, RedisVerifications, StoreError, VerificationStore};

use crate::engine::{Engine, Place, run};
use crate::scene::{
    NOW, RIGHT, WRONG, check, checked, opened, order, rotating, sealed_code, seen, service, verdict,
};

/// A check whose reply is lost may have counted; repeating it with the same id does not count
/// again.
pub async fn a_reply_that_was_lost_is_asked_for_again(engine: &Engine) {
    let store = engine.store();
    let id = opened(store, order(1, 1)).await.id;
    let wrong = check(&id, WRONG, "lost", NOW);
    match engine.place() {
        Place::Redis { server, .. } => {
            let hasty = hasty(&server.url()).await;
            // Load the script into Redis first, so that the check itself times out below.
            let known = opened(store, order(2, 1)).await.id;
            verdict(&hasty, check(&known, WRONG, "1", NOW)).await;
            server.pause(true);
            let lost = hasty.check(wrong.clone(), GuessBudget::default()).await;
            server.pause(false);
            assert_eq!(lost, Err(StoreError::Storage(StorageError::Timeout)));
            until(10, "the check that timed out was counted", async || {
                let state = seen(store, &id, NOW).await?;
                (state.checks_left == 4).then_some(())
            })
            .await;
        }
        Place::Sqlite { .. } => {
            checked(store, wrong.clone()).await;
        }
    }
    let again = checked(store, wrong).await;
    assert_eq!((again.verdict, again.repeated), (CheckVerdict::Wrong, true));
    assert_eq!(seen(store, &id, NOW).await.unwrap().checks_left, 4);
}

/// A store with a deadline of 0.2 s.
async fn hasty(url: &str) -> RedisVerifications {
    let settings = RedisSettings {
        command_timeout_ms: 200,
        ..RedisSettings::new(SecretString::new(url.to_owned()))
    };
    RedisVerifications::new(Redis::connect(settings).await.unwrap())
}

#[tokio::test]
async fn scripts_that_redis_forgot_are_sent_again() {
    let engine = Engine::redis().await;
    let (store, link) = (engine.store(), engine.link());
    let (web, budget) = (service("web"), GuessBudget::default());
    let flush = || run(link, &["SCRIPT", "FLUSH"]);
    flush().await;
    let id = opened(store, rotating(order(1, 1))).await.id;
    flush().await;
    store.confirm(&id, 1).await.unwrap();
    flush().await;
    let due = NOW.plus_millis(30_000);
    let next = Some(sealed_code(&id, RIGHT));
    let resent = store.resend(&id, &web, next, 0, budget, due).await.unwrap();
    assert!(matches!(resent, Some(Opened::Send(sent)) if sent.verification.sends == 2));
    flush().await;
    verdict(store, check(&id, WRONG, "1", due)).await;
    flush().await;
    assert_eq!(seen(store, &id, due).await.unwrap().checks_left, 4);
    flush().await;
    let canceled = store.cancel(&id, &web, due).await.unwrap().unwrap();
    assert_eq!(canceled.status, Status::Canceled);
}

#[tokio::test]
async fn without_memory_nothing_is_approved_and_nothing_lost() {
    let engine = Engine::redis().await;
    let (store, link) = (engine.store(), engine.link());
    let id = opened(store, order(1, 1)).await.id;
    run(link, &["CONFIG", "SET", "maxmemory", "1"]).await;
    for code in [WRONG, RIGHT] {
        let refused = store.check(check(&id, code, code, NOW), GuessBudget::default());
        let full = StoreError::Storage(StorageError::Unavailable("out of memory"));
        assert_eq!(refused.await, Err(full));
    }
    assert!(store.open(order(2, 1)).await.is_err());
    let state = seen(store, &id, NOW).await.unwrap();
    assert_eq!((state.status, state.checks_left), (Status::Pending, 5));
    run(link, &["CONFIG", "SET", "maxmemory", "0"]).await;
    let right = verdict(store, check(&id, RIGHT, RIGHT, NOW)).await;
    assert_eq!(right, CheckVerdict::Approved);
}
