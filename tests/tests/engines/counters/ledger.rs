//! The ledger: claims, attempts, outcomes and receipts of deliveries.

use futures_util::future::join_all;
use watchword_core::{AttemptClass, Channel, DeliveryOutcome, ReceiptState, TraceId};
use watchword_ledger::{
    Attempt, Claim, ClaimRequest, Heard, LedgerError, LedgerSettings, LedgerStore, ReceiptNote,
    Settlement, SqliteLedger,
};
use watchword_storage::Sqlite;

use super::{LEASE_MS, T0, World, attempt, delivery, fence};

async fn a_delivery_has_one_holder_and_ends_once(world: World) {
    let id = delivery(1);
    let mine = fence(&world.claim(&id, T0).await);
    assert_eq!(
        world.claim(&id, T0.plus_millis(1)).await,
        Claim::Held {
            until: T0.plus_millis(LEASE_MS)
        }
    );
    world
        .settle(&id, Some(mine), DeliveryOutcome::Queued, T0.plus_millis(2))
        .await
        .unwrap();
    let again = world.claim(&id, T0.plus_millis(3)).await;
    assert!(
        matches!(
            &again,
            Claim::Yours {
                record,
                after_crash: false,
                ..
            } if record.attempt_count == 1
        ),
        "{again:?}"
    );
    world
        .settle(
            &id,
            Some(fence(&again)),
            DeliveryOutcome::Accepted,
            T0.plus_millis(4),
        )
        .await
        .unwrap();
    let ended = world.claim(&id, T0.plus_millis(5)).await;
    let Claim::Ended(record) = ended else {
        panic!("{ended:?}")
    };
    assert_eq!(
        (record.outcome, record.attempt_count, record.attempts.len()),
        (DeliveryOutcome::Accepted, 2, 2)
    );
    assert_eq!(
        record.attempts[0].provider_message_id.as_deref(),
        Some("id-1")
    );
    let records = world.ledger.get(&[delivery(2), id.clone()]).await.unwrap();
    assert_eq!(records, [record]);
}

/// A receipt only moves a delivery forward, counts only from a provider that was asked, and is
/// retried if it arrives before the attempt is recorded.
async fn receipts_move_forward_only(world: World) {
    let id = delivery(1);
    let hear = |provider: &str, message_id: Option<&str>, state| {
        let note = ReceiptNote {
            id: id.clone(),
            provider: provider.parse().unwrap(),
            message_id: message_id.map(str::to_owned),
            state,
            now: T0.plus_millis(100),
        };
        let ledger = world.ledger.clone();
        async move {
            match ledger.receipt(note).await.unwrap() {
                Heard::Counted(record) => format!("counted {}", record.outcome),
                heard => format!("{heard:?}").to_lowercase(),
            }
        }
    };
    let delivered = ReceiptState::Delivered;
    assert_eq!(hear("gateway", None, delivered).await, "unknown");
    let claim = world.claim(&id, T0).await;
    assert_eq!(hear("gateway", None, delivered).await, "early");
    let settle = |claim: &Claim, provider: &str, class, outcome| Settlement {
        id: id.clone(),
        channel: Channel::Sms,
        fence: Some(fence(claim)),
        attempt: Some(Attempt {
            provider: Some(provider.parse().unwrap()),
            provider_message_id: (class == AttemptClass::Accepted).then(|| "m-1".to_owned()),
            ..attempt(class, T0)
        }),
        outcome,
        now: T0,
    };
    // The first provider did not answer, the second accepted the message.
    let lost = settle(
        &claim,
        "silent",
        AttemptClass::UnknownOutcome,
        DeliveryOutcome::Queued,
    );
    world.ledger.settle(lost).await.unwrap();
    assert_eq!(hear("gateway", None, delivered).await, "early");
    let claim = world.claim(&id, T0).await;
    let taken = settle(
        &claim,
        "gateway",
        AttemptClass::Accepted,
        DeliveryOutcome::Accepted,
    );
    world.ledger.settle(taken).await.unwrap();
    let steps = [
        // Receipts of a provider that was not asked, about another message id, and from a provider
        // that did not accept the message.
        ("nobody", None, delivered, "unknown"),
        ("gateway", Some("m-2"), delivered, "unknown"),
        ("silent", None, ReceiptState::Failed, "repeated"),
        (
            "gateway",
            Some("m-1"),
            ReceiptState::InFlight,
            "counted accepted",
        ),
        ("gateway", Some("m-1"), ReceiptState::InFlight, "repeated"),
        ("gateway", None, ReceiptState::Expired, "counted failed"),
        ("gateway", None, ReceiptState::InFlight, "repeated"),
        ("gateway", None, ReceiptState::Failed, "repeated"),
        // The first provider delivered after all; a later failure does not undo that.
        ("silent", None, delivered, "counted delivered"),
        ("gateway", None, ReceiptState::Failed, "repeated"),
        ("gateway", None, delivered, "repeated"),
    ];
    for (step, (provider, message_id, state, heard)) in steps.into_iter().enumerate() {
        assert_eq!(
            hear(provider, message_id, state).await,
            heard,
            "step {step}"
        );
    }
    let records = world.ledger.get(std::slice::from_ref(&id)).await.unwrap();
    let record = &records[0];
    assert_eq!(record.receipt.unwrap().state, delivered);
    assert_eq!(record.trace_id, TraceId::new([7; 16]));
    assert_eq!(record.service.as_ref().unwrap().as_str(), "jira");
    assert!(matches!(world.claim(&id, T0).await, Claim::Ended(_)));
}

async fn names_lead_to_deliveries_and_parked_ones_are_reopened(world: World) {
    let (id, provider) = (delivery(1), "gateway".parse().unwrap());
    let ledger = &world.ledger;
    assert_eq!(ledger.named(&provider, "m:{1}").await.unwrap(), None);
    ledger.name(&provider, "m:{1}", &id, T0).await.unwrap();
    assert_eq!(
        ledger.named(&provider, "m:{1}").await.unwrap(),
        Some(id.clone())
    );
    assert_eq!(
        ledger
            .named(&"other".parse().unwrap(), "m:{1}")
            .await
            .unwrap(),
        None
    );

    assert!(!ledger.reopen(&id, T0).await.unwrap());
    world
        .settle(&id, None, DeliveryOutcome::Parked, T0)
        .await
        .unwrap();
    assert!(matches!(world.claim(&id, T0).await, Claim::Ended(_)));
    assert!(ledger.reopen(&id, T0).await.unwrap());
    assert!(!ledger.reopen(&id, T0).await.unwrap());
    assert!(matches!(world.claim(&id, T0).await, Claim::Yours { .. }));
}

async fn a_silent_holder_loses_its_claim_and_its_word(world: World) {
    let id = delivery(1);
    let lost = fence(&world.claim(&id, T0).await);
    let later = T0.plus_millis(LEASE_MS);
    let taken = world.claim(&id, later).await;
    assert!(
        matches!(
            &taken,
            Claim::Yours {
                record,
                after_crash: true,
                ..
            } if record.attempt_count == 1
        ),
        "{taken:?}"
    );
    let late = world
        .settle(&id, Some(lost), DeliveryOutcome::Accepted, later)
        .await;
    assert_eq!(late, Err(LedgerError::FenceLost));
    world
        .settle(&id, Some(fence(&taken)), DeliveryOutcome::Accepted, later)
        .await
        .unwrap();
    let records = world.ledger.get(std::slice::from_ref(&id)).await.unwrap();
    assert_eq!(records[0].attempts[0].class, AttemptClass::UnknownOutcome);
    assert_eq!(records[0].attempts[0].provider, None);
}

async fn an_ending_without_a_claim_disturbs_no_holder(world: World) {
    let (free, held) = (delivery(1), delivery(2));
    assert_eq!(
        world
            .settle(&free, None, DeliveryOutcome::Expired, T0)
            .await,
        Ok(DeliveryOutcome::Expired)
    );
    assert!(matches!(world.claim(&free, T0).await, Claim::Ended(_)));
    let mine = fence(&world.claim(&held, T0).await);
    assert_eq!(
        world
            .settle(&held, None, DeliveryOutcome::Expired, T0)
            .await,
        Ok(DeliveryOutcome::Sending)
    );
    world
        .settle(&held, Some(mine), DeliveryOutcome::Accepted, T0)
        .await
        .unwrap();
    assert_eq!(
        world
            .settle(&held, None, DeliveryOutcome::Expired, T0)
            .await,
        Ok(DeliveryOutcome::Accepted)
    );
}

async fn of_many_claims_at_once_one_wins(world: World) {
    for send in 1..=100 {
        let id = delivery(send);
        let claims = join_all((0..8).map(|_| world.claim(&id, T0))).await;
        assert_eq!(
            claims
                .iter()
                .filter(|claim| matches!(claim, Claim::Yours { .. }))
                .count(),
            1
        );
    }
}

/// A delivery in a file of an earlier build is readable after each schema migration.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_outlives_each_change_of_the_schema() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    for age in 1..=watchword_ledger::MIGRATIONS.len() {
        let id = delivery(u8::try_from(age).unwrap());
        let mut seen = Vec::new();
        for migrations in [
            &watchword_ledger::MIGRATIONS[..age],
            &watchword_ledger::MIGRATIONS,
        ] {
            let file = Sqlite::open(&path, migrations).unwrap();
            let settings = LedgerSettings {
                retention_ms: 3_600_000,
            };
            let request = ClaimRequest {
                id: id.clone(),
                channel: Channel::Sms,
                now: T0,
                lease_ms: LEASE_MS,
                service: "jira".parse().unwrap(),
                trace_id: None,
            };
            let ledger = SqliteLedger::new(file.clone(), settings);
            seen.push(ledger.claim(request).await.unwrap());
            drop(ledger);
            file.close().await;
        }
        assert!(
            matches!(seen[..], [Claim::Yours { .. }, Claim::Held { .. }]),
            "{age}: {seen:?}"
        );
    }
}

on_both!(
    a_delivery_has_one_holder_and_ends_once,
    receipts_move_forward_only,
    names_lead_to_deliveries_and_parked_ones_are_reopened,
    a_silent_holder_loses_its_claim_and_its_word,
    an_ending_without_a_claim_disturbs_no_holder,
    of_many_claims_at_once_one_wins,
);
