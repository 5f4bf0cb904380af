//! What counts as which check: services, purposes, keys and repeats.

use watchword_core::{CheckVerdict, GuessBudget, Policy};
use watchword_verifier::store::{CheckCommand, Checked, StoreError};

use crate::engine::Engine;
use crate::scene::{
    NOW, RIGHT, WRONG, check, checked, digest, id, opened, order, purpose, seen, service, verdict,
};

const REFUSED: Checked = Checked {
    verdict: CheckVerdict::Refused,
    repeated: false,
    channel: None,
};

const fn repeated(verdict: CheckVerdict) -> Checked {
    Checked {
        verdict,
        repeated: true,
        channel: None,
    }
}

pub async fn another_services_verification_is_unknown_and_untouched(engine: &Engine) {
    let store = engine.store();
    let live = opened(store, order(1, 1)).await;
    for code in [RIGHT, WRONG] {
        let foreign = CheckCommand {
            service: service("other"),
            ..check(&live.id, code, "1", NOW)
        };
        assert_eq!(checked(store, foreign).await, REFUSED);
        let unknown = check(&id(1, 99), code, "1", NOW);
        assert_eq!(checked(store, unknown).await, REFUSED);
    }
    assert_eq!(seen(store, &live.id, NOW).await, Some(live.clone()));
    let right = verdict(store, check(&live.id, RIGHT, "1", NOW)).await;
    assert_eq!(right, CheckVerdict::Approved, "the check id is unused");
}

pub async fn another_purpose_counts_as_a_wrong_code(engine: &Engine) {
    let store = engine.store();
    let id = opened(store, order(1, 1)).await.id;
    let right_for = |name: &str, check_id: &str| CheckCommand {
        purpose: Some(purpose(name)),
        ..check(&id, RIGHT, check_id, NOW)
    };
    let other = verdict(store, right_for("enrol", "1")).await;
    assert_eq!(other, CheckVerdict::Wrong);
    assert_eq!(seen(store, &id, NOW).await.unwrap().checks_left, 4);
    let strict = GuessBudget {
        per_hour: 1,
        ..GuessBudget::default()
    };
    let counted = store.check(right_for("login", "2"), strict).await.unwrap();
    assert_eq!(counted, REFUSED, "the subject's budget was charged");
    for n in 3..6 {
        verdict(store, right_for("enrol", &n.to_string())).await;
    }
    let last = verdict(store, right_for("enrol", "6")).await;
    assert_eq!(last, CheckVerdict::LastWrong);

    let own = opened(store, order(2, 1)).await.id;
    let right = CheckCommand {
        purpose: Some(purpose("login")),
        ..check(&own, RIGHT, "1", NOW)
    };
    assert_eq!(verdict(store, right).await, CheckVerdict::Approved);
}

pub async fn a_digest_is_compared_under_its_own_key(engine: &Engine) {
    let store = engine.store();
    let id = opened(store, order(1, 1)).await.id;
    let under = |keys: &[&str], check_id: &str| CheckCommand {
        candidates: keys.iter().map(|key| digest(key, &id, RIGHT)).collect(),
        ..check(&id, RIGHT, check_id, NOW)
    };
    // A key that whoever opened it was told of first is no guess, and uses nothing up.
    let mut renamed = under(&["d1"], "3");
    "d2".clone_into(&mut renamed.candidates[0].key_id);
    for unknown in [under(&["d2"], "1"), under(&[], "2"), renamed] {
        let checked = store.check(unknown, GuessBudget::default()).await;
        assert_eq!(checked, Err(StoreError::Corrupt));
    }
    let left = seen(store, &id, NOW).await.unwrap().checks_left;
    assert_eq!(left, Policy::default().max_checks);
    let mut hostile = under(&["d1"], "4");
    "';\r\nreturn".clone_into(&mut hostile.candidates[0].hex);
    assert_eq!(verdict(store, hostile).await, CheckVerdict::Wrong);
    let both = verdict(store, under(&["d2", "d1"], "5")).await;
    assert_eq!(both, CheckVerdict::Approved, "during a rotation");
}

pub async fn a_repeat_gets_the_stored_answer_and_counts_nothing(engine: &Engine) {
    let store = engine.store();
    let id = opened(store, order(1, 1)).await.id;
    let wrong = check(&id, WRONG, "w", NOW);
    verdict(store, wrong.clone()).await;
    for n in 0..20 {
        let again = checked(engine.any(n), wrong.clone()).await;
        assert_eq!(again, repeated(CheckVerdict::Wrong));
    }
    assert_eq!(seen(store, &id, NOW).await.unwrap().checks_left, 4);
    let right = check(&id, RIGHT, "r", NOW);
    verdict(store, right.clone()).await;
    let late = CheckCommand {
        now: NOW.plus_millis(400_000),
        ..right
    };
    let again = checked(store, late).await;
    assert_eq!(
        again,
        repeated(CheckVerdict::Approved),
        "also when it ended"
    );
    let again = checked(store, wrong).await;
    assert_eq!(again, repeated(CheckVerdict::Wrong));

    let id = opened(store, order(2, 1)).await.id;
    for n in 1..=5 {
        verdict(store, check(&id, WRONG, &n.to_string(), NOW)).await;
    }
    let again = checked(store, check(&id, WRONG, "5", NOW)).await;
    assert_eq!(again, repeated(CheckVerdict::LastWrong));
    let mut rotated = check(&id, WRONG, "5", NOW);
    rotated.candidates.insert(0, digest("d0", &id, WRONG));
    let again = checked(store, rotated).await;
    assert_eq!(
        again,
        repeated(CheckVerdict::LastWrong),
        "a key came in use"
    );
}

pub async fn a_repeat_with_another_code_is_refused(engine: &Engine) {
    let store = engine.store();
    let id = opened(store, order(1, 1)).await.id;
    verdict(store, check(&id, WRONG, "1", NOW)).await;
    let other = checked(store, check(&id, RIGHT, "1", NOW)).await;
    assert_eq!(other, REFUSED);
    let state = seen(store, &id, NOW).await.unwrap();
    assert_eq!(state.checks_left, 4, "it counts nothing");
    verdict(store, check(&id, RIGHT, "2", NOW)).await;
    let other = checked(store, check(&id, WRONG, "2", NOW)).await;
    assert_eq!(other, REFUSED, "an approval is not given to a wrong code");
    let mut nothing = check(&id, WRONG, "2", NOW);
    nothing.candidates.clear();
    assert_eq!(checked(store, nothing).await, REFUSED);
}

pub async fn an_approval_is_not_repeated_for_another_purpose(engine: &Engine) {
    let store = engine.store();
    let id = opened(store, order(1, 1)).await.id;
    verdict(store, check(&id, RIGHT, "1", NOW)).await;
    let asked_for = |name: &str| CheckCommand {
        purpose: Some(purpose(name)),
        ..check(&id, RIGHT, "1", NOW)
    };
    assert_eq!(checked(store, asked_for("enrol")).await, REFUSED);
    let own = checked(store, asked_for("login")).await;
    assert_eq!(own, repeated(CheckVerdict::Approved));
}

pub async fn a_refusal_is_not_remembered(engine: &Engine) {
    let store = engine.store();
    let id = opened(store, order(1, 1)).await.id;
    let locked = GuessBudget {
        in_a_row: 0,
        ..GuessBudget::default()
    };
    let right = check(&id, RIGHT, "1", NOW);
    let refused = store.check(right.clone(), locked).await.unwrap();
    assert_eq!(refused, REFUSED);
    assert_eq!(verdict(store, right).await, CheckVerdict::Approved);
}
