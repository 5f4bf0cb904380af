//! The life of a verification: one approval, five wrong codes, a deadline, a withdrawal.

use watchword_core::{
    CheckVerdict, GuessBudget, ShortTag, VerificationId, VerificationStatus as Status,
};
use watchword_verifier::store::OpenCommand;

use crate::engine::Engine;
use crate::scene::{
    HOUR_MS, NOW, RIGHT, WRONG, check, id, opened, order, seen, sent, service, short, verdict,
};

pub async fn the_right_code_is_approved_once(engine: &Engine) {
    let store = engine.store();
    let id = opened(store, order(1, 1)).await.id;
    let right = |check_id: &str| check(&id, RIGHT, check_id, NOW);
    assert_eq!(verdict(store, right("1")).await, CheckVerdict::Approved);
    let state = seen(store, &id, NOW).await.unwrap();
    assert_eq!((state.status, state.checks_left), (Status::Approved, 5));
    for n in 2..5 {
        let again = verdict(engine.any(n), right(&n.to_string())).await;
        assert_eq!(again, CheckVerdict::Refused);
    }
    let late = seen(store, &id, NOW.plus_millis(300_000)).await.unwrap();
    assert_eq!(late.status, Status::Approved, "an approval does not expire");
}

pub async fn the_fifth_wrong_code_ends_it(engine: &Engine) {
    let store = engine.store();
    let id = opened(store, order(1, 1)).await.id;
    for left in (1..5).rev() {
        let wrong = check(&id, WRONG, &left.to_string(), NOW);
        assert_eq!(verdict(store, wrong).await, CheckVerdict::Wrong);
        let state = seen(store, &id, NOW).await.unwrap();
        assert_eq!((state.status, state.checks_left), (Status::Pending, left));
    }
    let wrong = check(&id, WRONG, "last", NOW);
    assert_eq!(verdict(store, wrong).await, CheckVerdict::LastWrong);
    let state = seen(store, &id, NOW).await.unwrap();
    assert_eq!(
        (state.status, state.checks_left),
        (Status::MaxAttemptsReached, 0)
    );
    let right = check(&id, RIGHT, "right", NOW);
    assert_eq!(verdict(store, right).await, CheckVerdict::Refused);
}

pub async fn the_deadline_is_the_first_moment_that_fails(engine: &Engine) {
    let store = engine.store();
    for (subject, ms, expected) in [
        (1, 299_999, CheckVerdict::Approved),
        (2, 300_000, CheckVerdict::Refused),
        (3, 300_001, CheckVerdict::Refused),
    ] {
        let id = opened(store, order(subject, 1)).await.id;
        let now = NOW.plus_millis(ms);
        let right = check(&id, RIGHT, "1", now);
        assert_eq!(verdict(store, right).await, expected, "{ms}");
        let expired = expected == CheckVerdict::Refused;
        let status = if expired {
            Status::Expired
        } else {
            Status::Approved
        };
        let state = seen(store, &id, now).await.unwrap();
        assert_eq!((state.status, state.checks_left), (status, 5));
    }
}

pub async fn a_resend_gives_no_check_back(engine: &Engine) {
    let (store, order) = (engine.store(), order(1, 1));
    let id = opened(store, order.clone()).await.id;
    for n in 0..3 {
        verdict(store, check(&id, WRONG, &n.to_string(), NOW)).await;
    }
    let due = NOW.plus_millis(30_000);
    let budget = GuessBudget::default();
    let resent = store.resend(&id, &order.service, None, 0, budget, due);
    assert_eq!(
        sent(resent.await.unwrap().unwrap())
            .verification
            .checks_left,
        2
    );
    verdict(store, check(&id, WRONG, "3", due)).await;
    let last = verdict(store, check(&id, WRONG, "4", due)).await;
    assert_eq!(last, CheckVerdict::LastWrong);
}

pub async fn a_canceled_code_is_worth_nothing(engine: &Engine) {
    let store = engine.store();
    let live = opened(store, order(1, 1)).await;
    let cancel = async |id, name: &str, now| store.cancel(&id, &service(name), now).await.unwrap();
    assert_eq!(cancel(id(1, 99), "web", NOW).await, None, "unknown");
    assert_eq!(cancel(live.id.clone(), "other", NOW).await, None);
    assert_eq!(seen(store, &live.id, NOW).await, Some(live.clone()));
    let canceled = cancel(live.id.clone(), "web", NOW).await.unwrap();
    assert_eq!(canceled.status, Status::Canceled);
    let again = cancel(live.id.clone(), "web", NOW).await;
    assert_eq!(again, Some(canceled), "twice is no error");
    let right = check(&live.id, RIGHT, "1", NOW);
    assert_eq!(verdict(store, right).await, CheckVerdict::Refused);

    let approved = opened(store, order(2, 1)).await.id;
    verdict(store, check(&approved, RIGHT, "1", NOW)).await;
    let state = cancel(approved, "web", NOW).await.unwrap();
    assert_eq!(state.status, Status::Approved, "what ended stays as it was");
    let expired = opened(store, order(3, 1)).await;
    let state = cancel(expired.id.clone(), "web", expired.expires_at).await;
    assert_eq!(state.unwrap().status, Status::Expired);
}

pub async fn an_ended_verification_is_shown_for_an_hour(engine: &Engine) {
    let store = engine.store();
    let live = opened(store, order(1, 1)).await;
    let last = live.expires_at.plus_millis(HOUR_MS - 1);
    let state = seen(store, &live.id, last).await.unwrap();
    assert_eq!(state.status, Status::Expired);
    let after = live.expires_at.plus_millis(HOUR_MS);
    assert_eq!(seen(store, &live.id, after).await, None);
    let refused = verdict(store, check(&live.id, RIGHT, "1", after)).await;
    assert_eq!(refused, CheckVerdict::Refused);
    let other = store.get(&live.id, &service("other"), NOW).await.unwrap();
    assert_eq!(other, None, "never to another service");
}

pub async fn an_ended_verification_forgets_what_could_be_compared(engine: &Engine) {
    let store = engine.store();
    let (variables, details) = (short("variables"), short("details"));
    let ordered = |subject| OpenCommand {
        variables: Some(variables),
        details: Some(details),
        ..order(subject, 1)
    };
    let tags = [ordered(1).recipient, variables, details];
    let held = async |id: &VerificationId| {
        let record = engine.record(id).await;
        let holds = |tag: &ShortTag| {
            let forms = [tag.as_bytes().to_vec(), tag.to_string().into_bytes()];
            let found = |form: &Vec<u8>| record.windows(form.len()).any(|part| part == form);
            forms.iter().any(found)
        };
        tags.iter().filter(|tag| holds(tag)).count()
    };
    // The ending: wrong codes, then the right one or a withdrawal.
    for (subject, wrong, right) in [(1, 0, true), (2, 1, true), (3, 5, false), (4, 0, false)] {
        let id = opened(store, ordered(subject)).await.id;
        assert_eq!(held(&id).await, 3, "while it is live");
        for guess in 0..wrong {
            verdict(store, check(&id, WRONG, &format!("w{guess}"), NOW)).await;
        }
        if right {
            let approved = verdict(store, check(&id, RIGHT, "r", NOW)).await;
            assert_eq!(approved, CheckVerdict::Approved);
        } else {
            store.cancel(&id, &service("web"), NOW).await.unwrap();
        }
        assert_eq!(held(&id).await, 0, "{subject}");
    }
}
