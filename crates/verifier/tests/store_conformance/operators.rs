//! The operator's view of verifications, and unlocks, without the service's key.

use std::collections::BTreeSet;

use watchword_core::{CheckVerdict, GuessBudget, Timestamp, VerificationId, VerificationStatus};
use watchword_verifier::store::Opened;

use crate::engine::Engine;
use crate::scene::{
    HOUR_MS, NOW, RIGHT, WRONG, check, opened, order, sent, service, short, slot, tag, verdict,
};

pub async fn an_operator_sees_any_services_verification(engine: &Engine) {
    let store = engine.store();
    let command = order(1, 1);
    let (recipient, owner) = (command.recipient, command.service.clone());
    let id = sent(store.open(command).await.unwrap()).verification.id;
    let seen = store.inspect(&id, NOW).await.unwrap().unwrap();
    assert_eq!(seen.verification.id, id);
    assert_eq!(seen.verification.service, owner);
    assert_eq!(seen.recipient, Some(recipient));
    assert_ne!(Some(short("another")), seen.recipient);
    assert!(!seen.confirmed);
    store.confirm(&id, 1).await.unwrap();
    assert!(store.inspect(&id, NOW).await.unwrap().unwrap().confirmed);
    let told = store.get(&id, &owner, NOW).await.unwrap();
    let seen = store.inspect(&id, NOW).await.unwrap().unwrap();
    assert_eq!(told, Some(seen.verification));
    assert_eq!(store.get(&id, &service("z"), NOW).await.unwrap(), None);

    // An ended verification keeps no recipient.
    store.cancel(&id, &owner, NOW).await.unwrap();
    let seen = store.inspect(&id, NOW).await.unwrap().unwrap();
    assert_eq!(seen.verification.status, VerificationStatus::Canceled);
    assert_eq!(seen.recipient, None);
    assert_eq!(
        store.inspect(&crate::scene::id(9, 9), NOW).await.unwrap(),
        None
    );
}

pub async fn a_message_that_a_limit_refused_names_the_limit(engine: &Engine) {
    let store = engine.store();
    let id = sent(store.open(order(1, 1)).await.unwrap()).verification.id;
    let refused_by = async || {
        let seen = store.inspect(&id, NOW).await.unwrap().unwrap();
        seen.refused_by
    };
    assert_eq!(refused_by().await, None);
    store.refuse(&id, 1, "client_per_hour").await.unwrap();
    assert_eq!(refused_by().await.as_deref(), Some("client_per_hour"));
    // Another request is refused by another limit, and the one after it is sent.
    store.refuse(&id, 1, "country_per_day").await.unwrap();
    assert_eq!(refused_by().await.as_deref(), Some("country_per_day"));
    let again = sent(store.open(order(1, 2)).await.unwrap());
    assert_eq!((again.verification.id, again.is_new), (id.clone(), false));
    store.confirm(&id, 1).await.unwrap();
    assert_eq!(refused_by().await, None);

    // The refusal of the first message says nothing about the second.
    let later = NOW.plus_millis(30_000);
    let mut further = order(1, 3);
    further.now = later;
    assert_eq!(
        sent(store.open(further).await.unwrap()).verification.sends,
        2
    );
    assert_eq!(refused_by().await, None);
    store.refuse(&id, 2, "recipient_per_hour").await.unwrap();
    assert_eq!(refused_by().await.as_deref(), Some("recipient_per_hour"));
    store.refuse(&scene_id(9), 1, "cooldown").await.unwrap();
    assert_eq!(store.inspect(&scene_id(9), NOW).await.unwrap(), None);
}

pub async fn a_message_sent_after_a_refusal_has_its_whole_time(engine: &Engine) {
    let store = engine.store();
    let first = order(1, 1);
    let code = first.code.clone();
    let id = sent(store.open(first).await.unwrap()).verification.id;
    let later = |number, ms| {
        let mut command = order(1, number);
        command.now = NOW.plus_millis(ms);
        command
    };
    store.refuse(&id, 1, "cooldown").await.unwrap();
    // The code of 300 s was refused, and is sent for the first time 270 s later.
    let again = sent(store.open(later(2, 270_000)).await.unwrap());
    let state = again.verification;
    assert_eq!((&state.id, state.sends, again.is_new), (&id, 1, false));
    assert_eq!(again.sealed_code, code.sealed);
    assert_eq!(state.opened_at, NOW.plus_millis(270_000));
    assert_eq!(state.expires_at, NOW.plus_millis(570_000));
    assert_eq!(state.resend_after, NOW.plus_millis(300_000));
    // A repeat of the same message begins nothing again.
    let repeat = sent(store.open(later(3, 280_000)).await.unwrap());
    assert_eq!(repeat.verification, state);
    assert!(store.confirm(&id, 1).await.unwrap());
    // A refused second message counts its cooldown again, and not the lifetime of the known code.
    sent(store.open(later(4, 300_000)).await.unwrap());
    store.refuse(&id, 2, "recipient_per_hour").await.unwrap();
    let second = sent(store.open(later(5, 400_000)).await.unwrap()).verification;
    assert_eq!((second.sends, second.expires_at), (2, state.expires_at));
    assert_eq!(second.resend_after, NOW.plus_millis(430_000));
    store.confirm(&id, 2).await.unwrap();
    store.refuse(&id, 2, "cooldown").await.unwrap();
    let cooling = store.open(later(6, 401_000)).await.unwrap();
    assert!(matches!(cooling, Opened::Cooling(_)), "{cooling:?}");
    let right = check(&id, RIGHT, "1", NOW.plus_millis(569_000));
    assert_eq!(verdict(store, right).await, CheckVerdict::Approved);
}

fn scene_id(number: u64) -> VerificationId {
    crate::scene::id(9, number)
}

pub async fn a_subjects_verifications_are_listed_and_no_others(engine: &Engine) {
    let store = engine.store();
    let mut expected = BTreeSet::new();
    for subject in 1..=7 {
        for number in 1..=3 {
            let mut command = order(subject, number);
            command.slot = slot(subject, &number.to_string());
            expected.insert(opened(store, command).await.id);
        }
    }
    let listed = async |subject: Option<u64>| {
        let (mut found, mut cursor) = (BTreeSet::new(), None);
        loop {
            let page = store.list(subject.map(tag), cursor, 2, NOW).await.unwrap();
            found.extend(page.0.into_iter().map(|one| one.verification.id));
            cursor = page.1;
            if cursor.is_none() {
                return found;
            }
        }
    };
    assert_eq!(listed(None).await, expected);
    let of_third: BTreeSet<VerificationId> = listed(Some(3)).await;
    let of_tag = |one: &&VerificationId| one.subject_tag() == tag(3);
    assert_eq!(of_third, expected.iter().filter(of_tag).cloned().collect());
    assert_eq!(of_third.len(), 3);
    assert!(listed(Some(8)).await.is_empty());
}

pub async fn an_unlock_says_whether_something_was_counted(engine: &Engine) {
    let store = engine.store();
    let id = opened(store, order(1, 1)).await.id;
    assert!(!store.forget_guesses(tag(1)).await.unwrap());
    verdict(store, check(&id, WRONG, "1", NOW)).await;
    assert!(!store.forget_guesses(tag(2)).await.unwrap());
    assert!(store.forget_guesses(tag(1)).await.unwrap());
    assert!(!store.forget_guesses(tag(1)).await.unwrap());
}

pub async fn an_operator_sees_until_when_a_subject_is_locked(engine: &Engine) {
    let store = engine.store();
    let budget = |per_hour, in_a_row| GuessBudget {
        per_hour,
        in_a_row,
        ..GuessBudget::default()
    };
    let until = async |budget, at| store.locked_until(tag(1), budget, at).await.unwrap();
    let id = opened(store, order(1, 1)).await.id;
    assert_eq!(until(budget(1, 100), NOW).await, None);
    verdict(store, check(&id, WRONG, "1", NOW)).await;
    verdict(store, check(&id, WRONG, "2", NOW)).await;
    let end = NOW.plus_millis(HOUR_MS);
    assert_eq!(until(budget(2, 100), NOW).await, Some(end));
    assert_eq!(until(budget(2, 100), end).await, None);
    assert_eq!(until(budget(3, 100), NOW).await, None);
    let forever = Timestamp::from_millis(i64::MAX);
    assert_eq!(until(budget(3, 2), NOW).await, Some(forever));
    store.forget_guesses(tag(1)).await.unwrap();
    assert_eq!(until(budget(2, 2), NOW).await, None);
}
