//! The way in by event: takes `watchword.otp.requested.v1` from the broker, issues as HTTP does,
//! and answers by event. The service is the broker's validated user; what is nobody's or cannot
//! be read is parked without its content. Refuses to lose a request while the store or the
//! broker is away: it holds the message and tries again while a code would still be of use.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;
use watchword_broker::{
    Consumer, LinkState, Outbound, ParkReason, PublishError, Publisher, Received, Route,
    SettleError, work_until,
};
use watchword_chassis::spans::{Key, Kind, Spans};
use watchword_chassis::{Problem, ProblemCode, Service, Services};
use watchword_core::{Clock, Live, RequestId, ServiceName, Timestamp, TraceParent};
use watchword_events::names::event_routing_key;
use watchword_events::{
    CloudEvent, EventData, Lane, OtpRequested, Refusal, RequestParked, VerificationUpdated,
};
use watchword_verifier::Verifier;
use watchword_verifier::store::StoredVerification;

use crate::Issuer;
use crate::requests::{RequestKey, RequestLog};
use crate::telemetry::{Entry, IssuerMetrics};

const SOURCE: &str = "/watchword/issuer";
const PUBLISH_DEADLINE: Duration = Duration::from_secs(2);
/// Waits between tries while a peer is away: from 200 ms, doubled, to 5 s.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How long a request may take in all: what is older than the longest life of a code is refused.
const LONGEST_LIFE_MS: u64 = 600_000;

/// What an [`Intake`] is made of.
#[derive(Clone)]
pub struct IntakeParts {
    /// Issues codes.
    pub issuer: Arc<Issuer>,
    /// Gives the hashes for request keys.
    pub verifier: Arc<Verifier>,
    /// Remembers answers.
    pub requests: Arc<dyn RequestLog>,
    /// Who may ask.
    pub services: Live<Services>,
    /// Publishes answers.
    pub publisher: Arc<dyn Publisher>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where it counts.
    pub metrics: IssuerMetrics,
    /// Where the way of requests is recorded.
    pub spans: Spans,
}

/// Reads requests from the broker.
#[derive(Clone)]
pub struct Intake(IntakeParts);

/// A request that was read, with the service it speaks for.
struct Request {
    id: RequestId,
    service: Arc<Service>,
    asked_at: Timestamp,
    data: OtpRequested,
    caller: Option<TraceParent>,
}

impl Intake {
    /// An intake of these parts.
    pub const fn new(parts: IntakeParts) -> Self {
        Self(parts)
    }

    /// Takes requests until `stop`, each in its own task; the consumer's prefetch bounds how many.
    pub async fn run(self, consumer: Box<dyn Consumer>, stop: impl Future<Output = ()> + Send) {
        work_until(consumer, stop, move |received| {
            let intake = self.clone();
            async move { intake.take(received).await }
        })
        .await;
    }

    async fn take(&self, received: Received) {
        let settled = match self.read(&received) {
            Ok(request) => {
                self.answer(&request).await;
                received.ack().await
            }
            Err(reason) => self.put_aside(received, reason).await,
        };
        if settled.is_err() {
            // It will come again and be recognised by its id.
            tracing::debug!("a request could not be settled and will be redelivered");
        }
    }

    fn read(&self, received: &Received) -> Result<Request, ParkReason> {
        let event = CloudEvent::<OtpRequested>::decode(&received.body)
            .map_err(watchword_events::DecodeError::reason)?;
        let id = event.id.parse().map_err(|_| "not_an_event")?;
        let services = self.0.services.get();
        let service = received
            .user
            .as_deref()
            .and_then(|user| services.by_broker_user(user));
        let service = service.ok_or("unknown_user")?.clone();
        Ok(Request {
            id,
            service,
            asked_at: event.time.min(self.0.clock.now()),
            data: event.data,
            caller: received.traceparent.as_deref().and_then(TraceParent::parse),
        })
    }

    /// Issues, remembers the answer, publishes it. Comes back only when that is done or the
    /// request has grown too old.
    async fn answer(&self, request: &Request) {
        let key = RequestKey::new(self.0.verifier.index(), &request.service.name, &request.id);
        let mut wait = FIRST_WAIT;
        loop {
            match self.try_answer(key, request).await {
                Ok(()) => return,
                Err(problem) if self.is_too_old(request, LONGEST_LIFE_MS) => {
                    tracing::error!(
                        code = problem.code.as_str(),
                        "a request by event could not be answered in time"
                    );
                    self.0
                        .metrics
                        .answered(Entry::Event, &Err::<(), _>(too_old()));
                    return;
                }
                Err(_) => sleep(wait).await,
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn try_answer(&self, key: RequestKey, request: &Request) -> Result<(), Problem> {
        let away = |_| Problem::new(ProblemCode::StoreUnavailable, "the requests cannot be read");
        if let Some(answer) = self
            .0
            .requests
            .answer(key, self.0.clock.now())
            .await
            .map_err(away)?
        {
            return self.publish(&request.service.name, answer).await;
        }
        let issued = if self.is_too_old(request, request.service.policy.lifetime_ms) {
            Err(too_old())
        } else {
            let mut span =
                (self.0.spans).begin("process watchword.requests", Kind::Consumer, request.caller);
            span.say(Key::Service, || request.service.name.to_string());
            self.0
                .issuer
                .issue(&request.service, request.data.clone(), &mut span)
                .await
        };
        if let Err(problem) = &issued
            && matches!(
                problem.code,
                ProblemCode::StoreUnavailable | ProblemCode::BrokerUnavailable
            )
        {
            return Err(problem.clone());
        }
        self.0.metrics.answered(Entry::Event, &issued);
        let document = answer_document(request, issued, self.0.clock.now())?;
        let answer = self
            .0
            .requests
            .remember(key, document, self.0.clock.now())
            .await
            .map_err(away)?;
        self.publish(&request.service.name, answer).await
    }

    async fn publish(&self, service: &ServiceName, answer: String) -> Result<(), Problem> {
        let outbound = Outbound {
            id: document_id(&answer),
            kind: VerificationUpdated::TYPE,
            route: Route::Event(event_routing_key("verification", service)),
            body: Bytes::from(answer),
            traceparent: None,
            ttl: None,
        };
        self.0
            .publisher
            .publish(outbound, PUBLISH_DEADLINE)
            .await
            .map_err(|error: PublishError| {
                Problem::new(ProblemCode::BrokerUnavailable, error.to_string())
            })
    }

    /// Parks a note about the message instead of the message, which holds a recipient in clear. The
    /// message is held until the note is: given back again and again the broker would park it whole.
    /// Held for as long as any code lives it is let go of, counted but without a note.
    async fn put_aside(&self, received: Received, reason: ParkReason) -> Result<(), SettleError> {
        tracing::warn!(reason, "a request by event was put aside");
        let id = received
            .id
            .as_deref()
            .and_then(|id| id.parse::<RequestId>().ok());
        let note = CloudEvent {
            id: format!(
                "{}.parked",
                id.as_ref().map_or("unknown", RequestId::as_str)
            ),
            source: SOURCE.to_owned(),
            time: self.0.clock.now(),
            data: RequestParked {
                reason: reason.to_owned(),
                user: received.user.clone(),
                bytes: received.body.len(),
            },
        };
        let body = note.encode().unwrap_or_default();
        let (body, mut wait) = (Bytes::from(body), FIRST_WAIT);
        let begun = self.0.clock.now();
        loop {
            let outbound = Outbound {
                id: note.id.clone(),
                kind: RequestParked::TYPE,
                route: Route::Parked(Lane::Requests, reason),
                body: body.clone(),
                traceparent: None,
                ttl: None,
            };
            let published = self.0.publisher.publish(outbound, PUBLISH_DEADLINE).await;
            if published.is_ok() {
                break;
            }
            if self.0.publisher.state() == LinkState::Down {
                // It comes again with the next link.
                return Err(SettleError);
            }
            if self.0.clock.now().millis_since(begun) >= LONGEST_LIFE_MS {
                tracing::error!(
                    reason,
                    "a request by event was dropped: no note of it could be parked"
                );
                break;
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        self.0.metrics.parked(reason);
        received.ack().await
    }

    fn is_too_old(&self, request: &Request, limit_ms: u64) -> bool {
        self.0.clock.now().millis_since(request.asked_at) >= limit_ms
    }
}

fn too_old() -> Problem {
    Problem::new(
        ProblemCode::RequestExpired,
        "the request waited longer than its code would have lived",
    )
}

fn answer_document(
    request: &Request,
    issued: Result<StoredVerification, Problem>,
    now: Timestamp,
) -> Result<String, Problem> {
    let mut data = VerificationUpdated {
        request_id: request.id.to_string(),
        service: request.service.name.clone(),
        verification_id: None,
        status: None,
        channel: None,
        to: None,
        purpose: None,
        expires_at: None,
        resend_after: None,
        sends: None,
        refusal: None,
    };
    match issued {
        Ok(verification) => {
            data.verification_id = Some(verification.id);
            data.status = Some(verification.status);
            data.channel = Some(verification.channel);
            data.to = Some(verification.masked_to);
            data.purpose = Some(verification.purpose);
            data.expires_at = Some(verification.expires_at.to_rfc3339());
            data.resend_after = Some(verification.resend_after.to_rfc3339());
            data.sends = Some(verification.sends);
        }
        Err(problem) => {
            data.refusal = Some(Refusal {
                code: problem.code.as_str().to_owned(),
                detail: problem.detail,
                retry_after_seconds: problem.retry_after_seconds,
            });
        }
    }
    let word = if data.refusal.is_some() {
        "refused"
    } else {
        "opened"
    };
    let event = CloudEvent {
        id: format!("{}.{word}", request.id),
        source: SOURCE.to_owned(),
        time: now,
        data,
    };
    let internal = || Problem::new(ProblemCode::Internal, "the answer could not be written");
    let bytes = event.encode().map_err(|_| internal())?;
    String::from_utf8(bytes).map_err(|_| internal())
}

/// The id of an answer that was remembered as a document.
fn document_id(document: &str) -> String {
    CloudEvent::<VerificationUpdated>::decode(document.as_bytes())
        .map_or_else(|_| "unknown".to_owned(), |event| event.id)
}
