//! Processing of one order: decode, open the seal, check the deadline, pick a provider, claim the
//! delivery, attempt, decide, record, report. An order is settled only after its outcome is in the
//! ledger.

mod attempt;
mod ending;
mod history;
mod learning;
mod round;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use watchword_broker::{DeadLetterReason, Disposition, Received};
use watchword_chassis::Services;
use watchword_chassis::spans::{Key, Kind, Span, Spans};
use watchword_core::{Channel, Clock, DeliveryOutcome, Live, Rung, SealError, Sealer, Timestamp};
use watchword_events::{CloudEvent, Order, OrderError, OtpSend};
use watchword_ledger::{LedgerError, LedgerStore};

use crate::Sender;
use crate::decision::{Rules, attempt_budget};
use crate::report::Reporter;
use crate::route::Router;
use crate::telemetry::DeliveryMetrics;
use ending::soon;
use history::History;

/// Processes the orders of one channel.
pub struct Dispatcher {
    parts: DispatcherParts,
    reporter: Arc<Reporter>,
}

/// The parts of a [`Dispatcher`].
pub struct DispatcherParts {
    /// The channel whose orders the dispatcher processes.
    pub channel: Channel,
    /// The providers, their routes and their health.
    pub router: Live<Router>,
    /// The rules for outcomes that leave a choice.
    pub rules: Live<Rules>,
    /// The outcome of every delivery.
    pub ledger: Arc<dyn LedgerStore>,
    /// Opens sealed orders.
    pub sealer: Live<Sealer>,
    /// The services and how they present themselves.
    pub services: Live<Services>,
    /// Limits concurrent provider calls. An order waits for its permit before it is claimed, so
    /// that a claim never waits.
    pub calls: Semaphore,
    /// Signals shutdown: calls in flight finish, and no new call starts.
    pub stop: CancellationToken,
    /// The time source, also for deadlines.
    pub clock: Arc<dyn Clock>,
    /// The worker's metrics.
    pub metrics: DeliveryMetrics,
    /// Records the trace spans.
    pub spans: Spans,
}

/// An order in progress, with the context from its message.
struct Job<'a> {
    order: Order,
    router: Arc<Router>,
    before: History,
    sender: Sender,
    sealed_at: Timestamp,
    retries: u32,
    span: &'a Span,
}

/// The result of one attempt.
enum Turn {
    Settled(Disposition),
    NextProvider,
}

impl Dispatcher {
    /// Creates a dispatcher that reports outcomes to `reporter`.
    pub const fn new(parts: DispatcherParts, reporter: Arc<Reporter>) -> Self {
        Self { parts, reporter }
    }

    pub(crate) const fn metrics(&self) -> &DeliveryMetrics {
        &self.parts.metrics
    }

    /// Processes the order in `received` as far as possible now, and returns how to settle the
    /// message.
    pub(crate) async fn process(&self, received: &Received) -> Disposition {
        let name = match self.parts.channel {
            Channel::Sms => "process watchword.sms",
            Channel::Email => "process watchword.email",
        };
        let mut span = self
            .parts
            .spans
            .begin(name, Kind::Consumer, received.traceparent);
        let disposition = self.process_within(&mut span, received).await;
        span.say(Key::Retries, || received.retries.to_string());
        span.say(Key::Settled, || disposition.as_str().to_owned());
        if matches!(
            disposition,
            Disposition::DeadLetter(_) | Disposition::Requeue
        ) {
            span.fail();
        }
        disposition
    }

    async fn process_within(&self, span: &mut Span, received: &Received) -> Disposition {
        let event = match CloudEvent::<OtpSend>::decode(&received.body) {
            Ok(event) => event,
            Err(error) => return Disposition::DeadLetter(error.into()),
        };
        // A valid order in the other channel's queue was moved there by a third party.
        if event.data.channel != self.parts.channel {
            return Disposition::DeadLetter(DeadLetterReason::WrongChannel);
        }
        let order = match Order::open(&event, &self.parts.sealer.get()) {
            Ok(order) => order,
            Err(error) => return unopened(error, received.retries),
        };
        if received.retries == 0 {
            let waited = self.parts.clock.now().since(event.time);
            self.parts
                .metrics
                .wait_seconds
                .observe(waited.as_secs_f64());
        }
        span.say(Key::Delivery, || event.id.clone());
        span.say(Key::Service, || order.service.to_string());
        let processed = self.process_order(order, event.time, received, span).await;
        processed.unwrap_or_else(|error| {
            tracing::warn!(%error, delivery_id = %event.id, "the ledger is unavailable");
            // While the ledger is unavailable, wait longer with each retry.
            Disposition::retry_after_ms(u64::from(received.retries) * 2_000)
        })
    }

    async fn process_order(
        &self,
        order: Order,
        sealed_at: Timestamp,
        received: &Received,
        span: &Span,
    ) -> Result<Disposition, LedgerError> {
        let services = self.parts.services.get();
        let Some(service) = services.by_name(&order.service) else {
            return self
                .without_service(&order, sealed_at, received.retries)
                .await;
        };
        let router = self.parts.router.get();
        let job = Job {
            sender: Sender {
                app: service.app.clone(),
                host: service.host.clone(),
            },
            before: self.history(&order, &router, received).await?,
            order,
            router,
            sealed_at,
            retries: received.retries,
            span,
        };
        let mut tried = job.before.refused.clone();
        loop {
            match self.turn(&job, &mut tried).await? {
                Turn::Settled(disposition) => return Ok(disposition),
                Turn::NextProvider => self.parts.metrics.failovers.inc(),
            }
        }
    }

    /// Settles an order of a service that is not configured here. This process may not have
    /// reloaded yet: the issuer may have read the new configuration first, and orchestrators take
    /// up to a minute to distribute it.
    async fn without_service(
        &self,
        order: &Order,
        sealed_at: Timestamp,
        retries: u32,
    ) -> Result<Disposition, LedgerError> {
        let now = self.parts.clock.now();
        if attempt_budget(Duration::MAX, now, order.deadline).is_none() {
            return self
                .end(order, DeliveryOutcome::Expired, Disposition::Ack)
                .await;
        }
        if retries < SERVICE_WAITS || now.since(sealed_at) < SERVICE_WAIT {
            return Ok(soon());
        }
        let dead_letter = Disposition::DeadLetter(DeadLetterReason::UnknownService);
        self.end(order, DeliveryOutcome::Parked, dead_letter).await
    }
}

/// How long an order waits for the configuration of its service, counted from its acceptance.
const SERVICE_WAIT: Duration = Duration::from_secs(60);
/// The least number of retries of such an order, a second apart. An order that waited long in the
/// queue may already be older than [`SERVICE_WAIT`].
const SERVICE_WAITS: u32 = 10;

/// How many times a message under an unknown key is retried, a second apart.
const KEY_WAITS: u32 = 90;

/// Returns how to settle a message that cannot be opened. An unknown key may still be on its way to
/// this process: the issuer may have read it first, and orchestrators take up to a minute to
/// distribute it.
fn unopened(error: OrderError, retries: u32) -> Disposition {
    if error == OrderError::Seal(SealError::UnknownKey) && retries < KEY_WAITS {
        return soon();
    }
    Disposition::DeadLetter(error.into())
}

/// Returns how long to hold an order before it enters its wait queue: up to a fifth of the delay
/// and at most 0.5 s, so that orders that failed together do not return together.
pub(crate) fn jitter(rung: Rung, received: &Received) -> Duration {
    let mut hasher = DefaultHasher::new();
    (&received.body, received.retries).hash(&mut hasher);
    let salt = hasher.finish();
    let most = (rung.delay_ms / 5).min(500);
    Duration::from_millis(salt % (most + 1))
}
