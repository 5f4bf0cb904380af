//! Processing of one order: decode, open the seal, check the deadline, pick a provider, claim the
//! delivery, attempt, decide, record, report. An order is settled only after its outcome is in the
//! ledger.

mod ending;
mod history;
mod learning;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use watchword_broker::{DeadLetterReason, Disposition};
use watchword_chassis::Services;
use watchword_chassis::spans::{Key, Kind, Span, Spans};
use watchword_core::{
    AttemptClass, Channel, Clock, DeliveryOutcome, Live, ProviderName, Rung, Timestamp, TraceId,
    TraceParent,
};
use watchword_events::{CloudEvent, Order, OrderError, OtpSend, SealError, Sealer};
use watchword_failpoint::{Point, reach};
use watchword_ledger::{
    Attempt, Claim, ClaimRequest, DeliveryRecord, Fence, LedgerError, LedgerStore,
};

use crate::decision::{Decision, Ended, Rules, attempt_budget, decide};
use crate::report::Reporter;
use crate::route::{Pick, Router};
use crate::telemetry::DeliveryMetrics;
use crate::{Attempted, Dispatch, Provider, Sender};
use ending::{soon, when_free};
use history::{History, tried_as};
use learning::{called, callee};

/// How much longer than its attempt a claim lasts: enough to record the outcome, even across a
/// short outage of the store.
const LEASE_MARGIN: Duration = Duration::from_secs(10);

/// The number of the longest retry delay (15 s) for an order for which no provider could be called.
const LONGEST_UNCALLED: u32 = 3;

/// Processes the orders of one channel.
pub struct Courier {
    parts: CourierParts,
    reporter: Arc<Reporter>,
}

/// The parts of a [`Courier`].
pub struct CourierParts {
    /// The channel whose orders the courier processes.
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

/// A received message without the handle that settles it.
pub(crate) struct Letter {
    pub body: Bytes,
    pub retries: u32,
    pub redelivered: bool,
    pub traceparent: Option<String>,
}

/// An order in progress, with the context from its message.
struct Errand<'a> {
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

impl Courier {
    /// Creates a courier that reports outcomes to `reporter`.
    pub const fn new(parts: CourierParts, reporter: Arc<Reporter>) -> Self {
        Self { parts, reporter }
    }

    pub(crate) const fn metrics(&self) -> &DeliveryMetrics {
        &self.parts.metrics
    }

    /// Processes the order in `letter` as far as possible now, and returns how to settle its
    /// message.
    pub(crate) async fn carry(&self, letter: &Letter) -> Disposition {
        let caller = letter.traceparent.as_deref().and_then(TraceParent::parse);
        let name = match self.parts.channel {
            Channel::Sms => "process watchword.sms",
            Channel::Email => "process watchword.email",
        };
        let mut span = self.parts.spans.begin(name, Kind::Consumer, caller);
        let disposition = self.carry_within(&mut span, letter).await;
        span.say(Key::Retries, || letter.retries.to_string());
        span.say(Key::Settled, || disposition.as_str().to_owned());
        if matches!(
            disposition,
            Disposition::DeadLetter(_) | Disposition::Requeue
        ) {
            span.fail();
        }
        disposition
    }

    async fn carry_within(&self, span: &mut Span, letter: &Letter) -> Disposition {
        let event = match CloudEvent::<OtpSend>::decode(&letter.body) {
            Ok(event) => event,
            Err(error) => return Disposition::DeadLetter(error.into()),
        };
        // A valid order in the other channel's queue was moved there by a third party.
        if event.data.channel != self.parts.channel {
            return Disposition::DeadLetter(DeadLetterReason::WrongChannel);
        }
        let order = match Order::open(&event, &self.parts.sealer.get()) {
            Ok(order) => order,
            Err(error) => return unopened(error, letter.retries),
        };
        if letter.retries == 0 {
            let waited = self.parts.clock.now().since(event.time);
            self.parts
                .metrics
                .wait_seconds
                .observe(waited.as_secs_f64());
        }
        span.say(Key::Delivery, || event.id.clone());
        span.say(Key::Service, || order.service.to_string());
        let carried = self.carry_order(order, event.time, letter, span).await;
        carried.unwrap_or_else(|error| {
            tracing::warn!(%error, delivery_id = %event.id, "the ledger is unavailable");
            // While the ledger is unavailable, wait longer with each retry.
            Disposition::retry_after_ms(u64::from(letter.retries) * 2_000)
        })
    }

    async fn carry_order(
        &self,
        order: Order,
        sealed_at: Timestamp,
        letter: &Letter,
        span: &Span,
    ) -> Result<Disposition, LedgerError> {
        let services = self.parts.services.get();
        let Some(service) = services.by_name(&order.service) else {
            return self
                .without_service(&order, sealed_at, letter.retries)
                .await;
        };
        let router = self.parts.router.get();
        let errand = Errand {
            sender: Sender {
                app: service.app.clone(),
                host: service.host.clone(),
            },
            before: self.history(&order, &router, letter).await?,
            order,
            router,
            sealed_at,
            retries: letter.retries,
            span,
        };
        let mut tried = errand.before.refused.clone();
        loop {
            match self.turn(&errand, &mut tried).await? {
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

    /// Makes one attempt with the next provider. `tried` holds the providers of this round and
    /// those that refused the destination earlier.
    async fn turn(&self, errand: &Errand<'_>, tried: &mut Vec<usize>) -> Result<Turn, LedgerError> {
        let order = &errand.order;
        let now = self.parts.clock.now();
        if attempt_budget(Duration::MAX, now, order.deadline).is_none() {
            // No provider could deliver in time, so do not take a permit from orders that are in
            // time.
            let ended = self.end(order, DeliveryOutcome::Expired, Disposition::Ack);
            return ended.await.map(Turn::Settled);
        }
        // Fails only if the semaphore was closed, which never happens.
        let call = self.parts.calls.acquire().await.ok();
        if self.parts.stop.is_cancelled() {
            // A call would take longer than the shutdown allows; another worker has the time.
            return Ok(Turn::Settled(Disposition::Requeue));
        }
        let now = self.parts.clock.now();
        let salt = salt(order, errand.retries);
        let is_bound = errand.before.bind(self.parts.rules.get().unknown_retries);
        // A provider that may already have the message is tried first, once per round.
        let is_first = tried.len() == errand.before.refused.len();
        let knows = errand.before.knows.filter(|_| is_first);
        let again =
            knows.and_then(|place| (errand.router).again(place, &order.recipient, is_bound, now));
        let anyone = || errand.router.pick(&order.recipient, tried, salt, now);
        let pick = if is_bound {
            again
        } else {
            again.or_else(anyone)
        };
        let Some(pick) = pick else {
            drop(call);
            return self.wait_for_anyone(errand, now).await.map(Turn::Settled);
        };
        let provider = errand.router.providers()[pick.place].clone();
        let Some(budget) = attempt_budget(provider.attempt_limit(), now, order.deadline) else {
            drop(call);
            self.uncalled(errand, &pick);
            let ended = self.end(order, DeliveryOutcome::Expired, Disposition::Ack);
            return ended.await.map(Turn::Settled);
        };
        reach(Point::DeliveryTaken);
        match self.claim(order, budget, errand.span.trace()).await? {
            Claim::Yours { fence, record, .. } => {
                reach(Point::DeliveryClaimed);
                self.attempt(errand, provider, &pick, (fence, record), (tried, call))
                    .await
            }
            Claim::Held { until } => {
                self.uncalled(errand, &pick);
                Ok(Turn::Settled(when_free(until, now)))
            }
            Claim::Ended(record) => {
                drop(call);
                self.uncalled(errand, &pick);
                self.repeat(order, &record).await;
                Ok(Turn::Settled(Disposition::Ack))
            }
        }
    }

    /// Records that the worker did not call the provider of `pick`. If the pick was a half-open
    /// probe, the next message may become the probe.
    fn uncalled(&self, errand: &Errand<'_>, pick: &Pick) {
        if pick.is_probe {
            let now = self.parts.clock.now();
            errand.router.health.release(pick.place, &pick.region, now);
        }
    }

    /// Claims the delivery for work that takes at most `budget`.
    async fn claim(
        &self,
        order: &Order,
        budget: Duration,
        trace_id: Option<TraceId>,
    ) -> Result<Claim, LedgerError> {
        let lease = budget + LEASE_MARGIN;
        let request = ClaimRequest {
            id: order.delivery_id.clone(),
            channel: self.parts.channel,
            now: self.parts.clock.now(),
            lease_ms: millis(lease),
            service: order.service.clone(),
            trace_id,
        };
        let claim = self.parts.ledger.claim(request).await?;
        if let Claim::Yours {
            after_crash: true, ..
        } = claim
        {
            tracing::warn!(delivery_id = %order.delivery_id, "taken over from a worker that stopped responding");
            self.parts.metrics.after_crash.inc();
        }
        Ok(claim)
    }

    /// Delays an order for which the worker can call no provider, or ends it if no time is left.
    /// The longest retry delay is not used, because a barred provider gets a half-open probe after
    /// seconds.
    async fn wait_for_anyone(
        &self,
        errand: &Errand<'_>,
        now: Timestamp,
    ) -> Result<Disposition, LedgerError> {
        self.parts.metrics.nobody.inc();
        let ended = Ended {
            class: AttemptClass::Transient,
            attempt_count: errand.retries.saturating_add(1).min(LONGEST_UNCALLED),
            unknown_count: 0,
            is_idempotent: false,
            has_another: false,
            has_left: true,
            has_fallback: errand.order.next_step.is_some(),
            retry_after: None,
            now,
            deadline: errand.order.deadline,
        };
        if let Decision::Wait(rung) = ended.wait() {
            Ok(Disposition::Retry(rung))
        } else {
            self.end(&errand.order, DeliveryOutcome::Expired, Disposition::Ack)
                .await
        }
    }

    async fn attempt(
        &self,
        errand: &Errand<'_>,
        provider: Arc<dyn Provider>,
        pick: &Pick,
        (fence, before): (Fence, DeliveryRecord),
        (tried, call): (&mut Vec<usize>, Option<SemaphorePermit<'_>>),
    ) -> Result<Turn, LedgerError> {
        let order = &errand.order;
        let begun = self.parts.clock.now();
        // Check the deadline again: claiming takes time, and the process may have been suspended.
        let limit = provider.attempt_limit();
        let Some(budget) = attempt_budget(limit, begun, order.deadline) else {
            drop(call);
            self.uncalled(errand, pick);
            let trace = errand.span.trace();
            let ended = self.let_go(order, fence, None, DeliveryOutcome::Expired, trace);
            return Ok(Turn::Settled(ended.await?.unwrap_or(Disposition::Ack)));
        };
        let dispatch = Dispatch {
            delivery_id: order.delivery_id.clone(),
            recipient: order.recipient.clone(),
            code: order.code.clone(),
            sender: errand.sender.clone(),
            locale: order.locale.clone(),
            variables: order.variables.clone(),
            remaining: order.deadline.since(begun),
        };
        // Poll the deadline first. In a process that was suspended both may be ready, and a message
        // that was not sent before its deadline must not be sent after it.
        let started = Instant::now();
        let calling = errand.span.child("attempt", Kind::Client);
        let attempted = tokio::select! {
            biased;
            () = sleep(budget) => Attempted::new(AttemptClass::UnknownOutcome, "deadline"),
            attempted = provider.attempt(&dispatch) => attempted,
        };
        let took = started.elapsed();
        // Release the permit: the provider call is over, only bookkeeping remains.
        drop(call);
        let callee = callee(provider.as_ref(), attempted.class);
        called(calling, callee, attempted.class);
        reach(Point::DeliveryAttempted);
        let now = self.parts.clock.now();
        tried.push(pick.place);
        self.learn(
            errand,
            provider.as_ref(),
            pick,
            &attempted,
            (begun, took),
            now,
        );
        let rules = *self.parts.rules.get();
        let this = (callee, attempted.class);
        let attempts = before.attempts.iter().map(tried_as).chain([this]);
        let history = History::of(attempts, &errand.router);
        // A transient failure of a repeat: while its circuit is not open, the provider keeps the
        // message, because it recognizes the repeat and another provider would send it again.
        let is_busy = attempted.class == AttemptClass::Transient
            && history.knows.is_some()
            && errand.router.is_open(pick, now);
        let stays = is_busy || history.bind(rules.unknown_retries);
        // A provider that refused the destination is no reason to wait for a later round.
        let mut refused = history.refused;
        refused.push(pick.place);
        let decision = decide(
            Ended {
                class: attempted.class,
                attempt_count: before.attempt_count.saturating_add(1),
                unknown_count: history.elsewhere,
                is_idempotent: provider.is_idempotent(),
                has_another: !stays && errand.router.has_another(&order.recipient, tried, now),
                has_left: !stays && errand.router.has_left(&order.recipient, &refused),
                has_fallback: order.next_step.is_some(),
                retry_after: attempted.retry_after,
                now,
                deadline: order.deadline,
            },
            rules,
        );
        let (outcome, turn) = match decision {
            Decision::End(outcome) => (outcome, Turn::Settled(Disposition::Ack)),
            Decision::Wait(rung) => (
                DeliveryOutcome::Queued,
                Turn::Settled(Disposition::Retry(rung)),
            ),
            Decision::Failover => (DeliveryOutcome::Queued, Turn::NextProvider),
        };
        let message_id = attempted
            .provider_message_id
            .map(|id| id.chars().take(128).collect::<String>());
        if let Some(id) = message_id.as_deref().filter(|_| provider.wants_name()) {
            self.remember(provider.name(), id, order, now).await;
        }
        let attempt = Attempt {
            provider: callee.cloned(),
            class: attempted.class,
            provider_message_id: message_id,
            at_ms: begun.as_millis(),
            took_ms: millis(took),
        };
        tracing::info!(
            delivery_id = %order.delivery_id, provider = callee.map(ProviderName::as_str), class = %attempted.class,
            reason = attempted.reason, outcome = %outcome, took_ms = attempt.took_ms, "attempt",
        );
        let trace = errand.span.trace();
        let settled = self.let_go(order, fence, Some(attempt), outcome, trace);
        Ok(settled.await?.map_or(turn, Turn::Settled))
    }

    /// Stores the provider's id of a message before the outcome is recorded, because a receipt can
    /// arrive first. If this fails, the receipt will be unknown.
    async fn remember(&self, provider: &ProviderName, id: &str, order: &Order, now: Timestamp) {
        let delivery = &order.delivery_id;
        let named = self.parts.ledger.name(provider, id, delivery, now);
        if let Err(error) = named.await {
            tracing::warn!(%error, delivery_id = %delivery, "cannot store the provider's message id; its receipt will be unknown");
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
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

/// Returns a number that differs for each order and each retry. It spreads orders over providers.
fn salt(order: &Order, retries: u32) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&order.delivery_id, retries).hash(&mut hasher);
    hasher.finish()
}

/// Returns how long to hold an order before it enters its wait queue: up to a fifth of the delay
/// and at most 0.5 s, so that orders that failed together do not return together.
pub(crate) fn jitter(rung: Rung, letter: &Letter) -> Duration {
    let mut hasher = DefaultHasher::new();
    (&letter.body, letter.retries).hash(&mut hasher);
    let salt = hasher.finish();
    let most = (rung.delay_ms / 5).min(500);
    Duration::from_millis(salt % (most + 1))
}
