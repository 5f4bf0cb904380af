//! Limits of wrong guesses per subject, across verifications and messages (NIST SP 800-63B section
//! 3.2.2).

use watchword_core::{CheckVerdict, GuessBudget, Timestamp};
use watchword_verifier::store::{OpenCommand, Opened};

use crate::engine::Engine;
use crate::scene::{
    HOUR_MS, NOW, RIGHT, WRONG, check, checked, opened, order, purpose, seen, service, short, slot,
    tag, verdict,
};

fn at(order: OpenCommand, now: Timestamp) -> OpenCommand {
    OpenCommand { now, ..order }
}

pub async fn an_attacker_is_stopped_by_the_hour_and_the_day(engine: &Engine) {
    let store = engine.store();
    let (mut guesses, mut number) = (Vec::new(), 0_u64);
    // Two days with a new verification every ten minutes and four guesses each, because a fifth
    // would end the verification.
    for minutes in (0..2 * 24 * 60_u64).step_by(10) {
        let now = NOW.plus_millis(minutes * 60_000);
        number += 1;
        let answer = store.open(at(order(1, number), now)).await.unwrap();
        let Opened::Send(sent) = answer else {
            assert!(matches!(answer, Opened::Locked(until) if until > now));
            continue;
        };
        for n in 0..4 {
            let guess = check(&sent.verification.id, WRONG, &n.to_string(), now);
            if verdict(store, guess).await != CheckVerdict::Refused {
                guesses.push(now);
            }
        }
    }
    let within = |start: Timestamp, hours: u64| {
        let end = start.plus_millis(hours * HOUR_MS);
        guesses
            .iter()
            .filter(|&&at| at >= start && at < end)
            .count()
    };
    assert_eq!((within(NOW, 1), within(NOW, 24)), (10, 20));
    let worst = |hours| guesses.iter().map(|&start| within(start, hours)).max();
    assert_eq!((worst(1), worst(24)), (Some(10), Some(20)));
    assert_eq!(guesses.len(), 40);
}

pub async fn a_locked_subject_gets_no_message_and_no_check(engine: &Engine) {
    let store = engine.store();
    let budget = GuessBudget {
        per_hour: 2,
        ..GuessBudget::default()
    };
    let live = opened(store, order(1, 1)).await;
    for n in 0..2 {
        let wrong = check(&live.id, WRONG, &n.to_string(), NOW);
        store.check(wrong, budget).await.unwrap();
    }
    let before = seen(store, &live.id, NOW).await;
    let (due, until) = (NOW.plus_millis(30_000), NOW.plus_millis(HOUR_MS));
    let again = OpenCommand {
        budget,
        ..at(order(1, 2), due)
    };
    assert_eq!(store.open(again).await.unwrap(), Opened::Locked(until));
    let resent = store
        .resend(&live.id, &service("web"), None, 0, budget, due)
        .await;
    assert_eq!(resent.unwrap(), Some(Opened::Locked(until)));
    for code in [RIGHT, WRONG] {
        let refused = store.check(check(&live.id, code, code, due), budget).await;
        assert_eq!(refused.unwrap().verdict, CheckVerdict::Refused);
    }
    let known = check(&live.id, WRONG, "0", due);
    assert!(store.check(known, budget).await.unwrap().repeated);
    assert_eq!(seen(store, &live.id, NOW).await, before, "nothing changed");
    let free = OpenCommand {
        budget,
        ..at(order(1, 3), until)
    };
    assert!(matches!(store.open(free).await.unwrap(), Opened::Send(sent) if sent.is_new));
}

/// The right code resets the consecutive guesses at its recipient, but not those of the hour and
/// the day: repeating four wrong guesses and an approval reaches ten guesses in an hour.
pub async fn the_right_code_gives_no_guess_back(engine: &Engine) {
    let store = engine.store();
    let mut wrong = 0;
    for number in 1..=10 {
        let answer = store.open(order(1, number)).await.unwrap();
        let Opened::Send(sent) = answer else {
            assert!(matches!(answer, Opened::Locked(until) if until == NOW.plus_millis(HOUR_MS)));
            continue;
        };
        let id = sent.verification.id;
        for n in 0..4 {
            let guess = check(&id, WRONG, &n.to_string(), NOW);
            wrong += usize::from(verdict(store, guess).await != CheckVerdict::Refused);
        }
        verdict(store, check(&id, RIGHT, "r", NOW)).await;
    }
    assert_eq!(wrong, 10);
}

/// Guesses at one recipient, while codes of the same subject sent to another recipient are
/// approved.
pub async fn an_approval_elsewhere_ends_no_row(engine: &Engine) {
    let store = engine.store();
    let budget = GuessBudget {
        in_a_row: 6,
        ..GuessBudget::default()
    };
    let elsewhere = |number, now| OpenCommand {
        slot: slot(1, "enrol"),
        purpose: purpose("enrol"),
        recipient: short("own"),
        budget,
        ..at(order(1, number), now)
    };
    let mut now = NOW;
    let mut guessed = 0;
    for round in 0..4 {
        let approved = opened(store, elsewhere(100 + round, now)).await.id;
        let right = store.check(check(&approved, RIGHT, "r", now), budget).await;
        assert_eq!(right.unwrap().verdict, CheckVerdict::Approved, "{round}");
        let victims = OpenCommand {
            budget,
            ..at(order(1, round), now)
        };
        let id = opened(store, victims).await.id;
        for n in 0..2 {
            let wrong = store
                .check(check(&id, WRONG, &n.to_string(), now), budget)
                .await;
            guessed += u32::from(wrong.unwrap().verdict == CheckVerdict::Wrong);
        }
        now = now.plus_millis(25 * HOUR_MS);
        if guessed == 6 {
            break;
        }
    }
    let forever = Timestamp::from_millis(i64::MAX);
    let locked = store.open(elsewhere(200, now)).await.unwrap();
    assert_eq!((guessed, locked), (6, Opened::Locked(forever)));

    // At its own recipient the right code does reset the consecutive guesses.
    let mut now = NOW;
    for round in 0..4 {
        let order = OpenCommand {
            budget,
            ..at(order(2, round), now)
        };
        let id = opened(store, order).await.id;
        for (n, code) in [WRONG, WRONG, RIGHT].iter().enumerate() {
            store
                .check(check(&id, code, &n.to_string(), now), budget)
                .await
                .unwrap();
        }
        now = now.plus_millis(25 * HOUR_MS);
    }
    assert!(
        seen(store, &opened(store, at(order(2, 9), now)).await.id, now)
            .await
            .is_some()
    );
}

pub async fn too_many_in_a_row_lock_until_bound_anew(engine: &Engine) {
    let store = engine.store();
    let budget = GuessBudget {
        in_a_row: 6,
        ..GuessBudget::default()
    };
    let mut now = NOW;
    for number in 1..=3 {
        let id = opened(store, at(order(1, number), now)).await.id;
        for n in 0..2 {
            let wrong = check(&id, WRONG, &n.to_string(), now);
            let counted = store.check(wrong, budget).await.unwrap().verdict;
            assert_eq!(counted, CheckVerdict::Wrong);
        }
        now = now.plus_millis(25 * HOUR_MS);
    }
    let ordered = |number| OpenCommand {
        budget,
        ..at(order(1, number), now)
    };
    let forever = Timestamp::from_millis(i64::MAX);
    let locked = store.open(ordered(4)).await.unwrap();
    assert_eq!(locked, Opened::Locked(forever));
    store.forget_guesses(tag(1)).await.unwrap();
    let id = opened(store, ordered(5)).await.id;
    let right = checked(store, check(&id, RIGHT, "1", now)).await;
    assert_eq!(right.verdict, CheckVerdict::Approved);
}

pub async fn subjects_do_not_share_a_budget(engine: &Engine) {
    let store = engine.store();
    let first = opened(store, order(1, 1)).await.id;
    let second = opened(store, order(2, 1)).await.id;
    for n in 0..4 {
        verdict(store, check(&first, WRONG, &n.to_string(), NOW)).await;
    }
    let strict = GuessBudget {
        per_hour: 1,
        ..GuessBudget::default()
    };
    let right = store.check(check(&second, RIGHT, "1", NOW), strict).await;
    assert_eq!(right.unwrap().verdict, CheckVerdict::Approved);
}
