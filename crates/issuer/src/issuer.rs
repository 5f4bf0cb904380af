//! The way of a request: guard, open, reserve, seal, publish, confirm. Success is said only after
//! the broker's confirm; every refusal is a [`Problem`] with a stable code.

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

/// How long a confirm may take: with the calls of a healthy store in front of it, a silent broker
/// gives an answer within 2 s.
const PUBLISH_DEADLINE: Duration = Duration::from_millis(1_500);

/// How often another request may change the verification while this request is decided.
const DECISIONS: u32 = 4;

/// A limit refuses the message of a request whose variables differ from the live verification's.
const OTHER_CONTENT: &str = "the variables differ from those of the last message and a limit of \
    the recipient holds the new one back; the code of the last message stays valid for its own \
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

/// What an [`Issuer`] is made of.
pub struct IssuerParts {
    /// Opens verifications.
    pub opener: Arc<Opener>,
    /// Counts messages.
    pub limiter: Arc<dyn SendLimiter>,
    /// What became of deliveries.
    pub ledger: Arc<dyn LedgerStore>,
    /// Publishes orders.
    pub publisher: Arc<dyn Publisher>,
    /// Seals them.
    pub sealer: Live<Sealer>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where it counts.
    pub metrics: IssuerMetrics,
    /// Renders the messages of requests before anything is opened.
    pub texts: Live<Box<dyn MessageCheck>>,
}

impl Issuer {
    /// An issuer of these parts.
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

    /// Accepts one request: opens a verification and queues its message, or continues the live
    /// one. Asking again is always safe.
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
            // A reloaded login page is no attack: the person already has the code.
            Opening::Cooling(live) => Ok(live),
            // Nothing was sent. The next request opens another verification.
            Opening::Ended(_) => Err(changing(
                "the verification ended while its message was made",
            )),
            Opening::Exhausted(live) => Err(self.exhausted(&live)),
            Opening::Locked(until) => Err(self.locked(until)),
        }
    }

    /// Sends the code of `id` again for `client`.
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

    /// Decides what a request waits for, and returns the message that was counted for it already.
    /// Limits come first: if a limit refuses the new message, the earlier code stays valid.
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
        Err(changing("the verification changes too often"))
    }

    /// Completes the steps that must precede a change or withdrawal of the live verification;
    /// returns the message that it counted.
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
        // Planned before the fallback is replaced: until then the step finds another fallback and
        // does nothing, and a crash in between loses no step.
        if let Some((id, send, next)) = change.next() {
            self.schedule(id, &service.name, send, next).await?;
        }
        Ok(None)
    }

    /// The verification as it is now, if it is the service's.
    pub async fn status(
        &self,
        service: &Service,
        id: &VerificationId,
    ) -> Result<Option<StoredVerification>, Problem> {
        Ok(self.opener.verifier().get(&service.name, id).await?)
    }

    async fn admit(&self, service: &Service) -> Result<(), Problem> {
        // With the broker away nothing could be sent: say so before anything is opened.
        match self.publisher.state() {
            LinkState::Up => {}
            LinkState::Blocked => return Err(broker_problem(&PublishError::Blocked)),
            LinkState::Down => return Err(broker_problem(&PublishError::Unavailable)),
        }
        self.guard.admit(service).await
    }

    /// Takes a fallback step that is due. After an error it must be brought again: a peer is away, or
    /// the recipient had a message a moment ago. A step that another limit refuses is skipped: the
    /// one after it is due at once.
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
            // The verification has not counted the message: there is nothing to settle.
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
        // The client of the request is no longer known.
        match self.send(service, message, None, counted, &mut span).await {
            Ok(_) => Ok(Stepped::Sent),
            Err(problem) if problem.code == ProblemCode::RateLimited => {
                // The message was counted but may not go out: the ledger says so.
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
            // The message is queued. Unmarked, a repeat publishes the same delivery again, which
            // the ledger recognises: no reason to refuse this one.
            tracing::warn!(%error, delivery_id = %message.order.delivery_id, "a confirmed message could not be marked");
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
                .map(|parent| parent.to_string())
                .or_else(|| sending.trace().map(|trace| trace.traceparent())),
            ttl: Some(message.order.deadline.since(event.time)),
        };
        let published = self.publisher.publish(outbound, PUBLISH_DEADLINE).await;
        self.metrics.published(channel, &published);
        published.map_err(|error| {
            sending.fail();
            tracing::warn!(%error, delivery_id = %message.order.delivery_id, "a message could not be queued");
            broker_problem(&error)
        })
    }

    /// Puts the next step of the workflow into the timer queue. Before the message is marked as
    /// confirmed: whoever asks again then publishes both again.
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

    /// Schedules the step after one that is not taken, due at once.
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
    let detail = format!("{detail}; asking again is safe");
    Problem::new(ProblemCode::StoreUnavailable, detail).retry_after(1)
}

fn broker_problem(error: &PublishError) -> Problem {
    let detail = match error {
        PublishError::Unavailable => "the broker is not connected; asking again is safe",
        PublishError::Blocked => "the broker takes no messages for now; asking again is safe",
        PublishError::Rejected => "the queue is full; asking again is safe",
        PublishError::Unroutable => "the queue is being restored; asking again is safe",
        PublishError::Unconfirmed => "the broker did not confirm in time; asking again is safe",
    };
    Problem::new(ProblemCode::BrokerUnavailable, detail).retry_after(1)
}

#[cfg(test)]
mod tests;
