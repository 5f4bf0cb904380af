//! One suite for both stores of code state: the rules of the verifier, and a model that random
//! histories are held against.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::join_all;
use watchword_core::{
    Channel, CheckVerdict, GuessBudget, Policy, Purpose, ResendCode, ServiceName, SubjectTag,
    Timestamp, VerificationId, VerificationStatus,
};
use watchword_storage::{Redis, RedisSettings, Sqlite};
use watchword_tests::RedisServer;
use watchword_verifier::store::{
    CheckCommand, Checked, Digest, MIGRATION, OpenCommand, Opened, RedisVerifications, SealedCode,
    SlotKey, SqliteVerifications, StoreError, VerificationStore,
};

const T0: Timestamp = Timestamp::from_millis(1_900_000_000_000);
const RIGHT: &str = "a1";
const WRONG: &str = "b2";

/// A store of either kind with whatever it stands on.
struct World {
    /// Two instances over the same state.
    stores: [Arc<dyn VerificationStore>; 2],
    redis: Option<RedisServer>,
    _folder: Option<tempfile::TempDir>,
}

impl World {
    async fn redis() -> Self {
        watchword_tests::tls();
        let server = RedisServer::start().await;
        let mut stores: Vec<Arc<dyn VerificationStore>> = Vec::new();
        for _ in 0..2 {
            let mut settings = RedisSettings::new(watchword_core::SecretString::new(server.url()));
            settings.command_timeout_ms = 10_000;
            stores.push(Arc::new(RedisVerifications::new(
                Redis::connect(settings).await.unwrap(),
            )));
        }
        let stores = [stores[0].clone(), stores[1].clone()];
        Self {
            stores,
            redis: Some(server),
            _folder: None,
        }
    }

    #[expect(clippy::unused_async, reason = "the same shape as the other")]
    async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sqlite = Sqlite::open(&folder.path().join("state.db"), &[MIGRATION]).unwrap();
        let store = |sqlite: Sqlite| {
            Arc::new(SqliteVerifications::new(sqlite)) as Arc<dyn VerificationStore>
        };
        Self {
            stores: [store(sqlite.clone()), store(sqlite)],
            redis: None,
            _folder: Some(folder),
        }
    }

    fn store(&self) -> &dyn VerificationStore {
        self.stores[0].as_ref()
    }
}

fn service() -> ServiceName {
    "test".parse().unwrap()
}

static NEXT: AtomicU64 = AtomicU64::new(1);

/// An id that was not used before, of subject number `subject`.
fn fresh_id(subject: u8) -> VerificationId {
    let number = NEXT.fetch_add(1, Ordering::SeqCst);
    let letters: String = (0..16)
        .map(|place| char::from(b'a' + u8::try_from((number >> (4 * place)) & 15).unwrap()))
        .collect();
    format!("{}{letters}", SubjectTag::new([subject; 10]))
        .parse()
        .unwrap()
}

fn digest(text: &str) -> Digest {
    Digest {
        key_id: "d1".into(),
        hex: text.repeat(32),
    }
}

fn code(text: &str) -> SealedCode {
    SealedCode {
        digest: digest(text),
        sealed: format!("sealed-{text}"),
        sealing_key_id: "s1".into(),
    }
}

fn command(subject: u8, now: Timestamp) -> OpenCommand {
    OpenCommand {
        id: fresh_id(subject),
        service: service(),
        slot: SlotKey(format!("{subject:032x}")),
        channel: Channel::Sms,
        purpose: Purpose::login(),
        masked_to: "+49***78".into(),
        sealed_order: "sealed-order".into(),
        sealing_key_id: "s1".into(),
        code: code(RIGHT),
        policy: Policy::default(),
        budget: GuessBudget::default(),
        now,
    }
}

async fn open(store: &dyn VerificationStore, subject: u8, now: Timestamp) -> VerificationId {
    match store.open(command(subject, now)).await.unwrap() {
        Opened::Send(sent) => sent.verification.id,
        other => panic!("{other:?}"),
    }
}

fn check_command(id: &VerificationId, typed: &str, check_id: &str, now: Timestamp) -> CheckCommand {
    CheckCommand {
        id: id.clone(),
        service: service(),
        purpose: None,
        candidates: vec![
            Digest {
                key_id: "d0".into(),
                ..digest(&typed.chars().rev().collect::<String>())
            },
            digest(typed),
        ],
        check_id: check_id.parse().unwrap(),
        now,
    }
}

async fn check(
    store: &dyn VerificationStore,
    id: &VerificationId,
    typed: &str,
    now: Timestamp,
) -> CheckVerdict {
    let check_id = format!("c{}", NEXT.fetch_add(1, Ordering::SeqCst));
    store
        .check(
            check_command(id, typed, &check_id, now),
            GuessBudget::default(),
        )
        .await
        .unwrap()
        .verdict
}

async fn resend(
    store: &dyn VerificationStore,
    id: &VerificationId,
    next: Option<&str>,
    now: Timestamp,
) -> Option<Opened> {
    store
        .resend(id, &service(), next.map(code), GuessBudget::default(), now)
        .await
        .unwrap()
}

async fn status(
    store: &dyn VerificationStore,
    id: &VerificationId,
    now: Timestamp,
) -> Option<VerificationStatus> {
    store
        .get(id, &service(), now)
        .await
        .unwrap()
        .map(|stored| stored.status)
}

// ---- the rules

async fn the_right_code_is_approved_once(world: World) {
    let store = world.store();
    let id = open(store, 1, T0).await;
    assert_eq!(check(store, &id, WRONG, T0).await, CheckVerdict::Wrong);
    assert_eq!(check(store, &id, RIGHT, T0).await, CheckVerdict::Approved);
    assert_eq!(check(store, &id, RIGHT, T0).await, CheckVerdict::Refused);
    assert_eq!(
        status(store, &id, T0).await,
        Some(VerificationStatus::Approved)
    );
    // After its end nothing is left to check or to send.
    assert_eq!(resend(store, &id, None, T0.plus_millis(31_000)).await, None);
}

async fn a_code_dies_at_its_deadline_and_a_resend_does_not_lengthen_it(world: World) {
    let store = world.store();
    let id = open(store, 1, T0).await;
    store.confirm(&id, 1).await.unwrap();
    let sent = resend(store, &id, None, T0.plus_millis(30_000)).await;
    let Some(Opened::Send(sent)) = sent else {
        panic!("{sent:?}")
    };
    assert_eq!(sent.verification.expires_at, T0.plus_millis(300_000));
    assert_eq!(
        check(store, &id, RIGHT, T0.plus_millis(300_000)).await,
        CheckVerdict::Refused
    );
    assert_eq!(
        status(store, &id, T0.plus_millis(300_000)).await,
        Some(VerificationStatus::Expired)
    );
    assert_eq!(
        check(store, &id, RIGHT, T0.plus_millis(299_999)).await,
        CheckVerdict::Approved
    );
}

async fn five_wrong_codes_end_it_and_a_resend_gives_none_back(world: World) {
    let store = world.store();
    let id = open(store, 1, T0).await;
    store.confirm(&id, 1).await.unwrap();
    for _ in 0..3 {
        assert_eq!(check(store, &id, WRONG, T0).await, CheckVerdict::Wrong);
    }
    let later = T0.plus_millis(30_000);
    assert!(matches!(
        resend(store, &id, None, later).await,
        Some(Opened::Send(_))
    ));
    assert_eq!(check(store, &id, WRONG, later).await, CheckVerdict::Wrong);
    assert_eq!(
        check(store, &id, WRONG, later).await,
        CheckVerdict::LastWrong
    );
    assert_eq!(check(store, &id, RIGHT, later).await, CheckVerdict::Refused);
    assert_eq!(
        status(store, &id, later).await,
        Some(VerificationStatus::MaxAttemptsReached)
    );
}

async fn asking_again_continues_the_live_verification(world: World) {
    let store = world.store();
    let id = open(store, 1, T0).await;
    // Not confirmed: the same message again.
    let repeat = store.open(command(1, T0.plus_millis(10))).await.unwrap();
    let Opened::Send(repeat) = repeat else {
        panic!("{repeat:?}")
    };
    assert_eq!(
        (
            repeat.verification.id.clone(),
            repeat.verification.sends,
            repeat.is_new
        ),
        (id.clone(), 1, false)
    );
    assert_eq!(
        (repeat.sealed_code.as_str(), repeat.sealed_order.as_str()),
        ("sealed-a1", "sealed-order")
    );
    store.confirm(&id, 1).await.unwrap();
    assert!(
        matches!(store.open(command(1, T0.plus_millis(29_999))).await.unwrap(), Opened::Cooling(live) if live.id == id)
    );
    // After the cooldown it is a resend; after five of them there is none.
    let mut now = T0;
    for send in 2..=5 {
        now = now.plus_millis(30_000);
        let further = store.open(command(1, now)).await.unwrap();
        let Opened::Send(further) = further else {
            panic!("{further:?}")
        };
        assert_eq!(
            (further.verification.id.clone(), further.verification.sends),
            (id.clone(), send)
        );
        store.confirm(&id, send).await.unwrap();
    }
    let exhausted = store
        .open(command(1, now.plus_millis(30_000)))
        .await
        .unwrap();
    assert!(matches!(exhausted, Opened::Exhausted(live) if live.id == id));
    // A late confirmation of an earlier message is not the current one's.
    let other = open(store, 2, T0).await;
    store.confirm(&other, 1).await.unwrap();
    assert!(matches!(
        resend(store, &other, None, T0.plus_millis(30_000)).await,
        Some(Opened::Send(_))
    ));
    store.confirm(&other, 1).await.unwrap();
    let unconfirmed = resend(store, &other, None, T0.plus_millis(30_001)).await;
    assert!(matches!(unconfirmed, Some(Opened::Send(sent)) if sent.verification.sends == 2));
}

async fn a_rotated_code_kills_the_one_before(world: World) {
    let store = world.store();
    let mut first = command(1, T0);
    first.policy.resend = ResendCode::Rotate;
    let id = first.id.clone();
    store.open(first).await.unwrap();
    store.confirm(&id, 1).await.unwrap();
    let later = T0.plus_millis(30_000);
    assert!(
        matches!(resend(store, &id, None, later).await, Some(Opened::NeedsCode(live)) if live.sends == 1)
    );
    assert!(
        matches!(store.open(command(1, later)).await.unwrap(), Opened::NeedsCode(live) if live.id == id)
    );
    let sent = resend(store, &id, Some("c3"), later).await;
    assert!(
        matches!(sent, Some(Opened::Send(sent)) if sent.sealed_code == "sealed-c3" && sent.verification.sends == 2)
    );
    assert_eq!(check(store, &id, RIGHT, later).await, CheckVerdict::Wrong);
    assert_eq!(check(store, &id, "c3", later).await, CheckVerdict::Approved);
}

async fn a_repeated_check_gets_its_answer_and_counts_nothing(world: World) {
    let store = world.store();
    let id = open(store, 1, T0).await;
    let ask = |typed: &'static str, check_id: &'static str| {
        store.check(
            check_command(&id, typed, check_id, T0),
            GuessBudget::default(),
        )
    };
    let answer = |verdict, repeated| Checked { verdict, repeated };
    assert_eq!(
        ask(WRONG, "w").await.unwrap(),
        answer(CheckVerdict::Wrong, false)
    );
    for _ in 0..20 {
        assert_eq!(
            ask(WRONG, "w").await.unwrap(),
            answer(CheckVerdict::Wrong, true)
        );
    }
    // The same id with another code is no repeat, and no way to another try.
    assert_eq!(
        ask(RIGHT, "w").await.unwrap(),
        answer(CheckVerdict::Refused, false)
    );
    assert_eq!(
        ask(RIGHT, "r").await.unwrap(),
        answer(CheckVerdict::Approved, false)
    );
    assert_eq!(
        ask(RIGHT, "r").await.unwrap(),
        answer(CheckVerdict::Approved, true)
    );
    assert_eq!(
        ask(WRONG, "r").await.unwrap(),
        answer(CheckVerdict::Refused, false)
    );
    assert_eq!(
        ask(RIGHT, "r2").await.unwrap(),
        answer(CheckVerdict::Refused, false)
    );
}

async fn a_code_works_for_its_own_service_purpose_and_key(world: World) {
    let store = world.store();
    let id = open(store, 1, T0).await;
    let mut foreign = check_command(&id, RIGHT, "x1", T0);
    foreign.service = "other".parse().unwrap();
    assert_eq!(
        store
            .check(foreign, GuessBudget::default())
            .await
            .unwrap()
            .verdict,
        CheckVerdict::Refused
    );
    let mut other_purpose = check_command(&id, RIGHT, "x2", T0);
    other_purpose.purpose = Some("enrol".parse().unwrap());
    assert_eq!(
        store
            .check(other_purpose, GuessBudget::default())
            .await
            .unwrap()
            .verdict,
        CheckVerdict::Wrong
    );
    let mut other_key = check_command(&id, RIGHT, "x3", T0);
    other_key.candidates = vec![Digest {
        key_id: "d9".into(),
        ..digest(RIGHT)
    }];
    assert_eq!(
        store
            .check(other_key, GuessBudget::default())
            .await
            .unwrap()
            .verdict,
        CheckVerdict::Wrong
    );
    let mut own = check_command(&id, RIGHT, "x4", T0);
    own.purpose = Some(Purpose::login());
    assert_eq!(
        store
            .check(own, GuessBudget::default())
            .await
            .unwrap()
            .verdict,
        CheckVerdict::Approved
    );
    assert_eq!(
        store.get(&id, &"other".parse().unwrap(), T0).await.unwrap(),
        None
    );
    assert_eq!(
        store
            .cancel(&id, &"other".parse().unwrap(), T0)
            .await
            .unwrap(),
        None
    );
    assert_eq!(status(store, &fresh_id(1), T0).await, None);
}

async fn whoever_opens_again_and_again_stops_at_the_budget(world: World) {
    let store = world.store();
    let (mut now, mut compared, mut refused_opens) = (T0, 0, 0);
    // A day of an attacker: a new verification each 61 s, four guesses each.
    while now < T0.plus_millis(24 * 3_600_000 - 61_000) {
        match store.open(command(1, now)).await.unwrap() {
            Opened::Send(sent) => {
                for _ in 0..4 {
                    compared += u32::from(
                        check(store, &sent.verification.id, WRONG, now).await
                            != CheckVerdict::Refused,
                    );
                }
                store
                    .cancel(&sent.verification.id, &service(), now)
                    .await
                    .unwrap();
            }
            Opened::Locked(until) => {
                assert!(until > now);
                refused_opens += 1;
                // Nothing changes until then: skip ahead, but stay inside the day.
                now = until.minus_millis(61_000).max(now);
            }
            other => panic!("{other:?}"),
        }
        now = now.plus_millis(61_000);
    }
    assert_eq!(compared, 20, "20 a day");
    assert!(refused_opens > 0);
    // The right code clears the slate.
    let store = world.stores[1].as_ref();
    let id = open(store, 2, T0).await;
    for _ in 0..4 {
        check(store, &id, WRONG, T0).await;
    }
    assert_eq!(check(store, &id, RIGHT, T0).await, CheckVerdict::Approved);
    let id = open(store, 2, T0.plus_millis(1)).await;
    for _ in 0..4 {
        assert_eq!(
            check(store, &id, WRONG, T0.plus_millis(1)).await,
            CheckVerdict::Wrong
        );
    }
    // And forgetting does so without it.
    store
        .forget_guesses(SubjectTag::new([1; 10]))
        .await
        .unwrap();
    assert!(matches!(
        store.open(command(1, now)).await.unwrap(),
        Opened::Send(_)
    ));
}

async fn canceled_is_final_and_an_approval_is_remembered_for_its_slot(world: World) {
    let store = world.store();
    let id = open(store, 1, T0).await;
    let canceled = store.cancel(&id, &service(), T0).await.unwrap().unwrap();
    assert_eq!(canceled.status, VerificationStatus::Canceled);
    assert_eq!(check(store, &id, RIGHT, T0).await, CheckVerdict::Refused);
    let next = open(store, 1, T0.plus_millis(1)).await;
    assert_ne!(next, id);
    check(store, &next, RIGHT, T0.plus_millis(2)).await;
    let approved = store
        .cancel(&next, &service(), T0.plus_millis(3))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(approved.status, VerificationStatus::Approved);
    let third = store.open(command(1, T0.plus_millis(4))).await.unwrap();
    assert!(matches!(third, Opened::Send(sent) if sent.follows_approval && sent.is_new));
}

async fn a_thousand_right_checks_at_once_approve_once(world: World) {
    for round in 0..200_u16 {
        let id = open(
            world.store(),
            u8::try_from(round % 100).unwrap(),
            T0.plus_millis(u64::from(round)),
        )
        .await;
        let checks = (0..1_000).map(|number| {
            let command = check_command(
                &id,
                RIGHT,
                &format!("r{number}"),
                T0.plus_millis(u64::from(round)),
            );
            world.stores[number % 2].check(command, GuessBudget::default())
        });
        let approved = join_all(checks).await.into_iter().filter(|checked| {
            matches!(
                checked,
                Ok(Checked {
                    verdict: CheckVerdict::Approved,
                    repeated: false
                })
            )
        });
        assert_eq!(approved.count(), 1, "round {round}");
    }
}

async fn a_hundred_wrong_checks_at_once_compare_five(world: World) {
    for round in 0..20_u8 {
        let id = open(world.store(), round, T0).await;
        let checks = (0..101_usize).map(|number| {
            let typed = if number == 100 { RIGHT } else { WRONG };
            world.stores[number % 2].check(
                check_command(&id, typed, &format!("w{number}"), T0),
                GuessBudget::default(),
            )
        });
        let compared = join_all(checks).await.into_iter().filter(
            |checked| matches!(checked, Ok(checked) if checked.verdict != CheckVerdict::Refused),
        );
        assert!(compared.count() <= 5);
    }
}

/// One test a case and engine.
macro_rules! on_both {
    ($($case:ident),* $(,)?) => {
        mod redis { $(#[tokio::test] async fn $case() { super::$case(super::World::redis().await).await; })* }
        mod sqlite { $(#[tokio::test] async fn $case() { super::$case(super::World::sqlite().await).await; })* }
    };
}

on_both!(
    the_right_code_is_approved_once,
    a_code_dies_at_its_deadline_and_a_resend_does_not_lengthen_it,
    five_wrong_codes_end_it_and_a_resend_gives_none_back,
    asking_again_continues_the_live_verification,
    a_rotated_code_kills_the_one_before,
    a_repeated_check_gets_its_answer_and_counts_nothing,
    a_code_works_for_its_own_service_purpose_and_key,
    whoever_opens_again_and_again_stops_at_the_budget,
    canceled_is_final_and_an_approval_is_remembered_for_its_slot,
    a_thousand_right_checks_at_once_approve_once,
    a_hundred_wrong_checks_at_once_compare_five,
);

// ---- Redis alone

#[tokio::test]
async fn redis_keys_share_a_slot_expire_and_survive_a_script_flush() {
    let world = World::redis().await;
    let (store, redis) = (world.store(), world.redis.as_ref().unwrap());
    let id = open(store, 1, T0).await;
    redis.command(&["SCRIPT", "FLUSH"]).await;
    check(store, &id, WRONG, T0).await;
    let keys = redis.command(&["KEYS", "*"]).await;
    let names: Vec<_> = keys
        .lines()
        .filter(|line| line.starts_with("ww:"))
        .collect();
    assert_eq!(names.len(), 3, "{keys}");
    let mut slots = Vec::new();
    for name in &names {
        slots.push(redis.command(&["CLUSTER", "KEYSLOT", name]).await);
        let ttl = redis.command(&["PTTL", name]).await;
        assert!(
            ttl.trim().trim_start_matches(':').parse::<i64>().unwrap() > 0,
            "{name} has no time to live"
        );
    }
    assert!(slots.iter().all(|slot| *slot == slots[0]), "{slots:?}");
}

#[tokio::test]
async fn redis_foreign_values_are_an_error_and_no_panic() {
    let world = World::redis().await;
    let (store, redis) = (world.store(), world.redis.as_ref().unwrap());
    let id = open(store, 1, T0).await;
    let key = format!("ww:{{{}}}:v:{}", id.tag(), id.own());
    redis
        .command(&["HSET", &key, "st", "nonsense", "ex", "soon"])
        .await;
    let broken = store.get(&id, &service(), T0).await;
    assert_eq!(broken, Err(StoreError::Corrupt));
    redis.command(&["SET", &key, "text"]).await;
    assert!(matches!(
        store.get(&id, &service(), T0).await,
        Err(StoreError::Storage(_))
    ));
    let command = check_command(&id, RIGHT, "c", T0);
    assert!(store.check(command, GuessBudget::default()).await.is_err());
}

#[tokio::test]
async fn redis_keeps_a_verification_in_few_bytes() {
    let world = World::redis().await;
    let redis = world.redis.as_ref().unwrap();
    let before = used(redis).await;
    for subject in 0..250_u8 {
        open(world.store(), subject, T0).await;
    }
    let bytes = (used(redis).await - before) / 250;
    println!("{bytes} bytes a live verification");
    assert!(bytes < 1_400, "{bytes} bytes a live verification");
}

async fn used(redis: &RedisServer) -> i64 {
    let info = redis.command(&["INFO", "memory"]).await;
    info.lines()
        .find_map(|line| line.strip_prefix("used_memory_dataset:"))
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

// ---- random histories

/// A step of a history; small numbers so that steps meet.
#[derive(Debug, Clone)]
enum Step {
    Open { subject: u8, rotate: bool },
    Resend { of: usize, with_code: bool },
    Confirm { of: usize, send: u8 },
    Check { of: usize, right: bool, check: u8 },
    Cancel { of: usize },
    Get { of: usize },
    Wait { ms: i64 },
}

/// Runs `steps` on a store and writes every answer down. Ids are named by their order.
async fn history(store: &dyn VerificationStore, steps: &[Step], salt: u8) -> Vec<String> {
    let (mut now, mut ids, mut answers) = (T0, Vec::<VerificationId>::new(), Vec::new());
    let budget = GuessBudget {
        per_hour: 4,
        per_day: 6,
        in_a_row: 9,
    };
    for step in steps {
        let id = |of: &usize| ids.get(of % ids.len().max(1)).cloned();
        let answer = match step {
            // Inside the hour for which ended verifications are remembered: when exactly they are
            // forgotten afterwards is the store's own affair.
            Step::Wait { ms } if now.as_millis() + ms - T0.as_millis() > 3_500_000 => continue,
            Step::Wait { ms } => {
                now = Timestamp::from_millis(now.as_millis() + ms);
                String::new()
            }
            Step::Open { subject, rotate } => {
                let mut command = command(subject.wrapping_add(salt), now);
                command.budget = budget;
                command.policy.max_sends = 3;
                command.policy.resend = if *rotate {
                    ResendCode::Rotate
                } else {
                    ResendCode::Same
                };
                let opened = store.open(command).await;
                if let Ok(Opened::Send(sent)) = &opened
                    && sent.is_new
                {
                    ids.push(sent.verification.id.clone());
                }
                format!("{opened:?}")
            }
            Step::Resend { of, with_code } => match id(of) {
                Some(id) => format!(
                    "{:?}",
                    store
                        .resend(&id, &service(), with_code.then(|| code("c3")), budget, now)
                        .await
                ),
                None => continue,
            },
            Step::Confirm { of, send } => match id(of) {
                Some(id) => format!("{:?}", store.confirm(&id, *send).await),
                None => continue,
            },
            Step::Check { of, right, check } => match id(of) {
                Some(id) => {
                    let typed = if *right { RIGHT } else { WRONG };
                    format!(
                        "{:?}",
                        store
                            .check(check_command(&id, typed, &format!("k{check}"), now), budget)
                            .await
                    )
                }
                None => continue,
            },
            Step::Cancel { of } => match id(of) {
                Some(id) => format!("{:?}", store.cancel(&id, &service(), now).await),
                None => continue,
            },
            Step::Get { of } => match id(of) {
                Some(id) => format!("{:?}", store.get(&id, &service(), now).await),
                None => continue,
            },
        };
        answers.push(named(&answer, &ids));
    }
    answers
}

fn named(answer: &str, ids: &[VerificationId]) -> String {
    ids.iter()
        .enumerate()
        .fold(answer.to_owned(), |text, (number, id)| {
            text.replace(id.as_str(), &format!("#{number}"))
        })
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    use proptest::prelude::*;
    let step = prop_oneof![
        4 => (0_u8..2, any::<bool>()).prop_map(|(subject, rotate)| Step::Open { subject, rotate }),
        2 => (0_usize..6, any::<bool>()).prop_map(|(of, with_code)| Step::Resend { of, with_code }),
        3 => (0_usize..6, 1_u8..4).prop_map(|(of, send)| Step::Confirm { of, send }),
        6 => (0_usize..6, prop::bool::weighted(0.2), 0_u8..12).prop_map(|(of, right, check)| Step::Check { of, right, check }),
        1 => (0_usize..6).prop_map(|of| Step::Cancel { of }),
        2 => (0_usize..6).prop_map(|of| Step::Get { of }),
        4 => prop_oneof![Just(10_000), Just(30_000), Just(290_000), Just(-15_000), Just(1_800_000)].prop_map(|ms| Step::Wait { ms }),
    ];
    prop::collection::vec(step, 1..60)
}

/// Both stores give the same answers to the same history. The `SQLite` store runs core's state
/// machine, whose own properties are proven there; so the scripts are held to it.
#[tokio::test]
async fn both_stores_tell_the_same_history() {
    use proptest::strategy::{Strategy, ValueTree};
    use proptest::test_runner::{Config, TestRunner};
    let redis = World::redis().await;
    let mut runner = TestRunner::new(Config::default());
    for round in 0..300_u16 {
        let steps = steps().new_tree(&mut runner).unwrap().current();
        let salt = u8::try_from(round % 100).unwrap() * 2;
        let fresh = World::sqlite().await;
        let expected = history(fresh.store(), &steps, salt).await;
        redis.redis.as_ref().unwrap().command(&["FLUSHALL"]).await;
        let told = history(redis.store(), &steps, salt).await;
        assert_eq!(told, expected, "round {round}: {steps:#?}");
    }
}
