//! The conformance suite of both ledgers and both limiters.

/// Generates one test per case and engine.
macro_rules! on_both {
    ($($case:ident),* $(,)?) => {
        mod redis { $(#[tokio::test] async fn $case() { super::$case(super::World::redis().await).await; })* }
        mod sqlite { $(#[tokio::test] async fn $case() { super::$case(super::World::sqlite().await).await; })* }
    };
}

mod ledger;
mod lifetime;
mod limits;

use std::sync::Arc;

use watchword_core::{
    AttemptClass, Channel, DeliveryId, DeliveryOutcome, SecretString, SendLimits, SubjectTag,
    Timestamp, TraceId,
};
use watchword_issuer::limits::{Permit, RedisLimiter, Reservation, SendLimiter, SqliteLimiter};
use watchword_ledger::{
    Attempt, Claim, ClaimRequest, Fence, LedgerError, LedgerSettings, LedgerStore, RedisLedger,
    Settlement, SqliteLedger,
};
use watchword_storage::{Redis, RedisSettings, Sqlite};
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
