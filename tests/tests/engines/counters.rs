//! The conformance suite of both ledgers and both limiters.

use std::sync::Arc;

use futures_util::future::join_all;
use watchword_core::{
    AttemptClass, Channel, DeliveryId, DeliveryOutcome, ReceiptState, SecretString, SendLimits,
    ServiceName, SubjectTag, Timestamp, TraceId,
};
use watchword_issuer::limits::tally::Tally;
use watchword_issuer::limits::{
    Counter, Limit, Permit, Quota, RedisLimiter, Reservation, SendLimiter, SqliteLimiter,
};
use watchword_ledger::{
    Attempt, Claim, ClaimRequest, Fence, Heard, LedgerError, LedgerSettings, LedgerStore,
    ReceiptNote, RedisLedger, Settlement, SqliteLedger,
};
use watchword_storage::{Redis, RedisSettings, Sqlite, StorageError};
use watchword_tests::RedisServer;

const T0: Timestamp = Timestamp::from_millis(1_900_000_000_000);
const LEASE_MS: u64 = 20_000;

struct World {
    ledger: Arc<dyn LedgerStore>,
    limiter: Arc<dyn SendLimiter>,
    redis: Option<RedisServer>,
    sqlite: Option<Sqlite>,
    _folder: Option<tempfile::TempDir>,
}

impl World {
    async fn redis() -> Self {
        watchword_tests::tls();
        let server = RedisServer::start().await;
        let redis = Redis::connect(RedisSettings::new(SecretString::new(server.url())))
            .await
            .unwrap();
        Self {
            ledger: Arc::new(RedisLedger::new(
                redis.clone(),
                LedgerSettings {
                    retention_ms: 3_600_000,
                },
            )),
            limiter: Arc::new(RedisLimiter::new(redis)),
            redis: Some(server),
            sqlite: None,
            _folder: None,
        }
    }

    #[expect(clippy::unused_async, reason = "the same shape as the other")]
    async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [deliveries, names, anew] = watchword_ledger::MIGRATIONS;
        let [sent, counts] = watchword_issuer::limits::MIGRATIONS;
        let migrations = [deliveries, names, anew, sent, counts];
        let sqlite = Sqlite::open(&folder.path().join("state.db"), &migrations).unwrap();
        Self {
            ledger: Arc::new(SqliteLedger::new(
                sqlite.clone(),
                LedgerSettings {
                    retention_ms: 3_600_000,
                },
            )),
            limiter: Arc::new(SqliteLimiter::new(sqlite.clone())),
            redis: None,
            sqlite: Some(sqlite),
            _folder: Some(folder),
        }
    }

    async fn claim(&self, id: &DeliveryId, now: Timestamp) -> Claim {
        let request = ClaimRequest {
            id: id.clone(),
            channel: Channel::Sms,
            now,
            lease_ms: LEASE_MS,
            service: "jira".parse().unwrap(),
            trace_id: TraceId::new([7; 16]),
        };
        self.ledger.claim(request).await.unwrap()
    }

    async fn settle(
        &self,
        id: &DeliveryId,
        fence: Option<Fence>,
        outcome: DeliveryOutcome,
        now: Timestamp,
    ) -> Result<DeliveryOutcome, LedgerError> {
        let attempt = fence.map(|_| attempt(AttemptClass::Transient, now));
        let settlement = Settlement {
            id: id.clone(),
            channel: Channel::Sms,
            fence,
            attempt,
            outcome,
            now,
        };
        self.ledger
            .settle(settlement)
            .await
            .map(|record| record.outcome)
    }

    async fn reserve(&self, recipient: u8, send: u8, limits: SendLimits, now: Timestamp) -> Permit {
        self.reserve_waived(recipient, send, limits, now, false)
            .await
    }

    async fn reserve_waived(
        &self,
        recipient: u8,
        send: u8,
        limits: SendLimits,
        now: Timestamp,
        waived: bool,
    ) -> Permit {
        let reservation = Reservation {
            recipient: SubjectTag::new([recipient; 10]),
            delivery: delivery(send),
            names_subject: true,
            waive_cooldown: waived,
            limits,
            now,
        };
        self.limiter.reserve(reservation).await.unwrap()
    }
}

fn delivery(send: u8) -> DeliveryId {
    DeliveryId::new("a".repeat(32).parse().unwrap(), send)
}

fn attempt(class: AttemptClass, at: Timestamp) -> Attempt {
    Attempt {
        provider: Some("kannel".parse().unwrap()),
        class,
        provider_message_id: Some("id-1".into()),
        at_ms: at.as_millis(),
        took_ms: 12,
    }
}

fn fence(claim: &Claim) -> Fence {
    match claim {
        Claim::Yours { fence, .. } => *fence,
        other => panic!("{other:?}"),
    }
}

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

async fn a_recipient_has_a_cooldown_an_hour_and_a_day(world: World) {
    let limits = SendLimits {
        cooldown_ms: 30_000,
        per_hour: 3,
        per_day: 4,
        ..SendLimits::default()
    };
    let mut now = T0;
    assert_eq!(world.reserve(1, 1, limits, now).await, Permit::Granted);
    // A repeat of the same message is not counted again.
    assert_eq!(
        world.reserve(1, 1, limits, now.plus_millis(5)).await,
        Permit::Repeated
    );
    let (one, limiter) = (SubjectTag::new([1; 10]), &world.limiter);
    for (send, now, is_known) in [
        (1, now.plus_millis(5), true),
        (2, now.plus_millis(5), false),
        (1, now.plus_millis(24 * 3_600_000), false),
    ] {
        let known = limiter.is_reserved(one, &delivery(send), now).await;
        assert_eq!(known, Ok(is_known), "{send}");
    }
    let (nine, first) = (SubjectTag::new([9; 10]), delivery(1));
    assert_eq!(limiter.is_reserved(nine, &first, now).await, Ok(false));
    let early = world.reserve(1, 2, limits, now.plus_millis(29_999)).await;
    assert_eq!(
        early,
        Permit::Refused {
            until: now.plus_millis(30_000),
            limit: Limit::Cooldown
        }
    );
    assert_eq!(
        world.reserve(2, 2, limits, now).await,
        Permit::Granted,
        "another recipient"
    );
    assert_eq!(
        world
            .reserve_waived(1, 2, limits, now.plus_millis(10), true)
            .await,
        Permit::Granted
    );
    now = now.plus_millis(60_000);
    assert_eq!(world.reserve(1, 3, limits, now).await, Permit::Granted);
    let hour = world.reserve(1, 4, limits, now.plus_millis(60_000)).await;
    assert_eq!(
        hour,
        Permit::Refused {
            until: T0.plus_millis(3_600_000),
            limit: Limit::RecipientHour
        }
    );
    now = T0.plus_millis(3_700_000);
    assert_eq!(world.reserve(1, 4, limits, now).await, Permit::Granted);
    let day = world.reserve(1, 5, limits, now.plus_millis(60_000)).await;
    assert_eq!(
        day,
        Permit::Refused {
            until: T0.plus_millis(24 * 3_600_000),
            limit: Limit::RecipientDay
        }
    );
    assert_eq!(
        world
            .reserve(1, 5, limits, T0.plus_millis(24 * 3_600_000))
            .await,
        Permit::Granted
    );
}

async fn of_fifty_at_once_three_are_granted(world: World) {
    let limits = SendLimits {
        cooldown_ms: 0,
        per_hour: 3,
        per_day: 20,
        ..SendLimits::default()
    };
    let permits = join_all((1..=50).map(|send| world.reserve(1, send, limits, T0))).await;
    assert_eq!(
        permits
            .iter()
            .filter(|permit| **permit == Permit::Granted)
            .count(),
        3
    );
}

async fn a_service_has_its_minute(world: World) {
    let limits = SendLimits {
        service_per_minute: 5,
        ..SendLimits::default()
    };
    let admit = |name: &'static str, now: Timestamp| {
        let limiter = world.limiter.clone();
        async move {
            limiter
                .admit(&name.parse().unwrap(), limits, now)
                .await
                .unwrap()
        }
    };
    for _ in 0..5 {
        assert_eq!(admit("one", T0).await, Permit::Granted);
    }
    let Permit::Refused { until, limit } = admit("one", T0).await else {
        panic!("a sixth")
    };
    assert!(until > T0 && until <= T0.plus_millis(60_000));
    assert_eq!(limit, Limit::ServiceMinute);
    assert_eq!(admit("two", T0).await, Permit::Granted);
    assert_eq!(admit("one", until).await, Permit::Granted);
}

/// A slow clock counts in the minute of the faster one, and each request is counted once.
async fn a_clock_that_lags_counts_each_request_once(world: World) {
    let limits = SendLimits {
        service_per_minute: 640,
        ..SendLimits::default()
    };
    let service = "one".parse().unwrap();
    let mut granted = 0;
    for number in 0..700 {
        let now = if number == 0 {
            T0
        } else {
            T0.minus_millis(120_000)
        };
        let permit = world.limiter.admit(&service, limits, now).await.unwrap();
        granted += u32::from(permit == Permit::Granted);
    }
    assert_eq!(granted, 640);
}

/// A full minute further in the future was written by a clock that has been corrected since, and is
/// ignored.
async fn a_corrected_clock_leaves_no_full_minute(world: World) {
    let limits = SendLimits {
        service_per_minute: 2,
        ..SendLimits::default()
    };
    let service = "one".parse().unwrap();
    for (now, is_granted) in [
        (T0, true),
        (T0, true),
        (T0.minus_millis(120_000), false),
        (T0.minus_millis(180_000), true),
    ] {
        let permit = world.limiter.admit(&service, limits, now).await.unwrap();
        assert_eq!(permit == Permit::Granted, is_granted, "{now:?}");
    }
}

/// When an operator unlocks a recipient, only its messages are forgotten.
async fn a_recipient_that_is_forgotten_starts_again(world: World) {
    let limits = SendLimits {
        per_hour: 1,
        ..SendLimits::default()
    };
    for recipient in [1, 2] {
        let permit = world.reserve(recipient, 1, limits, T0).await;
        assert_eq!(permit, Permit::Granted);
    }
    let forgotten = world.limiter.forget_recipient(SubjectTag::new([1; 10]));
    forgotten.await.unwrap();
    let now = T0.plus_millis(1);
    let again = world.reserve(1, 2, limits, now).await;
    assert_eq!(again, Permit::Granted);
    let other = world.reserve(2, 2, limits, now).await;
    assert!(matches!(other, Permit::Refused { .. }), "{other:?}");
}

/// Every kind of counter adds up, expires after its window, and can be deleted alone.
async fn a_counter_adds_up_and_forgets(world: World) {
    let tag = |byte| SubjectTag::new([byte; 10]);
    let service: ServiceName = "one".parse().unwrap();
    let limiter = &world.limiter;
    for (counter, other) in [
        (Counter::Subject(tag(1)), Counter::Subject(tag(2))),
        (Counter::NumberBlock(tag(1)), Counter::Client(tag(1))),
        (Counter::Client(tag(3)), Counter::NumberBlock(tag(2))),
        (
            Counter::Country(service.clone(), Some("DE".to_owned())),
            Counter::Country(service.clone(), None),
        ),
        (
            Counter::Service(service.clone()),
            Counter::Service("two".parse().unwrap()),
        ),
    ] {
        let (span, part) = (counter.span(), counter.span().part(T0));
        let most = |tally: Tally, most, part| tally.full_until(0, most, span, part);
        limiter.count(&other, 9, T0).await.unwrap();
        limiter.count(&counter, 2, T0).await.unwrap();
        let later = span.end_of(part).minus_millis(1);
        let sum = limiter.count(&counter, 3, later).await.unwrap();
        let now = span.part(later);
        assert_eq!(most(sum, 6, now), None, "{counter}");
        assert_eq!(most(sum, 5, now), Some(span.end_of(part)), "{counter}");
        let rest = limiter.count(&counter, 0, span.end_of(part)).await.unwrap();
        assert_eq!(most(rest, 4, now + 1), None, "{counter}");
        assert_eq!(most(rest, 3, now + 1), Some(span.end_of(now)), "{counter}");
        let corrected = limiter.count(&counter, -1, later).await.unwrap();
        assert_eq!(most(corrected, 5, now), None, "{counter}");
        limiter.forget(&counter).await.unwrap();
        let none = limiter.count(&counter, 0, later).await.unwrap();
        assert_eq!(most(none, 1, now), None, "{counter}");
        let kept = limiter.count(&other, 0, T0).await.unwrap();
        assert!(most(kept, 9, part).is_some(), "{other}");
    }
}

/// Two processes together exceed a limit by less than one report, and learn of each other's
/// messages. A single process holds the limit exactly under concurrent requests.
async fn processes_share_a_counter(world: World) {
    let limits = SendLimits {
        number_block_per_hour: 80,
        ..SendLimits::default()
    };
    let counters = [Counter::NumberBlock(SubjectTag::new([1; 10]))];
    let alone = Quota::new(world.limiter.clone());
    let asks = (0..200).map(|_| alone.take(&counters, &limits, true, T0));
    let granted = |permits: Vec<Result<Permit, StorageError>>| {
        let granted = permits.into_iter().map(Result::unwrap);
        granted.filter(|permit| *permit == Permit::Granted).count()
    };
    assert_eq!(granted(join_all(asks).await), 80);
    world.limiter.forget(&counters[0]).await.unwrap();
    let two = [(); 2].map(|()| Quota::new(world.limiter.clone()));
    let mut sum = 0;
    for turn in 0..400 {
        let permit = two[turn % 2].take(&counters, &limits, true, T0).await;
        sum += granted(vec![permit]);
    }
    assert!((80..=90).contains(&sum), "{sum} of 80");
    // A process that refuses asks the store again, so it grants messages after an operator's
    // unlock.
    world.limiter.forget(&counters[0]).await.unwrap();
    let later = T0.plus_millis(5_000);
    let permit = two[0].take(&counters, &limits, true, later).await.unwrap();
    assert_eq!(permit, Permit::Granted);
}

/// Generates one test per case and engine.
macro_rules! on_both {
    ($($case:ident),* $(,)?) => {
        mod redis { $(#[tokio::test] async fn $case() { super::$case(super::World::redis().await).await; })* }
        mod sqlite { $(#[tokio::test] async fn $case() { super::$case(super::World::sqlite().await).await; })* }
    };
}

on_both!(
    a_delivery_has_one_holder_and_ends_once,
    receipts_move_forward_only,
    names_lead_to_deliveries_and_parked_ones_are_reopened,
    a_silent_holder_loses_its_claim_and_its_word,
    an_ending_without_a_claim_disturbs_no_holder,
    of_many_claims_at_once_one_wins,
    a_recipient_has_a_cooldown_an_hour_and_a_day,
    of_fifty_at_once_three_are_granted,
    a_service_has_its_minute,
    a_corrected_clock_leaves_no_full_minute,
    a_clock_that_lags_counts_each_request_once,
    a_recipient_that_is_forgotten_starts_again,
    a_counter_adds_up_and_forgets,
    processes_share_a_counter,
);

/// A report deletes expired parts of all counters, not only of its own.
#[tokio::test]
async fn parts_that_ended_are_deleted() {
    let world = World::sqlite().await;
    let service = Counter::Service("one".parse().unwrap());
    for (byte, hour) in [(1, 0), (2, 1), (3, 3)] {
        let now = T0.plus_millis(hour * 3_600_000);
        let counter = Counter::Subject(SubjectTag::new([byte; 10]));
        for counter in [&counter, &service] {
            world.limiter.count(counter, 1, now).await.unwrap();
        }
    }
    let rows = world.sqlite.as_ref().unwrap().read(|connection| {
        let sql = "SELECT count(*) FROM limits_count";
        connection.query_row(sql, [], |row| row.get::<_, u32>(0))
    });
    // The subject's counters, and two or three hours of the service in parts of four.
    assert!((2..=3).contains(&rows.await.unwrap()));
}

/// A reservation deletes all rows older than a day, of any recipient, and no others.
#[tokio::test]
async fn rows_of_a_day_ago_are_forgotten() {
    const HOUR_MS: u64 = 3_600_000;
    let world = World::sqlite().await;
    let limits = SendLimits::default();
    for (recipient, hour) in [(1, 0), (2, 2), (3, 25)] {
        let now = T0.plus_millis(hour * HOUR_MS);
        let permit = world.reserve(recipient, 1, limits, now).await;
        assert_eq!(permit, Permit::Granted);
    }
    let left = world.sqlite.as_ref().unwrap().read(|connection| {
        let sql = "SELECT recipient FROM limits_sent ORDER BY at_ms";
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        rows.collect::<Result<Vec<_>, _>>()
    });
    let tags = [2, 3].map(|tag| SubjectTag::new([tag; 10]).to_string());
    assert_eq!(left.await.unwrap(), tags);
}

#[tokio::test]
async fn every_key_expires() {
    let world = World::redis().await;
    world.claim(&delivery(1), T0).await;
    world.reserve(1, 1, SendLimits::default(), T0).await;
    world
        .limiter
        .admit(&"one".parse().unwrap(), SendLimits::default(), T0)
        .await
        .unwrap();
    let counter = Counter::Subject(SubjectTag::new([1; 10]));
    world.limiter.count(&counter, 1, T0).await.unwrap();
    let redis = world.redis.as_ref().unwrap();
    let keys = redis.command(&["KEYS", "*"]).await;
    let names: Vec<_> = keys
        .lines()
        .filter(|line| line.starts_with("ww:"))
        .collect();
    assert_eq!(names.len(), 4, "{keys}");
    for name in names {
        let ttl = redis.command(&["PTTL", name]).await;
        assert!(
            ttl.trim().trim_start_matches(':').parse::<i64>().unwrap() > 0,
            "{name} has no time to live"
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
