//! Checks: services, purposes, keys, expectations and repeats.

use watchword_core::{Channel, CheckVerdict, GuessBudget, Policy};
use watchword_verifier::store::{
    Approval, CheckCommand, Checked, Expected, OpenCommand, StoreError,
};

use crate::engine::Engine;
use crate::scene::{
    NOW, RIGHT, WRONG, check, checked, digest, id, opened, order, purpose, seen, service, short,
    tag, verdict,
};

const REFUSED: Checked = Checked {
    verdict: CheckVerdict::Refused,
    repeated: false,
    approval: None,
};

fn repeated(verdict: CheckVerdict) -> Checked {
    let (order, is_right) = (order(1, 1), verdict == CheckVerdict::Approved);
    Checked {
        verdict,
        repeated: true,
        approval: is_right.then_some(Approval {
            channel: order.channel,
            purpose: order.purpose,
            masked_to: order.masked_to,
        }),
    }
}

fn for_purpose(name: &str) -> Expected {
    Expected {
        purpose: Some(purpose(name)),
        ..Expected::default()
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
        expected: for_purpose(name),
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
        expected: for_purpose("login"),
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
    // A code under a key that is not loaded here yet: no attempt is counted.
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
    // The stored digest under another key's id, next to a wrong code under the right one.
    let mut renamed = check(&id, WRONG, "5", NOW);
    renamed.candidates.extend(under(&["d1"], "5").candidates);
    "d2".clone_into(&mut renamed.candidates[1].key_id);
    assert_eq!(verdict(store, renamed).await, CheckVerdict::Wrong);
    let both = verdict(store, under(&["d2", "d1"], "6")).await;
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

/// For every field that a check may expect, the right code with another value is wrong and counted,
/// and the result is the same for all fields.
pub async fn each_expectation_that_is_not_met_makes_the_code_wrong(engine: &Engine) {
    let store = engine.store();
    let expecting = |change: fn(&mut Expected)| {
        let mut expected = Expected::default();
        change(&mut expected);
        expected
    };
    let wrong = [
        expecting(|one| one.purpose = Some(purpose("enrol"))),
        expecting(|one| one.channel = Some(Channel::Email)),
        expecting(|one| one.recipient = Some(short("another"))),
        expecting(|one| one.variables = Some(Some(short("another")))),
        expecting(|one| one.variables = Some(None)),
        expecting(|one| one.subject = Some(tag(99))),
    ];
    for (subject, expected) in (1..).zip(wrong) {
        let order = OpenCommand {
            variables: Some(short("content")),
            ..order(subject, 1)
        };
        let id = opened(store, order).await.id;
        let asked = |check_id: &str, expected: Expected| CheckCommand {
            expected,
            ..check(&id, RIGHT, check_id, NOW)
        };
        let refused = checked(store, asked("1", expected)).await;
        let plain_wrong = Checked {
            verdict: CheckVerdict::Wrong,
            repeated: false,
            approval: None,
        };
        assert_eq!(refused, plain_wrong, "subject {subject}");
        assert_eq!(seen(store, &id, NOW).await.unwrap().checks_left, 4);
        let right = Expected {
            purpose: Some(purpose("login")),
            channel: Some(Channel::Sms),
            recipient: Some(short("recipient")),
            variables: Some(Some(short("content"))),
            subject: Some(tag(subject)),
        };
        let approved = checked(store, asked("2", right)).await;
        assert_eq!(approved.verdict, CheckVerdict::Approved);
        assert!(approved.approval.is_some());
    }
    let plain = opened(store, order(50, 1)).await.id;
    let without = CheckCommand {
        expected: expecting(|one| one.variables = Some(None)),
        ..check(&plain, RIGHT, "1", NOW)
    };
    assert_eq!(verdict(store, without).await, CheckVerdict::Approved);
}

/// A repeat must be exactly the same check; otherwise it could try recipients without being
/// counted.
pub async fn a_repeat_with_other_expectations_is_refused(engine: &Engine) {
    let store = engine.store();
    let id = opened(store, order(1, 1)).await.id;
    let asked = |expected: Expected| CheckCommand {
        expected,
        ..check(&id, RIGHT, "1", NOW)
    };
    verdict(store, asked(for_purpose("login"))).await;
    let own = checked(store, asked(for_purpose("login"))).await;
    assert_eq!(own, repeated(CheckVerdict::Approved));
    let met = Expected {
        recipient: Some(short("recipient")),
        ..for_purpose("login")
    };
    let unmet = Expected {
        recipient: Some(short("another")),
        ..for_purpose("login")
    };
    for other in [for_purpose("enrol"), met, unmet, Expected::default()] {
        let answer = checked(store, asked(other.clone())).await;
        assert_eq!(answer, REFUSED, "{other:?}");
    }
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
