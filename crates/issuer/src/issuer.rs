//! The way of a request: guard, open, reserve, seal, publish, confirm. Success is said only after
//! the broker's confirm; every refusal is a [`Problem`] with a stable code.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use watchword_broker::{LinkState, Outbound, PublishError, Publisher, Route};
use watchword_chassis::{Problem, ProblemCode, Service};
use watchword_core::{Clock, Timestamp, VerificationId};
use watchword_events::{EventData, Lane, OtpRequested, OtpSend, Sealer};
use watchword_storage::StorageError;
use watchword_verifier::store::StoredVerification;
use watchword_verifier::{Message, Opening, Verifier};

use crate::limits::{Permit, Reservation, SendLimiter};
use crate::request;
use crate::telemetry::IssuerMetrics;

/// How long a confirm may take: with two store calls of at most a second in front of it, a
/// healthy store and a silent broker give an answer within 2 s.
const PUBLISH_DEADLINE: Duration = Duration::from_millis(1_500);

/// Accepts requests for codes.
pub struct Issuer {
    verifier: Arc<Verifier>,
    limiter: Arc<dyn SendLimiter>,
    publisher: Arc<dyn Publisher>,
    sealer: Sealer,
    clock: Arc<dyn Clock>,
    metrics: IssuerMetrics,
}

/// What an [`Issuer`] is made of.
pub struct IssuerParts {
    /// Opens verifications.
    pub verifier: Arc<Verifier>,
    /// Counts messages.
    pub limiter: Arc<dyn SendLimiter>,
    /// Publishes orders.
    pub publisher: Arc<dyn Publisher>,
    /// Seals them.
    pub sealer: Sealer,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where it counts.
    pub metrics: IssuerMetrics,
}

impl Issuer {
    /// An issuer of these parts.
    pub fn new(parts: IssuerParts) -> Self {
        let IssuerParts {
            verifier,
            limiter,
            publisher,
            sealer,
            clock,
            metrics,
        } = parts;
        Self {
            verifier,
            limiter,
            publisher,
            sealer,
            clock,
            metrics,
        }
    }

    /// Accepts one request: opens a verification and queues its message, or continues the live
    /// one. Asking again is always safe.
    pub async fn issue(
        &self,
        service: &Service,
        request: OtpRequested,
    ) -> Result<StoredVerification, Problem> {
        let request = request::parse(service, request)?;
        self.admit(service).await?;
        match self.verifier.open(service, request).await? {
            Opening::Send(message) => self.send(service, *message).await,
            // A reloaded login page is no attack: the person already has the code.
            Opening::Cooling(live) => Ok(live),
            Opening::Exhausted(live) => Err(self.exhausted(&live)),
            Opening::Locked(until) => Err(self.locked(until)),
        }
    }

    /// Sends the code of `id` again.
    pub async fn resend(
        &self,
        service: &Service,
        id: &VerificationId,
    ) -> Result<StoredVerification, Problem> {
        self.admit(service).await?;
        match self.verifier.resend(service, id).await? {
            Some(Opening::Send(message)) => self.send(service, *message).await,
            Some(Opening::Cooling(live)) => {
                let wait = self.seconds_until(live.resend_after);
                Err(
                    Problem::new(ProblemCode::Cooldown, "the last message is too young")
                        .retry_after(wait),
                )
            }
            Some(Opening::Exhausted(live)) => Err(self.exhausted(&live)),
            Some(Opening::Locked(until)) => Err(self.locked(until)),
            None => Err(Problem::new(
                ProblemCode::NotFound,
                "the service has no live verification of this id",
            )),
        }
    }

    /// The verification as it is now, if it is the service's.
    pub async fn status(
        &self,
        service: &Service,
        id: &VerificationId,
    ) -> Result<Option<StoredVerification>, Problem> {
        Ok(self.verifier.get(&service.name, id).await?)
    }

    async fn admit(&self, service: &Service) -> Result<(), Problem> {
        // With the broker away nothing could be sent: say so before anything is opened.
        match self.publisher.state() {
            LinkState::Up => {}
            LinkState::Blocked => return Err(broker_problem(&PublishError::Blocked)),
            LinkState::Down => return Err(broker_problem(&PublishError::Unavailable)),
        }
        let permit = self
            .limiter
            .admit(&service.name, service.limits, self.clock.now())
            .await
            .map_err(store_problem)?;
        self.permitted(permit, "the service asks for codes too often")
    }

    async fn send(
        &self,
        service: &Service,
        message: Message,
    ) -> Result<StoredVerification, Problem> {
        let reservation = Reservation {
            recipient: self
                .verifier
                .index()
                .recipient_tag(&service.name, &message.order.recipient),
            delivery: message.order.delivery_id.clone(),
            waive_cooldown: message.follows_approval,
            limits: service.limits,
            now: message.at,
        };
        let permit = self
            .limiter
            .reserve(reservation)
            .await
            .map_err(store_problem)?;
        self.permitted(permit, "the recipient gets too many messages")?;
        self.publish(&message).await?;
        if let Err(error) = self.verifier.confirm(&message.order.delivery_id).await {
            // The message is queued. Unmarked, a repeat publishes the same delivery again, which
            // the ledger recognises: no reason to refuse this one.
            tracing::warn!(%error, delivery_id = %message.order.delivery_id, "a confirmed message could not be marked");
        }
        Ok(message.verification)
    }

    async fn publish(&self, message: &Message) -> Result<(), Problem> {
        let internal = || Problem::new(ProblemCode::Internal, "the message could not be sealed");
        let event = message
            .order
            .seal(&self.sealer, self.clock.now())
            .map_err(|_| internal())?;
        let outbound = Outbound {
            id: event.id.clone(),
            kind: OtpSend::TYPE,
            route: Route::Lane(Lane::Send(message.order.recipient.channel())),
            body: Bytes::from(event.encode().map_err(|_| internal())?),
            traceparent: None,
        };
        let published = self.publisher.publish(outbound, PUBLISH_DEADLINE).await;
        self.metrics
            .published(message.order.recipient.channel(), &published);
        published.map_err(|error| {
            tracing::warn!(%error, delivery_id = %message.order.delivery_id, "a message could not be queued");
            broker_problem(&error)
        })
    }

    fn permitted(&self, permit: Permit, detail: &str) -> Result<(), Problem> {
        match permit {
            Permit::Granted => Ok(()),
            Permit::Refused { until } => Err(Problem::new(ProblemCode::RateLimited, detail)
                .retry_after(self.seconds_until(until))),
        }
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

fn store_problem(_: StorageError) -> Problem {
    Problem::new(ProblemCode::StoreUnavailable, "the limits cannot be read").retry_after(1)
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
