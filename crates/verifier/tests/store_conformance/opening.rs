//! Opening, confirming and resending.

use watchword_core::{CheckVerdict, GuessBudget, Purpose, Timestamp, VerificationStatus as Status};
use watchword_storage::StorageError;
use watchword_verifier::store::{OpenCommand, Opened, StepOf, StoreError};

use crate::engine::Engine;
use crate::scene::{
    HOUR_MS, NOW, RIGHT, WRONG, check, id, opened, order, purpose, rotating, sealed_code, seen,
    sent, service, slot, verdict,
};

const BUDGET: GuessBudget = GuessBudget {
    per_hour: 10,
    per_day: 20,
    in_a_row: 100,
};

fn later(order: &OpenCommand, number: u64, ms: u64) -> OpenCommand {
    let id = id(1, number);
    OpenCommand {
        code: sealed_code(&id, RIGHT),
        id,
        now: NOW.plus_millis(ms),
        ..order.clone()
    }
}

pub async fn a_new_verification_is_what_was_ordered(engine: &Engine) {
    let order = order(1, 1);
    let sent = sent(engine.store().open(order.clone()).await.unwrap());
    assert!(sent.is_new && !sent.follows_approval);
    assert_eq!(sent.sealed_code, order.code.sealed);
    assert_eq!(sent.code_key_id, "s1");
    assert_eq!(sent.sealed_order, order.sealed_order);
    assert_eq!(sent.order_key_id, order.sealing_key_id);
    let stored = sent.verification;
    assert_eq!((&stored.id, &stored.service), (&order.id, &order.service));
    assert_eq!(stored.status, Status::Pending);
    assert_eq!(
        (stored.channel, &stored.purpose),
        (order.channel, &order.purpose)
    );
    assert_eq!(stored.masked_to, order.masked_to);
    assert_eq!(stored.opened_at, NOW);
    assert_eq!(stored.expires_at, NOW.plus_millis(300_000));
    assert_eq!(stored.resend_after, NOW.plus_millis(30_000));
    assert_eq!((stored.sends, stored.checks_left), (1, 5));
    assert_eq!(seen(engine.any(1), &order.id, NOW).await, Some(stored));
}

pub async fn an_unconfirmed_message_is_sent_again_under_its_number(engine: &Engine) {
    let first = order(1, 1);
    let before = sent(engine.store().open(first.clone()).await.unwrap());
    let mut second = later(&first, 2, 299_999);
    "AAAA".clone_into(&mut second.sealed_order);
    second.code = sealed_code(&second.id, WRONG);
    let again = sent(engine.store().open(second.clone()).await.unwrap());
    assert!(!again.is_new);
    assert_eq!(again.verification, before.verification);
    assert_eq!(again.sealed_code, before.sealed_code);
    assert_eq!(again.sealed_order, before.sealed_order);
    assert_eq!(seen(engine.store(), &second.id, NOW).await, None);
}

pub async fn a_further_message_waits_and_the_last_one_ends_it(engine: &Engine) {
    let (store, order) = (engine.store(), order(1, 1));
    let id = opened(store, order.clone()).await.id;
    for send in 2..=5_u8 {
        let due = u64::from(send - 1) * 30_000;
        let early = store.open(later(&order, 9, due - 1)).await.unwrap();
        let Opened::Cooling(cooling) = early else {
            panic!("{early:?}")
        };
        assert_eq!((&cooling.id, cooling.sends), (&id, send - 1));
        let further = sent(store.open(later(&order, 9, due)).await.unwrap());
        assert!(!further.is_new && !further.follows_approval);
        assert_eq!(further.sealed_code, order.code.sealed, "the same code");
        let state = further.verification;
        assert_eq!((&state.id, state.sends), (&id, send));
        assert_eq!(state.expires_at, NOW.plus_millis(300_000));
        assert_eq!(state.resend_after, NOW.plus_millis(due + 30_000));
        store.confirm(&id, send).await.unwrap();
    }
    let ended = store.open(later(&order, 9, 200_000)).await.unwrap();
    assert!(matches!(ended, Opened::Exhausted(state) if state.sends == 5));
}

pub async fn a_late_confirmation_is_not_the_current_ones(engine: &Engine) {
    let (store, order) = (engine.store(), order(1, 1));
    let id = opened(store, order.clone()).await.id;
    sent(store.open(later(&order, 2, 30_000)).await.unwrap());
    for stale in [1, 0, 3, 255] {
        assert!(!store.confirm(&id, stale).await.unwrap());
    }
    let again = sent(store.open(later(&order, 2, 90_000)).await.unwrap());
    assert_eq!(again.verification.sends, 2, "still unconfirmed: repeated");
    assert!(store.confirm(&id, 2).await.unwrap());
    assert!(!store.confirm(&id, 2).await.unwrap(), "recorded before");
    let third = sent(store.open(later(&order, 2, 90_000)).await.unwrap());
    assert_eq!(third.verification.sends, 3);
}

pub async fn a_rotating_policy_needs_a_code_and_kills_the_old_one(engine: &Engine) {
    let (store, order) = (engine.store(), rotating(order(1, 1)));
    let before = opened(store, order.clone()).await;
    let due = NOW.plus_millis(30_000);
    let asked = store.open(later(&order, 2, 30_000)).await.unwrap();
    let Opened::NeedsCode(needs) = &asked else {
        panic!("{asked:?}")
    };
    assert_eq!(needs.verification, before);
    assert_eq!(needs.sealed_order, order.sealed_order);
    let again = store.resend(&before.id, &order.service, None, 0, BUDGET, due);
    assert_eq!(again.await.unwrap(), Some(asked));
    assert_eq!(seen(store, &before.id, due).await, Some(before.clone()));

    let next = sealed_code(&before.id, WRONG);
    let resent = store.resend(
        &before.id,
        &order.service,
        Some(next.clone()),
        0,
        BUDGET,
        due,
    );
    let resent = sent(resent.await.unwrap().unwrap());
    assert_eq!((resent.verification.sends, resent.is_new), (2, false));
    assert_eq!(resent.sealed_code, next.sealed);
    let old = check(&before.id, RIGHT, "old", due);
    assert_eq!(verdict(store, old).await, CheckVerdict::Wrong);
    let new = check(&before.id, WRONG, "new", due);
    assert_eq!(verdict(store, new).await, CheckVerdict::Approved);
}

pub async fn slots_do_not_touch_each_other(engine: &Engine) {
    let store = engine.store();
    let login = opened(store, order(1, 1)).await;
    let enrol = OpenCommand {
        slot: slot(1, "enrol"),
        purpose: purpose("enrol"),
        ..order(1, 2)
    };
    let enrol = opened(store, enrol).await;
    assert_ne!(login.id, enrol.id);
    let right = check(&login.id, RIGHT, "1", NOW);
    assert_eq!(verdict(store, right).await, CheckVerdict::Approved);
    assert_eq!(seen(store, &enrol.id, NOW).await, Some(enrol));
    assert_eq!(login.purpose, Purpose::login());
}

pub async fn only_an_approval_is_followed(engine: &Engine) {
    let (store, first) = (engine.store(), order(1, 1));
    let mut at = 0;
    let mut number = 1;
    let mut next = async |at: u64| {
        number += 1;
        let sent = sent(store.open(later(&first, number, at)).await.unwrap());
        assert!(sent.is_new);
        (sent.verification.id, sent.follows_approval)
    };
    let moment = |ms| NOW.plus_millis(ms);
    let (canceled, _) = next(at).await;
    store
        .cancel(&canceled, &first.service, moment(at))
        .await
        .unwrap();
    let (expired, follows) = next(at).await;
    assert!(!follows, "not after a withdrawal");
    at += 300_000;
    let (guessed, follows) = next(at).await;
    assert!(!follows, "not after an expiry of {expired}");
    for n in 0..5 {
        verdict(store, check(&guessed, WRONG, &n.to_string(), moment(at))).await;
    }
    let (approved, follows) = next(at).await;
    assert!(!follows, "not after wrong codes");
    verdict(store, check(&approved, RIGHT, "r", moment(at))).await;
    let (second, follows) = next(at).await;
    assert!(follows, "after an approval");
    verdict(store, check(&second, RIGHT, "r", moment(at))).await;
    at += 300_000 + HOUR_MS;
    let (_, follows) = next(at).await;
    assert!(!follows, "not after one that is forgotten");
}

pub async fn a_resend_is_for_live_verifications_of_the_caller(engine: &Engine) {
    let (store, first) = (engine.store(), order(1, 1));
    let live = opened(store, first.clone()).await;
    let due = NOW.plus_millis(30_000);
    let resend = async |id, name: &str, now| {
        let name = service(name);
        store
            .resend(&id, &name, None, 0, BUDGET, now)
            .await
            .unwrap()
    };
    assert_eq!(resend(id(1, 99), "web", due).await, None, "unknown");
    assert_eq!(resend(live.id.clone(), "other", due).await, None);
    let expired = Timestamp::from_millis(live.expires_at.as_millis());
    assert_eq!(resend(live.id.clone(), "web", expired).await, None);
    let further = resend(live.id.clone(), "web", due).await;
    assert_eq!(sent(further.unwrap()).verification.sends, 2);
    verdict(store, check(&live.id, RIGHT, "1", due)).await;
    assert_eq!(resend(live.id, "web", due).await, None, "approved");
}

pub async fn an_id_is_used_once(engine: &Engine) {
    let (store, first) = (engine.store(), order(1, 1));
    let before = opened(store, first.clone()).await;
    let thief = OpenCommand {
        slot: slot(1, "other"),
        ..first
    };
    let refused = store.open(thief).await.unwrap_err();
    let rejected = matches!(refused, StoreError::Storage(StorageError::Rejected(_)));
    assert!(rejected, "{refused:?}");
    assert_eq!(seen(store, &before.id, NOW).await, Some(before));
}

/// A fallback step is taken after the cooldown, once, and not after a later message. If the issuer
/// crashes before the confirm, only the same step repeats the message.
pub async fn a_step_follows_its_message_and_no_other(engine: &Engine) {
    let store = engine.store();
    let live = opened(store, order(1, 1)).await;
    let budget = order(1, 1).budget;
    let of = |after| StepOf {
        after,
        details: None,
    };
    let step = |after, now| store.step(&live.id, &live.service, of(after), None, budget, now);
    store.confirm(&live.id, 1).await.unwrap();
    let further = sent(step(1, NOW).await.unwrap().unwrap());
    assert_eq!(further.verification.sends, 2);
    let again = sent(step(1, NOW).await.unwrap().unwrap());
    assert_eq!(again.verification.sends, 2);
    let asked = store
        .resend(&live.id, &live.service, None, 0, budget, NOW)
        .await;
    assert!(matches!(asked.unwrap().unwrap(), Opened::Cooling(_)));
    store.confirm(&live.id, 2).await.unwrap();
    assert_eq!(step(1, NOW).await.unwrap(), None);

    // A request in between, an approval, another id.
    let resent = opened(store, order(2, 1)).await;
    store.confirm(&resent.id, 1).await.unwrap();
    let later = resent.resend_after;
    sent(
        store
            .resend(&resent.id, &resent.service, None, 0, budget, later)
            .await
            .unwrap()
            .unwrap(),
    );
    let late = store.step(&resent.id, &resent.service, of(1), None, budget, later);
    assert_eq!(late.await.unwrap(), None);
    let approved = opened(store, order(3, 1)).await;
    store.confirm(&approved.id, 1).await.unwrap();
    verdict(store, check(&approved.id, RIGHT, "1", NOW)).await;
    let ended = store.step(&approved.id, &approved.service, of(1), None, budget, NOW);
    assert_eq!(ended.await.unwrap(), None);
    let other = service("other");
    let foreign = store.step(&live.id, &other, of(2), None, budget, NOW).await;
    assert_eq!(foreign.unwrap(), None);

    // A rotating policy asks for a code first.
    let rotates = opened(store, rotating(order(4, 1))).await;
    store.confirm(&rotates.id, 1).await.unwrap();
    let needs = store.step(&rotates.id, &rotates.service, of(1), None, budget, NOW);
    assert!(matches!(needs.await.unwrap(), Some(Opened::NeedsCode(_))));
    let code = Some(sealed_code(&rotates.id, WRONG));
    let with = store.step(&rotates.id, &rotates.service, of(1), code, budget, NOW);
    assert_eq!(sent(with.await.unwrap().unwrap()).verification.sends, 2);
}
