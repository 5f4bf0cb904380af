//! Fallback steps over the embedded stores.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use serde_json::json;
use watchword_chassis::config::{GuessesConfig, LimitsConfig, PolicyConfig, ServiceConfig};
use watchword_chassis::{Services, SystemEntropy};
use watchword_core::{Channel, Key, KeyRing, ManualClock, ResendCode};
use watchword_events::CloudEvent;
use watchword_ledger::{LedgerSettings, SqliteLedger};
use watchword_metrics::prometheus::Registry;
use watchword_storage::Sqlite;
use watchword_verifier::store::SqliteVerifications;
use watchword_verifier::{Index, OpenRequest, Verifier, VerifierMetrics, VerifierParts};

use super::*;
use crate::limits::SqliteLimiter;
use crate::message_check::Unsendable;

/// Keeps what is published.
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
    service: Service,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
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
        let verifier = Verifier::new(VerifierParts {
            store: Arc::new(SqliteVerifications::new(sqlite.clone())),
            index: Index::new(key("i1")),
            digest_keys: Live::new(keys),
            clock: clock.clone(),
            entropy: Arc::new(SystemEntropy),
            metrics: VerifierMetrics::register(&registry).unwrap(),
        });
        let settings = LedgerSettings {
            retention_ms: 3_600_000,
        };
        let issuer = Issuer::new(IssuerParts {
            opener: Arc::new(Opener::new(Arc::new(verifier), sealer.clone())),
            limiter: Arc::new(SqliteLimiter::new(sqlite.clone())),
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
            service: service(),
            _folder: folder,
        }
    }

    async fn ask(&self, request: serde_json::Value) {
        let request = serde_json::from_value(request).unwrap();
        let mut span = Span::none();
        let issued = self.issuer.issue(&self.service, request, &mut span);
        issued.await.unwrap();
    }

    async fn step(&self, due: &StepDue) -> Result<Stepped, ProblemCode> {
        let stepped = self.issuer.step(&self.service, due).await;
        stepped.map_err(|problem| problem.code)
    }

    /// The step that was published last.
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

/// Another message to the recipient of a step a moment ago holds the step back for its cooldown only.
#[tokio::test]
async fn a_step_within_the_cooldown_of_its_recipient_is_brought_again() {
    let world = World::new();
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

/// The step after one that a limit refuses is taken at once, whether codes rotate or not.
#[tokio::test]
async fn a_refused_step_makes_the_next_one_due() {
    for (resend, after_send) in [(ResendCode::Same, 2), (ResendCode::Rotate, 1)] {
        let mut world = World::new();
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
