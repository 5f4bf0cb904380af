//! Many concurrent callers on two stores: no interleaving grants more than sequential calls would.

use futures_util::future::join_all;
use watchword_core::{CheckVerdict, VerificationStatus as Status};
use watchword_verifier::store::Opened;

use crate::engine::Engine;
use crate::scene::{NOW, RIGHT, WRONG, check, opened, order, seen, verdict};

/// Number of races, and of callers in each.
const ROUNDS: u64 = 200;
const CALLERS: usize = 1_000;

pub async fn a_hundred_guesses_compare_five(engine: &Engine) {
    for round in 0..20 {
        let id = opened(engine.store(), order(round, 1)).await.id;
        let place = usize::try_from(round * 5).unwrap();
        let verdicts = join_all((0..=100).map(|n| {
            let code = if n == place { RIGHT } else { WRONG };
            verdict(engine.any(n), check(&id, code, &n.to_string(), NOW))
        }))
        .await;
        let count = |verdict| verdicts.iter().filter(|&&got| got == verdict).count();
        let approved = count(CheckVerdict::Approved);
        let wrong = count(CheckVerdict::Wrong) + count(CheckVerdict::LastWrong);
        assert!(approved + wrong <= 5, "round {round}: {approved} + {wrong}");
        assert!(approved == 1 || wrong == 5, "someone was compared");
    }
}

pub async fn a_thousand_right_codes_approve_once(engine: &Engine) {
    for round in 0..ROUNDS {
        let id = opened(engine.store(), order(round, 1)).await.id;
        let verdicts = join_all(
            (0..CALLERS).map(|n| verdict(engine.any(n), check(&id, RIGHT, &n.to_string(), NOW))),
        )
        .await;
        let count = |verdict| verdicts.iter().filter(|&&got| got == verdict).count();
        assert_eq!(count(CheckVerdict::Approved), 1, "round {round}");
        assert_eq!(count(CheckVerdict::Refused), CALLERS - 1);
        let state = seen(engine.store(), &id, NOW).await.unwrap();
        assert_eq!(state.status, Status::Approved);
    }
}

pub async fn a_crowd_opens_one_verification(engine: &Engine) {
    for round in 0..20 {
        let answers = join_all((0..100_u64).map(|n| {
            let store = engine.any(usize::try_from(n).unwrap());
            store.open(order(round, n))
        }))
        .await;
        let mut ids = Vec::new();
        let mut new = 0;
        for answer in answers {
            let Opened::Send(sent) = answer.unwrap() else {
                panic!("nothing was confirmed yet")
            };
            new += usize::from(sent.is_new);
            assert_eq!(sent.verification.sends, 1);
            ids.push(sent.verification.id);
        }
        ids.dedup();
        assert_eq!((new, ids.len()), (1, 1), "round {round}");
    }
}
