//! The path of a request: count, open, reserve, seal, publish, confirm. The issuer answers with
//! success only after the broker's confirm. Every refusal is a [`Problem`] with a stable code.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use watchword_broker::{LinkState, Outbound, PublishError, Publisher, Route};
use watchword_chassis::spans::{Key, Kind, Span};
use watchword_chassis::{Problem, ProblemCode, Service};
use watchword_core::{
    Clock, DeliveryId, DeliveryOutcome, Live, ServiceName, SubjectTag, Timestamp, VerificationId,
};
use watchword_events::{ClientRequested, EventData, Lane, OtpRequested, OtpSend, Sealer, StepDue};
use watchword_failpoint::{Point, reach};
use watchword_ledger::{LedgerStore, Settlement};
use watchword_verifier::store::{StepOf, StoredVerification};
use watchword_verifier::{Asked, Change, Message, NextStep, Opener, Opening};

use crate::guard::{Guard, Refusal, Sending};
use crate::limits::{Limit, SendLimiter};
use crate::message_check::{self, MessageCheck};
use crate::request;
use crate::stepper::Stepped;
use crate::telemetry::IssuerMetrics;

/// Deadline of a publish and its confirm. Together with the calls of a healthy store, a caller gets
/// an answer within 2 s even if the broker is silent.
const PUBLISH_DEADLINE: Duration = Duration::from_millis(1_500);

/// Most decisions for one request, while other requests change the same verification.
const DECISIONS: u32 = 4;

/// Prefix of the problem if a limit refuses a message whose variables differ from the last one's.
const OTHER_CONTENT: &str = "the variables differ from those of the last message and a limit of \
    the recipient refuses a new one; the code of the last message stays valid for its own \
    content";

/// Accepts requests for codes.
pub struct Issuer {
    opener: Arc<Opener>,
    guard: Guard,
    ledger: Arc<dyn LedgerStore>,
    publisher: Arc<dyn Publisher>,
    sealer: Live<Sealer>,
    clock: Arc<dyn Clock>,
    metrics: IssuerMetrics,
    texts: Live<Box<dyn MessageCheck>>,
}

/// The dependencies of an [`Issuer`].
pub struct IssuerParts {
    /// Opens and continues verifications.
    pub opener: Arc<Opener>,
    /// Counts requests and messages.
    pub limiter: Arc<dyn SendLimiter>,
    /// Records the outcome of skipped deliveries.
    pub ledger: Arc<dyn LedgerStore>,
    /// Publishes send orders and fallback steps.
    pub publisher: Arc<dyn Publisher>,
    /// Seals send orders.
    pub sealer: Live<Sealer>,
    /// The clock for deadlines and limits.
    pub clock: Arc<dyn Clock>,
    /// Metrics of the issuer.
    pub metrics: IssuerMetrics,
    /// Renders the messages of a request before a verification is opened.
    pub texts: Live<Box<dyn MessageCheck>>,
}

impl Issuer {
    /// Creates an issuer.
    pub fn new(parts: IssuerParts) -> Self {
        let IssuerParts {
            opener,
            limiter,
            ledger,
            publisher,
            sealer,
            clock,
            metrics,
            texts,
        } = parts;
        let index = opener.verifier().index().clone();
        Self {
            opener,
            guard: Guard::new(limiter, index, clock.clone(), metrics.clone()),
            ledger,
            publisher,
            sealer,
            clock,
            metrics,
            texts,
        }
    }

    /// Accepts one request: opens a verification and queues its message, or continues the live one.
    /// Repeating a request is always safe.
    pub async fn issue(
        &self,
        service: &Service,
        request: OtpRequested,
        span: &mut Span,
    ) -> Result<StoredVerification, Problem> {
        let mut request = request;
        let client = self.guard.client(service, request.client.take())?;
        let request = request::parse(service, request)?;
        message_check::check(&**self.texts.get(), service, &request)?;
        self.admit(service).await?;
        let asked = self.opener.open(service, request).await?;
        let (opening, counted) = self.decided(service, asked, client).await?;
        match opening {
            Opening::Send(message) => self.send(service, *message, client, counted, span).await,
            // A reloaded login page repeats its request. The person already has the code, so answer
            // as before.
            Opening::Cooling(live) => Ok(live),
            // Nothing was sent. The next request opens a new verification.
            Opening::Ended(_) => Err(changing(
                "the verification ended while its message was prepared",
            )),
            Opening::Exhausted(live) => Err(self.exhausted(&live)),
            Opening::Locked(until) => Err(self.locked(until)),
        }
    }

    /// Sends the code of verification `id` again, counted for `client`.
    pub async fn resend(
        &self,
        service: &Service,
        id: &VerificationId,
        client: Option<ClientRequested>,
        span: &mut Span,
    ) -> Result<StoredVerification, Problem> {
        let client = self.guard.client(service, client)?;
        self.admit(service).await?;
        let gone = || {
            Problem::new(
                ProblemCode::NotFound,
                "the service has no live verification of this id",
            )
        };
        let asked = self.opener.resend(service, id).await?;
        let asked = asked.ok_or_else(gone)?;
        let (opening, counted) = self.decided(service, asked, client).await?;
        match opening {
            Opening::Send(message) => self.send(service, *message, client, counted, span).await,
            Opening::Cooling(live) => {
                let seconds = service.policy.cooldown_ms / 1_000;
                let detail = format!("a message was sent less than {seconds} s ago");
                let wait = self.seconds_until(live.resend_after);
                Err(Problem::new(ProblemCode::Cooldown, detail).retry_after(wait))
            }
            Opening::Exhausted(live) => Err(self.exhausted(&live)),
            Opening::Locked(until) => Err(self.locked(until)),
            Opening::Ended(_) => Err(gone()),
        }
    }

    /// Completes the steps that must precede a decision of the store. Returns the decision, and the
    /// message that was already counted for it.
    ///
    /// The send limits come first: if one refuses the new message, the earlier code stays valid.
    async fn decided(
        &self,
        service: &Service,
        mut asked: Asked,
        client: Option<SubjectTag>,
    ) -> Result<(Opening, Option<DeliveryId>), Problem> {
        let mut counted = None;
        for _ in 0..DECISIONS {
            match asked {
                Asked::Decided(opening) => return Ok((opening, counted)),
                Asked::NeedsCode(further) => {
                    let sending = Sending {
                        recipient: &further.recipient,
                        delivery: &further.delivery_id,
                        names_subject: further.names_subject,
                        waive_cooldown: false,
                        at: further.at,
                    };
                    self.guard.reserve(service, sending, client).await?;
                    counted = Some(further.delivery_id.clone());
                    return Ok((self.opener.renew(service, *further).await?, counted));
                }
                Asked::Differs(change) => {
                    counted = self.prepare(service, &change, client).await?;
                    asked = self.opener.change(service, *change).await?;
                }
            }
        }
        Err(changing("the verification changed too often"))
    }

    /// Completes the steps that must precede a change or withdrawal of the live verification.
    /// Returns the message that it counted.
    async fn prepare(
        &self,
        service: &Service,
        change: &Change,
        client: Option<SubjectTag>,
    ) -> Result<Option<DeliveryId>, Problem> {
        if change.withdraws {
            let delivery = change.delivery_id();
            let index = self.opener.verifier().index();
            let subject = delivery.verification().subject_tag();
            let sending = Sending {
                recipient: change.recipient(),
                delivery: &delivery,
                names_subject: index.names_subject(&service.name, subject, change.recipient()),
                waive_cooldown: false,
                at: change.at(),
            };
            let reserved = self.guard.reserve(service, sending, client).await;
            reserved.map_err(|Refusal { mut problem, limit }| {
                if limit.is_some() {
                    problem.detail = format!("{OTHER_CONTENT}: {}", problem.detail);
                }
                problem
            })?;
            return Ok(Some(delivery));
        }
        // Schedule the step before the fallback is replaced. Until then the step finds another
        // fallback and does nothing; a crash in between loses no step.
        if let Some((id, send, next)) = change.next() {
            self.schedule(id, &service.name, send, next).await?;
        }
        Ok(None)
    }

    /// Returns the verification, if it belongs to the service.
    pub async fn status(
        &self,
        service: &Service,
        id: &VerificationId,
    ) -> Result<Option<StoredVerification>, Problem> {
        Ok(self.opener.verifier().get(&service.name, id).await?)
    }

    async fn admit(&self, service: &Service) -> Result<(), Problem> {
        // Without the broker nothing can be sent: answer before a verification is opened.
        match self.publisher.state() {
            LinkState::Up => {}
            LinkState::Blocked => return Err(broker_problem(&PublishError::Blocked)),
            LinkState::Down => return Err(broker_problem(&PublishError::Unavailable)),
        }
        self.guard.admit(service).await
    }

    /// Executes a fallback step that is due.
    ///
    /// After an error the step must be retried: a peer is not available, or the cooldown of the
    /// recipient is running. A step that another limit refuses is skipped, and the step after it
    /// becomes due at once.
    pub(crate) async fn step(&self, service: &Service, due: &StepDue) -> Result<Stepped, Problem> {
        let id = &due.verification_id;
        let of = StepOf {
            after: due.after_send,
            details: due.details,
        };
        let asked = self.opener.step(service, id, due.step, of).await?;
        let Some(asked) = asked else {
            return Ok(Stepped::Ended);
        };
        let next = match &asked {
            Asked::NeedsCode(further) => further.next_if_refused(),
            Asked::Decided(_) | Asked::Differs(_) => None,
        };
        let (opening, counted) = match self.decided(service, asked, None).await {
            Ok(decided) => decided,
            // The verification has not counted this message, so there is no delivery to settle.
            Err(problem) if problem.code == ProblemCode::RateLimited => {
                self.skip_to(id, &service.name, due.after_send, next)
                    .await?;
                return Ok(Stepped::Refused);
            }
            Err(problem) => return Err(problem),
        };
        let message = match opening {
            Opening::Send(message) => *message,
            Opening::Exhausted(_) => return Ok(Stepped::Exhausted),
            Opening::Locked(_) => return Ok(Stepped::Refused),
            Opening::Cooling(_) | Opening::Ended(_) => return Ok(Stepped::Ended),
        };
        let (delivery, channel, next) = (
            message.order.delivery_id.clone(),
            message.order.recipient.channel(),
            message.next,
        );
        let mut span = Span::none();
        // The client of the original request is no longer known, so its limit does not count this
        // message.
        match self.send(service, message, None, counted, &mut span).await {
            Ok(_) => Ok(Stepped::Sent),
            Err(problem) if problem.code == ProblemCode::RateLimited => {
                // The verification has counted the message, but it may not be sent: record that in
                // the ledger.
                let send = delivery.send();
                let settlement = Settlement {
                    id: delivery,
                    channel,
                    fence: None,
                    attempt: None,
                    outcome: DeliveryOutcome::Failed,
                    now: self.clock.now(),
                };
                let settled = self.ledger.settle(settlement).await;
                settled.map_err(|_| {
                    Problem::new(
                        ProblemCode::StoreUnavailable,
                        "the ledger cannot be written",
                    )
                })?;
                self.skip_to(id, &service.name, send, next).await?;
                Ok(Stepped::Refused)
            }
            Err(problem) => Err(problem),
        }
    }

    async fn send(
        &self,
        service: &Service,
        message: Message,
        client: Option<SubjectTag>,
        counted: Option<DeliveryId>,
        span: &mut Span,
    ) -> Result<StoredVerification, Problem> {
        reach(Point::IssuerOpened);
        let order = &message.order;
        if counted.as_ref() != Some(&order.delivery_id) {
            let sending = Sending {
                recipient: &order.recipient,
                delivery: &order.delivery_id,
                names_subject: message.names_subject,
                waive_cooldown: message.follows_approval,
                at: message.at,
            };
            let reserved = self.guard.reserve(service, sending, client).await;
            if let Err(refusal) = reserved {
                self.note(&order.delivery_id, refusal.limit).await;
                return Err(refusal.problem);
            }
        }
        reach(Point::IssuerReserved);
        self.publish(&message, span).await?;
        reach(Point::IssuerPublished);
        if let Some(next) = message.next {
            let (id, send) = (&message.verification.id, message.order.delivery_id.send());
            self.schedule(id, &message.order.service, send, next)
                .await?;
        }
        if let Err(error) = self.opener.confirm(&message).await {
            // The message is queued. As it is not marked, a repeated request publishes the same
            // delivery again, which the ledger recognizes. This is no reason to refuse the request.
            tracing::warn!(%error, delivery_id = %message.order.delivery_id, "could not mark a message as confirmed");
        }
        reach(Point::IssuerMarked);
        Ok(message.verification)
    }

    /// Notes for an operator which limit refused a message. The answer to the caller names it too.
    async fn note(&self, delivery: &DeliveryId, limit: Option<Limit>) {
        let Some(limit) = limit else {
            return;
        };
        if let Err(error) = self.opener.refuse(delivery, limit.as_str()).await {
            tracing::warn!(%error, delivery_id = %delivery, "the refusal of a message could not be noted");
        }
    }

    async fn publish(&self, message: &Message, span: &mut Span) -> Result<(), Problem> {
        span.join(message.verification.id.trace_id());
        let channel = message.order.recipient.channel();
        let mut sending = span.child("send watchword.send", Kind::Producer);
        sending.say(Key::Channel, || channel.to_string());
        sending.say(Key::Delivery, || message.order.delivery_id.to_string());
        let internal = || Problem::new(ProblemCode::Internal, "the message could not be sealed");
        let event = message
            .order
            .seal(&self.sealer.get(), self.clock.now())
            .map_err(|_| internal())?;
        let outbound = Outbound {
            id: event.id.clone(),
            kind: OtpSend::TYPE,
            route: Route::Lane(Lane::Send(channel)),
            body: Bytes::from(event.encode().map_err(|_| internal())?),
            traceparent: sending
                .parent()
                .or_else(|| sending.trace().map(|trace| trace.traceparent())),
            ttl: Some(message.order.deadline.since(event.time)),
        };
        let published = self.publisher.publish(outbound, PUBLISH_DEADLINE).await;
        self.metrics.published(channel, &published);
        published.map_err(|error| {
            sending.fail();
            tracing::warn!(%error, delivery_id = %message.order.delivery_id, "could not publish a send order");
            broker_problem(&error)
        })
    }

    /// Publishes the next fallback step to the timer queue. This precedes the mark as confirmed: if
    /// it fails, a repeated request publishes both again.
    async fn schedule(
        &self,
        id: &VerificationId,
        service: &ServiceName,
        after_send: u8,
        next: NextStep,
    ) -> Result<(), Problem> {
        let now = self.clock.now();
        let (due_at, after) = (
            now.plus_millis(next.after_ms),
            DeliveryId::new(id.clone(), after_send),
        );
        let follows = (service, &after);
        let mut event = StepDue::event("/watchword/issuer", follows, next.step, (now, due_at));
        event.data.details = next.details;
        let internal = |_| Problem::new(ProblemCode::Internal, "the step could not be written");
        let outbound = Outbound {
            kind: StepDue::TYPE,
            route: Route::Lane(Lane::Timers),
            body: Bytes::from(event.encode().map_err(internal)?),
            id: event.id,
            traceparent: None,
            ttl: None,
        };
        let published = self.publisher.publish(outbound, PUBLISH_DEADLINE).await;
        published.map_err(|error| broker_problem(&error))
    }

    /// Schedules the step after a skipped one, due at once.
    async fn skip_to(
        &self,
        id: &VerificationId,
        service: &ServiceName,
        after_send: u8,
        next: Option<NextStep>,
    ) -> Result<(), Problem> {
        let Some(next) = next else {
            return Ok(());
        };
        let at_once = NextStep {
            after_ms: 0,
            ..next
        };
        self.schedule(id, service, after_send, at_once).await
    }

    fn exhausted(&self, live: &StoredVerification) -> Problem {
        Problem::new(
            ProblemCode::TooManySends,
            "wait for the verification to expire",
        )
        .retry_after(self.seconds_until(live.expires_at))
    }

    fn locked(&self, until: Timestamp) -> Problem {
        if until.as_millis() == i64::MAX {
            return Problem::new(
                ProblemCode::SubjectLocked,
                "the subject must be unlocked by an operator",
            );
        }
        Problem::new(
            ProblemCode::SubjectLocked,
            "too many wrong codes were given for this subject",
        )
        .retry_after(self.seconds_until(until))
    }

    fn seconds_until(&self, moment: Timestamp) -> u64 {
        moment.millis_since(self.clock.now()).div_ceil(1_000)
    }
}

fn changing(detail: &str) -> Problem {
    let detail = format!("{detail}; it is safe to retry");
    Problem::new(ProblemCode::StoreUnavailable, detail).retry_after(1)
}

fn broker_problem(error: &PublishError) -> Problem {
    let detail = match error {
        PublishError::Unavailable => "the broker is not connected; it is safe to retry",
        PublishError::Blocked => "the broker accepts no messages for now; it is safe to retry",
        PublishError::Rejected => "the queue is full; it is safe to retry",
        PublishError::Unroutable => "the queue is being restored; it is safe to retry",
        PublishError::Unconfirmed => "the broker did not confirm in time; it is safe to retry",
    };
    Problem::new(ProblemCode::BrokerUnavailable, detail).retry_after(1)
}

#[cfg(test)]
mod tests;
