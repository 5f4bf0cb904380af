//! Repeated requests that differ: other variables open another verification; another locale or
//! fallback gives the same verification another order.

use futures_util::future::join_all;
use watchword_core::{CheckVerdict, VerificationStatus as Status};
use watchword_verifier::store::{OpenCommand, Opened, StepOf};

use crate::engine::Engine;
use crate::scene::{
    NOW, RIGHT, WRONG, check, opened, order, rotating, sealed_code, seen, sent, short, verdict,
};

/// The first message lets the caller pay `amount`; only its own code is right for it.
fn pays(amount: &str, number: u64) -> OpenCommand {
    let base = order(1, number);
    let code = if number == 1 { RIGHT } else { WRONG };
    OpenCommand {
        variables: Some(short(amount)),
        code: sealed_code(&base.id, code),
        ..base
    }
}

pub async fn other_content_withdraws_in_the_step_that_opens(engine: &Engine) {
    let store = engine.store();
    let first = opened(store, pays("1", 1)).await;
    for other in [pays("9999", 2), order(1, 2)] {
        let asked = store.open(other).await.unwrap();
        assert_eq!(
            asked,
            Opened::OtherContent(first.clone()),
            "nothing changed"
        );
    }
    assert_eq!(seen(store, &first.id, NOW).await, Some(first.clone()));
    // The request names a verification that is not the live one, which has the same result as
    // naming none.
    let stale = OpenCommand {
        over: Some(order(1, 77).id),
        ..pays("9999", 2)
    };
    assert_eq!(
        store.open(stale).await.unwrap(),
        Opened::OtherContent(first.clone())
    );

    let over = OpenCommand {
        over: Some(first.id.clone()),
        ..pays("9999", 2)
    };
    let second = sent(store.open(over).await.unwrap());
    assert!(second.is_new && second.withdrew && !second.follows_approval);
    assert_eq!(second.verification.sends, 1);
    let before = seen(store, &first.id, NOW).await.unwrap();
    assert_eq!(before.status, Status::Canceled);
    let old = check(&first.id, RIGHT, "old", NOW);
    assert_eq!(verdict(store, old).await, CheckVerdict::Refused);
    let crossed = check(&second.verification.id, RIGHT, "crossed", NOW);
    assert_eq!(verdict(store, crossed).await, CheckVerdict::Wrong);
    let own = check(&second.verification.id, WRONG, "own", NOW);
    assert_eq!(verdict(store, own).await, CheckVerdict::Approved);

    // The same content continues the live verification, even if the request names it.
    let third = opened(store, pays("5", 3)).await;
    let same = OpenCommand {
        over: Some(third.id.clone()),
        ..pays("5", 4)
    };
    assert_eq!(store.open(same).await.unwrap(), Opened::Cooling(third));
}

pub async fn other_details_replace_the_order_and_void_its_steps(engine: &Engine) {
    let store = engine.store();
    let with = |number, text: &str| OpenCommand {
        details: Some(short(text)),
        sealed_order: format!("{text}{text}"),
        steps: 1,
        ..order(1, number)
    };
    let live = opened(store, with(1, "dede")).await;
    assert!(live.awaits_step);
    let other = store.open(with(2, "frfr")).await.unwrap();
    assert_eq!(other, Opened::OtherDetails(live.clone()));
    let over = OpenCommand {
        over: Some(live.id.clone()),
        ..with(2, "frfr")
    };
    let changed = store.open(over.clone()).await.unwrap();
    assert_eq!(changed, Opened::Cooling(live.clone()), "nothing is sent");
    let again = store.open(with(3, "frfr")).await.unwrap();
    assert_eq!(again, Opened::Cooling(live.clone()), "it has them now");

    let budget = order(1, 1).budget;
    let step = async |text: &str| {
        let of = StepOf {
            after: 1,
            details: Some(short(text)),
        };
        let asked = store.step(&live.id, &live.service, of, None, budget, NOW);
        asked.await.unwrap()
    };
    assert_eq!(step("dede").await, None, "the fallback was replaced");
    let taken = sent(step("frfr").await.unwrap());
    assert_eq!(taken.sealed_order, "frfrfrfr");
    assert!(!taken.verification.awaits_step, "it was the last step");
    store.confirm(&live.id, 2).await.unwrap();

    // A further message uses the order of its request and starts that order's fallback.
    let due = NOW.plus_millis(30_000);
    let over = OpenCommand {
        over: Some(live.id.clone()),
        now: due,
        ..with(4, "eses")
    };
    let third = sent(store.open(over).await.unwrap());
    assert_eq!(third.sealed_order, "eseseses");
    assert_eq!((third.verification.sends, third.is_new), (3, false));
    assert!(third.verification.awaits_step);
    store.confirm(&live.id, 3).await.unwrap();
    // A request without a change ends the fallback.
    let later = due.plus_millis(30_000);
    let plain = store.resend(&live.id, &live.service, None, 0, budget, later);
    let fourth = sent(plain.await.unwrap().unwrap());
    assert!(!fourth.verification.awaits_step);

    // If the policy rotates codes, the order is replaced and a code is requested.
    let rotates = opened(store, rotating(order(2, 1))).await;
    let over = OpenCommand {
        over: Some(rotates.id.clone()),
        details: Some(short("x")),
        sealed_order: "AAAA".to_owned(),
        now: due,
        ..rotating(order(2, 2))
    };
    let asked = store.open(over).await.unwrap();
    assert!(matches!(asked, Opened::NeedsCode(needs) if needs.sealed_order == "AAAA"));
    // With that code the message starts the steps of its fallback.
    let next = Some(sealed_code(&rotates.id, RIGHT));
    let renewed = store.resend(&rotates.id, &rotates.service, next, 2, budget, due);
    let renewed = sent(renewed.await.unwrap().unwrap());
    assert!(renewed.verification.awaits_step);
    store.confirm(&rotates.id, 2).await.unwrap();
    let next = Some(sealed_code(&rotates.id, RIGHT));
    let last = store.resend(&rotates.id, &rotates.service, next, 0, budget, later);
    assert!(!sent(last.await.unwrap().unwrap()).verification.awaits_step);
}

pub async fn a_crowd_of_two_contents_leaves_one_alive(engine: &Engine) {
    for round in 0..10 {
        let base = |number| OpenCommand {
            slot: crate::scene::slot(round, "login"),
            ..order(round, number)
        };
        let first = opened(engine.store(), base(0)).await;
        let answers = join_all((1..40_u64).map(|n| {
            let command = OpenCommand {
                variables: Some(short(&format!("{}", n % 2))),
                over: Some(first.id.clone()),
                ..base(n)
            };
            engine.any(usize::try_from(n).unwrap()).open(command)
        }));
        let mut new = Vec::new();
        for answer in answers.await {
            match answer.unwrap() {
                Opened::Send(sent) if sent.is_new => new.push(sent),
                Opened::Send(_) | Opened::OtherContent(_) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(new.len(), 1, "round {round}");
        assert!(new[0].withdrew);
    }
}

pub async fn what_has_ended_is_not_marked_as_confirmed(engine: &Engine) {
    let store = engine.store();
    let live = sent(store.open(order(1, 1)).await.unwrap()).verification;
    store.cancel(&live.id, &live.service, NOW).await.unwrap();
    store.confirm(&live.id, 1).await.unwrap();
    let (page, _) = store.sends(None, 10).await.unwrap();
    assert_eq!((page.len(), page[0].confirmed), (1, false));
    // A person may be quicker than the confirm.
    let quick = sent(store.open(order(2, 2)).await.unwrap()).verification.id;
    let right = check(&quick, RIGHT, "1", NOW);
    assert_eq!(verdict(store, right).await, CheckVerdict::Approved);
    assert!(store.confirm(&quick, 1).await.unwrap());
    assert!(!store.confirm(&quick, 1).await.unwrap());
}
