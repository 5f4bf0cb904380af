//! Requests and fallback steps over the embedded stores.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use serde_json::json;
use watchword_chassis::config::{GuessesConfig, LimitsConfig, PolicyConfig, ServiceConfig};
use watchword_chassis::{ProblemCode, Services, SystemEntropy};
use watchword_core::{Channel, Key, KeyRing, ManualClock, ResendCode, SendLimits};
use watchword_events::CloudEvent;
use watchword_ledger::{LedgerSettings, SqliteLedger};
use watchword_metrics::prometheus::Registry;
use watchword_storage::{Sqlite, StorageError};
use watchword_verifier::store::{MachineClocks, SqliteVerifications, SteadyClock};
use watchword_verifier::{Index, OpenRequest, Verifier, VerifierMetrics, VerifierParts};

use super::*;
use crate::limits::tally::Tally;
use crate::limits::{Counter, Permit, Reservation, SqliteLimiter};
use crate::message_check::Unsendable;

/// A publisher that keeps the published messages.
#[derive(Default)]
struct Queue(Mutex<Vec<Outbound>>);

#[async_trait]
impl Publisher for Queue {
    async fn publish(&self, message: Outbound, _: Duration) -> Result<(), PublishError> {
        self.0.lock().unwrap().push(message);
        Ok(())
    }

    fn state(&self) -> LinkState {
        LinkState::Up
    }
}

/// A limiter whose reservations advance the clock by `reserve_ms`.
struct Slow {
    limiter: SqliteLimiter,
    clock: Arc<ManualClock>,
    reserve_ms: Arc<AtomicI64>,
}

#[async_trait]
impl SendLimiter for Slow {
    async fn admit(
        &self,
        service: &ServiceName,
        limits: SendLimits,
        now: Timestamp,
    ) -> Result<Permit, StorageError> {
        self.limiter.admit(service, limits, now).await
    }

    async fn reserve(&self, reservation: Reservation) -> Result<Permit, StorageError> {
        let reserve_ms = self.reserve_ms.load(Ordering::Relaxed);
        self.clock.advance_millis(reserve_ms);
        self.limiter.reserve(reservation).await
    }

    async fn is_reserved(
        &self,
        recipient: SubjectTag,
        delivery: &DeliveryId,
        now: Timestamp,
    ) -> Result<bool, StorageError> {
        self.limiter.is_reserved(recipient, delivery, now).await
    }

    async fn forget_recipient(&self, recipient: SubjectTag) -> Result<bool, StorageError> {
        self.limiter.forget_recipient(recipient).await
    }

    async fn count(
        &self,
        counter: &Counter,
        messages: i32,
        now: Timestamp,
    ) -> Result<Tally, StorageError> {
        self.limiter.count(counter, messages, now).await
    }

    async fn forget(&self, counter: &Counter) -> Result<bool, StorageError> {
        self.limiter.forget(counter).await
    }
}

struct EveryMessage;

impl MessageCheck for EveryMessage {
    fn check(&self, _: &Service, _: Channel, _: &OpenRequest) -> Result<(), Unsendable> {
        Ok(())
    }
}

struct World {
    issuer: Issuer,
    queue: Arc<Queue>,
    clock: Arc<ManualClock>,
    reserve_ms: Arc<AtomicI64>,
    service: Service,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let migrations = [
            &watchword_ledger::MIGRATIONS[..],
            &watchword_verifier::store::MIGRATIONS,
            &crate::limits::MIGRATIONS,
        ]
        .concat();
        let sqlite = Sqlite::open(&folder.path().join("test.db"), &migrations).unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_800_000_000_000)));
        let (registry, queue) = (Registry::new(), Arc::new(Queue::default()));
        let key = |id: &str| Key::new(id.parse().unwrap(), [7; 32]);
        let keys = KeyRing::new(vec![key("k1")]).unwrap();
        let sealer = Live::new(Sealer::new(keys.clone(), Arc::new(SystemEntropy)));
        let machine = MachineClocks {
            wall: clock.clone(),
            uptime: clock.clone(),
            boot: None,
        };
        let steady = SteadyClock::load(&sqlite, machine).await.unwrap();
        let verifier = Verifier::new(VerifierParts {
            store: Arc::new(SqliteVerifications::new(sqlite.clone(), steady)),
            index: Index::new(key("i1")),
            digest_keys: Live::new(keys),
            clock: clock.clone(),
            entropy: Arc::new(SystemEntropy),
            metrics: VerifierMetrics::register(&registry).unwrap(),
        });
        let reserve_ms = Arc::new(AtomicI64::new(0));
        let settings = LedgerSettings {
            retention_ms: 3_600_000,
        };
        let issuer = Issuer::new(IssuerParts {
            opener: Arc::new(Opener::new(Arc::new(verifier), sealer.clone())),
            limiter: Arc::new(Slow {
                limiter: SqliteLimiter::new(sqlite.clone()),
                clock: clock.clone(),
                reserve_ms: reserve_ms.clone(),
            }),
            ledger: Arc::new(SqliteLedger::new(sqlite, settings)),
            publisher: queue.clone(),
            sealer,
            clock: clock.clone(),
            metrics: IssuerMetrics::register(&registry).unwrap(),
            texts: Live::new(Box::new(EveryMessage)),
        });
        Self {
            issuer,
            queue,
            clock,
            reserve_ms,
            service: service(),
            _folder: folder,
        }
    }

    async fn ask(&self, request: serde_json::Value) {
        self.try_ask(request).await.unwrap();
    }

    async fn try_ask(&self, request: serde_json::Value) -> Result<StoredVerification, IssueError> {
        let request = serde_json::from_value(request).unwrap();
        let mut span = Span::none();
        let issued = self.issuer.issue(&self.service, request, &mut span);
        issued.await
    }

    async fn step(&self, due: &StepDue) -> Result<Stepped, ProblemCode> {
        let stepped = self.issuer.step(&self.service, due).await;
        stepped.map_err(|error| error.code())
    }

    /// Returns the step that was published last.
    fn planned(&self) -> StepDue {
        let queue = self.queue.0.lock().unwrap();
        let steps = queue.iter().filter(|one| one.kind == StepDue::TYPE);
        let event = CloudEvent::<StepDue>::decode(&steps.last().unwrap().body).unwrap();
        event.data
    }
}

fn service() -> Service {
    let name: ServiceName = "web".parse().unwrap();
    let section = ServiceConfig {
        app: "Example".to_owned(),
        host: None,
        api_keys: Vec::new(),
        broker_users: Vec::new(),
        countries: vec!["DE".to_owned()],
        unknown_prefixes: Vec::new(),
        fixed_line_prefixes: Vec::new(),
        links_in_variables: false,
        policy: PolicyConfig::default(),
        limits: LimitsConfig::default(),
        guesses: GuessesConfig::default(),
    };
    let services = Services::from_config(&BTreeMap::from([(name.clone(), section)])).unwrap();
    Service::clone(services.by_name(&name).unwrap())
}

fn email(to: &str) -> serde_json::Value {
    json!({"channel": "email", "to": to, "after_seconds": 5})
}

/// A recent message to the recipient of a step delays the step only for the cooldown.
#[tokio::test]
async fn a_step_within_the_cooldown_of_its_recipient_is_brought_again() {
    let world = World::new().await;
    let to = "jane@example.org";
    world
        .ask(json!({"channel": "sms", "to": "+4915112345678", "fallback": [email(to)]}))
        .await;
    world.ask(json!({"channel": "email", "to": to})).await;
    let due = world.planned();
    world.clock.advance_millis(5_000);
    for _ in 0..2 {
        assert_eq!(world.step(&due).await, Err(ProblemCode::Cooldown));
    }
    world.clock.advance_millis(25_000);
    assert_eq!(world.step(&due).await, Ok(Stepped::Sent));
}

/// If a limit refuses a step, the next one is taken at once, whether codes rotate or not.
#[tokio::test]
async fn a_refused_step_makes_the_next_one_due() {
    for (resend, after_send) in [(ResendCode::Same, 2), (ResendCode::Rotate, 1)] {
        let mut world = World::new().await;
        world.service.policy.resend = resend;
        world.service.limits.per_hour = 1;
        let to = "jane@example.org";
        world.ask(json!({"channel": "email", "to": to})).await;
        world.clock.advance_millis(31_000);
        let fallback = [email(to), email("john@example.org")];
        world
            .ask(json!({"channel": "sms", "to": "+4915112345678", "fallback": fallback}))
            .await;
        let first = world.planned();
        assert_eq!(first.step, 1);
        world.clock.advance_millis(5_000);
        assert_eq!(world.step(&first).await, Ok(Stepped::Refused));
        let second = world.planned();
        assert_eq!((second.step, second.after_send), (2, after_send));
        assert_eq!(second.due_at, world.clock.now().to_rfc3339());
        assert_eq!(world.step(&second).await, Ok(Stepped::Sent));
        assert_eq!(world.step(&first).await, Ok(Stepped::Ended));
    }
}

/// A step that the request does not have sends nothing.
#[tokio::test]
async fn a_step_that_the_request_lacks_has_ended() {
    for resend in [ResendCode::Same, ResendCode::Rotate] {
        let mut world = World::new().await;
        world.service.policy.resend = resend;
        let fallback = [email("jane@example.org")];
        world
            .ask(json!({"channel": "sms", "to": "+4915112345678", "fallback": fallback}))
            .await;
        let due = world.planned();
        let published = world.queue.0.lock().unwrap().len();
        world.clock.advance_millis(31_000);
        let lacking = StepDue {
            step: 2,
            ..due.clone()
        };
        assert_eq!(world.step(&lacking).await, Ok(Stepped::Ended));
        assert_eq!(world.queue.0.lock().unwrap().len(), published);
    }
}

/// A verification that expires while its next message is counted sends nothing, and the answer says
/// so.
#[tokio::test]
async fn a_request_whose_verification_ends_meanwhile_is_to_be_repeated() {
    let mut world = World::new().await;
    world.service.policy.resend = ResendCode::Rotate;
    let request = json!({"channel": "email", "to": "jane@example.org"});
    world.ask(request.clone()).await;
    world.clock.advance_millis(31_000);
    let lifetime_ms = world.service.policy.lifetime_ms.try_into().unwrap();
    world.reserve_ms.store(lifetime_ms, Ordering::Relaxed);
    let error = world.try_ask(request.clone()).await.unwrap_err();
    assert_eq!(error.code(), ProblemCode::StoreUnavailable);
    assert_eq!(error.retry_after_seconds(), Some(1));
    assert_eq!(world.queue.0.lock().unwrap().len(), 1);
    world.reserve_ms.store(0, Ordering::Relaxed);
    world.clock.advance_millis(31_000);
    world.ask(request).await;
    assert_eq!(world.queue.0.lock().unwrap().len(), 2);
}
