//! The deciding clock of each engine.

use watchword_core::{CheckVerdict, Clock, Policy, Timestamp, VerificationStatus as Status};
use watchword_storage::redis::Value;
use watchword_tests::until;
use watchword_verifier::store::{OpenCommand, Opened, VerificationStore, end_live_codes};

use crate::engine::{Engine, Machine, keys, run};
use crate::scene::{
    HOUR_MS, NOW, RIGHT, WRONG, check, checked, opened, order, seen, slot, verdict,
};

/// Returns the time of Redis' own clock.
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

/// A verifier whose clock is 20 minutes behind checks a code that has expired.
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

/// An issuer whose clock is ahead, by any amount, gives its codes the policy's lifetime by the
/// clock of Redis.
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
    // With and without an earlier wrong guess, because the fast path handles only the case without.
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

/// The clock of Redis was set back while a code was live: a code that was opened ahead of it by
/// more than its cooldown has ended.
#[tokio::test]
async fn a_code_opened_ahead_of_a_corrected_server_has_ended() {
    let engine = Engine::redis().await;
    let (store, now) = (engine.store(), server_time(&engine).await);
    for (subject, ahead_ms, guesses, expected) in [
        (1, 25_000, 0, CheckVerdict::Approved),
        (2, 25_000, 1, CheckVerdict::Approved),
        (3, 60_000, 0, CheckVerdict::Refused),
        (4, 60_000, 1, CheckVerdict::Refused),
    ] {
        let live = opened(
            store,
            OpenCommand {
                now,
                ..order(subject, 1)
            },
        )
        .await;
        for guess in 0..guesses {
            let wrong = check(&live.id, WRONG, &format!("w{guess}"), now);
            assert_eq!(verdict(store, wrong).await, CheckVerdict::Wrong);
        }
        // Changes the record as if the server's clock had been ahead when it was opened.
        let found = keys(engine.link()).await;
        let mark = format!("{}}}:v:", live.id.tag());
        let key = found.iter().find(|key| key.contains(&mark)).unwrap();
        let script = format!(
            "local v = cmsgpack.unpack(redis.call('GET', KEYS[1])); v[26] = v[26] - {ahead_ms}
            redis.call('SET', KEYS[1], cmsgpack.pack(v), 'KEEPTTL')"
        );
        run(engine.link(), &["EVAL", &script, "1", key]).await;
        let right = check(&live.id, RIGHT, "1", now);
        assert_eq!(verdict(store, right).await, expected, "{subject}");
    }
}

/// Steps of the embedded engine's wall clock while a code with a lifetime of 5 minutes is live, and
/// whether the code stays valid.
const STEPS: [(&str, i64, bool); 6] = [
    ("set back by 10 s", -10_000, true),
    ("set back by 30 s", -30_000, true),
    ("set back by 31 s", -31_000, false),
    ("set back by 20 minutes", -1_200_000, false),
    ("set back by 10 years", -315_360_000_000, false),
    ("set forward by 10 minutes", 600_000, false),
];

/// A code is valid until its lifetime in true time is over, or ends earlier, but is never valid
/// longer.
#[tokio::test]
async fn no_step_of_the_clock_lengthens_a_life() {
    for (name, step_ms, is_held) in STEPS {
        for restart in [None, Some("boot-1"), Some("boot-2")] {
            let (engine, machine) = (Engine::sqlite().await, Machine::at(NOW));
            let store = machine.start(engine.file()).await;
            let order = |subject| OpenCommand {
                now: machine.wall.now(),
                ..order(subject, 1)
            };
            let (first, last) = (
                opened(&store, order(1)).await,
                opened(&store, order(2)).await,
            );
            machine.pass(240_000);
            // Writes the current time to the file.
            opened(&store, order(3)).await;
            machine.step(step_ms);
            let store = match restart {
                None => store,
                Some(boot) => {
                    Machine {
                        boot,
                        ..machine.clone()
                    }
                    .start(engine.file())
                    .await
                }
            };
            let right = |id| check(id, RIGHT, "1", machine.wall.now());
            machine.pass(59_999);
            let expected = if is_held {
                CheckVerdict::Approved
            } else {
                CheckVerdict::Refused
            };
            let found = verdict(&store, right(&first.id)).await;
            assert_eq!(found, expected, "{name}, {restart:?}");
            machine.pass(1);
            let late = verdict(&store, right(&last.id)).await;
            assert_eq!(late, CheckVerdict::Refused, "{name}, {restart:?}");
            // In every case the next code works, once.
            let next = opened(
                &store,
                OpenCommand {
                    now: machine.wall.now(),
                    ..order(4)
                },
            )
            .await;
            assert_eq!(
                verdict(&store, right(&next.id)).await,
                CheckVerdict::Approved,
                "{name}"
            );
        }
    }
}

/// A correction that only the time since boot reveals: the wall clock is later than the file's
/// newest time, but earlier than it must be.
#[tokio::test]
async fn a_clock_set_back_while_the_process_was_stopped_is_noticed() {
    let (engine, machine) = (Engine::sqlite().await, Machine::at(NOW));
    let order = |subject, now| OpenCommand {
        now,
        ..order(subject, 1)
    };
    let store = machine.start(engine.file()).await;
    let live = opened(&store, order(1, NOW)).await;
    drop(store);
    machine.pass(240_000);
    machine.step(-200_000);
    let store = machine.start(engine.file()).await;
    let right = check(&live.id, RIGHT, "1", machine.wall.now());
    assert_eq!(verdict(&store, right).await, CheckVerdict::Refused);
    let state = seen(&store, &live.id, machine.wall.now()).await.unwrap();
    assert_eq!(state.status, Status::Expired);
}

/// A correction that a process noticed, but could not write before it crashed, is noticed again.
#[tokio::test]
async fn a_correction_holds_after_a_crash() {
    let (engine, machine) = (Engine::sqlite().await, Machine::at(NOW));
    let now = || machine.wall.now();
    let store = machine.start(engine.file()).await;
    let live = opened(&store, order(1, 1)).await;
    machine.step(-60_000);
    let read_only = seen(&store, &live.id, now()).await.unwrap();
    assert_eq!(read_only.status, Status::Expired);
    for _ in 0..2 {
        let store = machine.start(engine.file()).await;
        let right = check(&live.id, RIGHT, "1", now());
        assert_eq!(verdict(&store, right).await, CheckVerdict::Refused);
        machine.pass(1_000);
    }
}

/// After a small step the cooldown ends in true time, and after a correction a new code does not
/// wait for the cooldown of an earlier one.
#[tokio::test]
async fn no_step_of_the_clock_lengthens_a_cooldown() {
    for (step_ms, waits_ms) in [(-30_000, 29_999), (-31_000, 0), (-3_600_000, 0)] {
        let (engine, machine) = (Engine::sqlite().await, Machine::at(NOW));
        let store = machine.start(engine.file()).await;
        opened(&store, order(1, 1)).await;
        machine.step(step_ms);
        machine.pass(1);
        let ask = |number| OpenCommand {
            now: machine.wall.now(),
            ..order(1, number)
        };
        let asked = store.open(ask(2)).await.unwrap();
        if waits_ms == 0 {
            assert!(
                matches!(&asked, Opened::Send(sent) if sent.is_new),
                "{asked:?}"
            );
            continue;
        }
        let Opened::Cooling(live) = asked else {
            panic!("{asked:?}")
        };
        let steady = machine.wall.now().plus_millis(30_000);
        assert_eq!(live.resend_after.millis_since(steady), waits_ms);
        machine.pass(29_999);
        let asked = store.open(ask(3)).await.unwrap();
        assert!(
            matches!(&asked, Opened::Send(sent) if !sent.is_new),
            "{asked:?}"
        );
    }
}

/// Guesses recorded by a clock that is ten years ahead still count after its correction, and the
/// subject may guess again after an hour.
#[tokio::test]
async fn a_lock_ends_an_hour_after_the_clock_was_corrected() {
    let (engine, machine) = (Engine::sqlite().await, Machine::at(NOW));
    let now = || machine.wall.now();
    let store = machine.start(engine.file()).await;
    machine.step(315_360_000_000);
    for number in 0..2 {
        let order = OpenCommand {
            now: now(),
            ..order(1, number)
        };
        let order = OpenCommand {
            slot: slot(1, &number.to_string()),
            ..order
        };
        let id = opened(&store, order).await.id;
        for guess in 0..5 {
            verdict(&store, check(&id, WRONG, &guess.to_string(), now())).await;
        }
    }
    machine.step(-315_360_000_000);
    let ask = || OpenCommand {
        now: now(),
        ..order(1, 9)
    };
    let locked = store.open(ask()).await.unwrap();
    assert_eq!(locked, Opened::Locked(NOW.plus_millis(HOUR_MS)));
    machine.pass(3_600_000);
    opened(&store, ask()).await;
}

/// Rows written by a clock that is ten years ahead are purged with the others.
#[tokio::test]
async fn rows_of_a_clock_that_was_ahead_are_forgotten_in_time() {
    let (engine, machine) = (Engine::sqlite().await, Machine::at(NOW));
    let store = machine.start(engine.file()).await;
    let ask = |subject| OpenCommand {
        now: machine.wall.now(),
        ..order(subject, 1)
    };
    machine.step(315_360_000_000);
    opened(&store, ask(1)).await;
    machine.step(-315_360_000_000);
    opened(&store, ask(2)).await;
    machine.pass(4 * 3_600_000);
    opened(&store, ask(3)).await;
    let rows = engine.file().read(|connection| {
        let count = "SELECT count(*) FROM verifier_verification";
        connection.query_row(count, [], |row| row.get::<_, u32>(0))
    });
    assert_eq!(rows.await.unwrap(), 1, "the last one");
}

/// A restored file is older than codes that were used since: none of its live codes is valid, and
/// everything else in it counts.
#[tokio::test]
async fn no_code_of_a_restored_file_is_right() {
    let (engine, machine) = (Engine::sqlite().await, Machine::at(NOW));
    let store = machine.start(engine.file()).await;
    let (live, used) = (
        opened(&store, order(1, 1)).await,
        opened(&store, order(2, 1)).await,
    );
    verdict(&store, check(&live.id, WRONG, "1", NOW)).await;
    verdict(&store, check(&used.id, RIGHT, "1", NOW)).await;
    drop(store);
    engine.file().write(end_live_codes).await.unwrap();
    let store = machine.start(engine.file()).await;
    let right = check(&live.id, RIGHT, "2", NOW);
    assert_eq!(verdict(&store, right).await, CheckVerdict::Refused);
    let again = checked(&store, check(&live.id, WRONG, "1", NOW)).await;
    assert!(again.repeated && again.verdict == CheckVerdict::Wrong);
    let approved = checked(&store, check(&used.id, RIGHT, "1", NOW)).await;
    assert!(approved.repeated && approved.verdict == CheckVerdict::Approved);
    let statuses = async |id| seen(&store, id, NOW).await.unwrap().status;
    assert_eq!(statuses(&live.id).await, Status::Expired);
    assert_eq!(statuses(&used.id).await, Status::Approved);
    let new = opened(&store, order(1, 2)).await;
    assert_eq!(
        verdict(&store, check(&new.id, RIGHT, "1", NOW)).await,
        CheckVerdict::Approved
    );
}
