//! An attempt: calling the provider, learning from the outcome, deciding and recording.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep};
use watchword_broker::Disposition;
use watchword_chassis::spans::Kind;
use watchword_core::{AttemptClass, DeliveryOutcome, ProviderName, Timestamp, millis};
use watchword_events::Order;
use watchword_failpoint::{Point, reach};
use watchword_ledger::{Attempt, DeliveryRecord, Fence, LedgerError};

use super::history::{History, tried_as};
use super::learning::called;
use super::{Dispatcher, Job, Turn};
use crate::decision::{Decision, Ended, attempt_budget, decide};
use crate::route::Pick;
use crate::{Attempted, Dispatch, Provider};

/// A job whose delivery this worker has claimed, with the provider to call.
pub(super) struct ClaimedJob<'a> {
    pub(super) job: &'a Job<'a>,
    pub(super) provider: Arc<dyn Provider>,
    pub(super) pick: Pick,
    pub(super) fence: Fence,
    /// The ledger's record before the attempt.
    pub(super) record: DeliveryRecord,
}

/// The outcome of a provider call, and its times.
pub(super) struct CallOutcome {
    pub(super) attempted: Attempted,
    pub(super) begun: Timestamp,
    pub(super) took: Duration,
    pub(super) ended: Timestamp,
}

impl ClaimedJob<'_> {
    /// Returns the provider that an attempt of `class` called: none if there was no text to send.
    fn callee(&self, class: AttemptClass) -> Option<&ProviderName> {
        (class != AttemptClass::TextFault).then(|| self.provider.name())
    }

    fn dispatch(&self, begun: Timestamp) -> Dispatch {
        let order = &self.job.order;
        Dispatch {
            delivery_id: order.delivery_id.clone(),
            recipient: order.recipient.clone(),
            code: order.code.clone(),
            sender: self.job.sender.clone(),
            locale: order.locale.clone(),
            variables: order.variables.clone(),
            remaining: order.deadline.since(begun),
        }
    }
}

impl Dispatcher {
    /// Makes one attempt with the provider of `claimed`. `permit` is held only during the call.
    pub(super) async fn attempt(
        &self,
        claimed: &ClaimedJob<'_>,
        tried: &mut Vec<usize>,
        permit: Option<SemaphorePermit<'_>>,
    ) -> Result<Turn, LedgerError> {
        let Some(call) = self.call(claimed, permit).await else {
            return self.expire(claimed).await;
        };
        tried.push(claimed.pick.place);
        self.learn(claimed, &call);
        let decision = self.decide(claimed, &call, tried);
        self.record_attempt(claimed, call, decision).await
    }

    /// Calls the provider. Returns `None` if too little time is left for a call.
    async fn call(
        &self,
        claimed: &ClaimedJob<'_>,
        permit: Option<SemaphorePermit<'_>>,
    ) -> Option<CallOutcome> {
        let provider = claimed.provider.as_ref();
        let begun = self.parts.clock.now();
        // Check the deadline again: claiming takes time, and the process may have been suspended.
        let limit = provider.attempt_limit();
        let budget = attempt_budget(limit, begun, claimed.job.order.deadline)?;
        let dispatch = claimed.dispatch(begun);
        // Poll the deadline first. In a process that was suspended both may be ready, and a message
        // that was not sent before its deadline must not be sent after it.
        let started = Instant::now();
        let calling = claimed.job.span.child("attempt", Kind::Client);
        let attempted = tokio::select! {
            biased;
            () = sleep(budget) => Attempted::new(AttemptClass::UnknownOutcome, "deadline"),
            attempted = provider.attempt(&dispatch) => attempted,
        };
        let took = started.elapsed();
        // Release the permit: the provider call is over, only bookkeeping remains.
        drop(permit);
        called(calling, claimed.callee(attempted.class), attempted.class);
        reach(Point::DeliveryAttempted);
        Some(CallOutcome {
            attempted,
            begun,
            took,
            ended: self.parts.clock.now(),
        })
    }

    /// Ends a claimed delivery whose deadline is too near for a call.
    async fn expire(&self, claimed: &ClaimedJob<'_>) -> Result<Turn, LedgerError> {
        let job = claimed.job;
        self.uncalled(job, &claimed.pick);
        let (outcome, trace) = (DeliveryOutcome::Expired, job.span.trace());
        let settled = self.let_go(&job.order, claimed.fence, None, outcome, trace);
        Ok(Turn::Settled(settled.await?.unwrap_or(Disposition::Ack)))
    }

    /// Decides the next step after `call`. `tried` holds the providers of this round.
    fn decide(&self, claimed: &ClaimedJob<'_>, call: &CallOutcome, tried: &[usize]) -> Decision {
        let (order, router) = (&claimed.job.order, &claimed.job.router);
        let (attempted, now) = (&call.attempted, call.ended);
        let rules = *self.parts.rules.get();
        let this = (claimed.callee(attempted.class), attempted.class);
        let attempts = claimed.record.attempts.iter().map(tried_as).chain([this]);
        let history = History::of(attempts, router);
        // A transient failure of a repeat: while its circuit is not open, the provider keeps the
        // message, because it recognizes the repeat and another provider would send it again.
        let is_busy = attempted.class == AttemptClass::Transient
            && history.knows.is_some()
            && router.is_open(&claimed.pick, now);
        let stays = is_busy || history.bind(rules.unknown_retries);
        // A provider that refused the destination is no reason to wait for a later round.
        let mut refused = history.refused;
        refused.push(claimed.pick.place);
        let ended = Ended {
            class: attempted.class,
            attempt_count: claimed.record.attempt_count.saturating_add(1),
            unknown_count: history.elsewhere,
            is_idempotent: claimed.provider.is_idempotent(),
            has_another: !stays && router.has_another(&order.recipient, tried, now),
            has_left: !stays && router.has_left(&order.recipient, &refused),
            has_fallback: order.next_step.is_some(),
            retry_after: attempted.retry_after,
            now,
            deadline: order.deadline,
        };
        decide(ended, rules)
    }

    /// Records the attempt in the ledger, releases the claim and returns the next turn.
    async fn record_attempt(
        &self,
        claimed: &ClaimedJob<'_>,
        call: CallOutcome,
        decision: Decision,
    ) -> Result<Turn, LedgerError> {
        let (order, provider) = (&claimed.job.order, claimed.provider.as_ref());
        let attempted = call.attempted;
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
            self.remember(provider.name(), id, order, call.ended).await;
        }
        let callee = claimed.callee(attempted.class);
        let attempt = Attempt {
            provider: callee.cloned(),
            class: attempted.class,
            provider_message_id: message_id,
            at_ms: call.begun.as_millis(),
            took_ms: millis(call.took),
        };
        tracing::info!(
            delivery_id = %order.delivery_id, provider = callee.map(ProviderName::as_str), class = %attempted.class,
            reason = attempted.reason, outcome = %outcome, took_ms = attempt.took_ms, "attempt",
        );
        let trace = claimed.job.span.trace();
        let settled = self.let_go(order, claimed.fence, Some(attempt), outcome, trace);
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
