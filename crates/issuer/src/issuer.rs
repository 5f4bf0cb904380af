//! The path of a request: count, open, reserve, seal, publish, confirm. The issuer answers with
//! success only after the broker's confirm.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use watchword_broker::{LinkState, Outbound, PublishError, Publisher, Route};
use watchword_chassis::spans::{Key, Kind, Span};
use watchword_core::{
    Clock, DeliveryId, DeliveryOutcome, Live, Sealer, Service, ServiceName, SubjectTag, Timestamp,
    VerificationId,
};
use watchword_events::{ClientRequested, EventData, Lane, OtpRequested, OtpSend, StepDue};
use watchword_failpoint::{Point, reach};
use watchword_ledger::{LedgerStore, Settlement};
use watchword_verifier::store::{StepOf, StoredVerification};
use watchword_verifier::{Asked, Change, Message, NextStep, Opener, Opening};

use crate::IssueError;
use crate::guard::{Guard, Sending};
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

/// Prefix of the detail if a limit refuses a message whose variables differ from the last one's.
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
    ) -> Result<StoredVerification, IssueError> {
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
            Opening::Ended(_) => Err(IssueError::StoreUnavailable(
                "the verification ended while its message was prepared; it is safe to retry",
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
    ) -> Result<StoredVerification, IssueError> {
        let client = self.guard.client(service, client)?;
        self.admit(service).await?;
        let asked = self.opener.resend(service, id).await?;
        let asked = asked.ok_or(IssueError::Gone)?;
        let (opening, counted) = self.decided(service, asked, client).await?;
        match opening {
            Opening::Send(message) => self.send(service, *message, client, counted, span).await,
            Opening::Cooling(live) => {
                let seconds = service.policy.cooldown_ms / 1_000;
                Err(IssueError::Limited {
                    limit: Limit::Cooldown,
                    detail: format!("a message was sent less than {seconds} s ago"),
                    wait_seconds: self.seconds_until(live.resend_after),
                })
            }
            Opening::Exhausted(live) => Err(self.exhausted(&live)),
            Opening::Locked(until) => Err(self.locked(until)),
            Opening::Ended(_) => Err(IssueError::Gone),
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
    ) -> Result<(Opening, Option<DeliveryId>), IssueError> {
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
        Err(IssueError::StoreUnavailable(
            "the verification changed too often; it is safe to retry",
        ))
    }

    /// Completes the steps that must precede a change or withdrawal of the live verification.
    /// Returns the message that it counted.
    async fn prepare(
        &self,
        service: &Service,
        change: &Change,
        client: Option<SubjectTag>,
    ) -> Result<Option<DeliveryId>, IssueError> {
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
            reserved.map_err(explain_other_content)?;
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
    ) -> Result<Option<StoredVerification>, IssueError> {
        Ok(self.opener.verifier().get(&service.name, id).await?)
    }

    async fn admit(&self, service: &Service) -> Result<(), IssueError> {
        // Without the broker nothing can be sent: answer before a verification is opened.
        match self.publisher.state() {
            LinkState::Up => {}
            LinkState::Blocked => return Err(PublishError::Blocked.into()),
            LinkState::Down => return Err(PublishError::Unavailable.into()),
        }
        self.guard.admit(service).await
    }

    /// Executes a fallback step that is due.
    ///
    /// After an error the step must be retried: a peer is not available, or the cooldown of the
    /// recipient is running. A step that another limit refuses is skipped, and the step after it
    /// becomes due at once.
    pub(crate) async fn step(
        &self,
        service: &Service,
        due: &StepDue,
    ) -> Result<Stepped, IssueError> {
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
            Err(error) if error.is_rate_limited() => {
                self.skip_to(id, &service.name, due.after_send, next)
                    .await?;
                return Ok(Stepped::Refused);
            }
            Err(error) => return Err(error),
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
            Err(error) if error.is_rate_limited() => {
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
                settled
                    .map_err(|_| IssueError::StoreUnavailable("the ledger cannot be written"))?;
                self.skip_to(id, &service.name, send, next).await?;
                Ok(Stepped::Refused)
            }
            Err(error) => Err(error),
        }
    }

    async fn send(
        &self,
        service: &Service,
        message: Message,
        client: Option<SubjectTag>,
        counted: Option<DeliveryId>,
        span: &mut Span,
    ) -> Result<StoredVerification, IssueError> {
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
            if let Err(error) = reserved {
                self.note(&order.delivery_id, &error).await;
                return Err(error);
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
    async fn note(&self, delivery: &DeliveryId, error: &IssueError) {
        let IssueError::Limited { limit, .. } = error else {
            return;
        };
        if let Err(error) = self.opener.refuse(delivery, limit.as_str()).await {
            tracing::warn!(%error, delivery_id = %delivery, "the refusal of a message could not be noted");
        }
    }

    async fn publish(&self, message: &Message, span: &mut Span) -> Result<(), IssueError> {
        span.join(message.verification.id.trace_id());
        let channel = message.order.recipient.channel();
        let mut sending = span.child("send watchword.send", Kind::Producer);
        sending.say(Key::Channel, || channel.to_string());
        sending.say(Key::Delivery, || message.order.delivery_id.to_string());
        let internal = || IssueError::Internal("the message could not be sealed");
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
            error.into()
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
    ) -> Result<(), IssueError> {
        let now = self.clock.now();
        let (due_at, after) = (
            now.plus_millis(next.after_ms),
            DeliveryId::new(id.clone(), after_send),
        );
        let follows = (service, &after);
        let mut event = StepDue::event("/watchword/issuer", follows, next.step, (now, due_at));
        event.data.details = next.details;
        let internal = |_| IssueError::Internal("the step could not be written");
        let outbound = Outbound {
            kind: StepDue::TYPE,
            route: Route::Lane(Lane::Timers),
            body: Bytes::from(event.encode().map_err(internal)?),
            id: event.id,
            traceparent: None,
            ttl: None,
        };
        let published = self.publisher.publish(outbound, PUBLISH_DEADLINE).await;
        Ok(published?)
    }

    /// Schedules the step after a skipped one, due at once.
    async fn skip_to(
        &self,
        id: &VerificationId,
        service: &ServiceName,
        after_send: u8,
        next: Option<NextStep>,
    ) -> Result<(), IssueError> {
        let Some(next) = next else {
            return Ok(());
        };
        let at_once = NextStep {
            after_ms: 0,
            ..next
        };
        self.schedule(id, service, after_send, at_once).await
    }

    fn exhausted(&self, live: &StoredVerification) -> IssueError {
        let wait_seconds = self.seconds_until(live.expires_at);
        IssueError::TooManySends { wait_seconds }
    }

    fn locked(&self, until: Timestamp) -> IssueError {
        if until.as_millis() == i64::MAX {
            return IssueError::SubjectLockedForGood;
        }
        let wait_seconds = self.seconds_until(until);
        IssueError::SubjectLocked { wait_seconds }
    }

    fn seconds_until(&self, moment: Timestamp) -> u64 {
        moment.millis_since(self.clock.now()).div_ceil(1_000)
    }
}

/// Adds to a refusal by a limit that the earlier code stays valid.
fn explain_other_content(error: IssueError) -> IssueError {
    match error {
        IssueError::Limited {
            limit,
            detail,
            wait_seconds,
        } => IssueError::Limited {
            limit,
            detail: format!("{OTHER_CONTENT}: {detail}"),
            wait_seconds,
        },
        other => other,
    }
}

#[cfg(test)]
mod tests;
