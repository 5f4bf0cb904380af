//! Requests by event: consumes `watchword.otp.requested.v1`, issues codes as the HTTP route does,
//! and publishes the answer as an event.
//!
//! - The broker's validated user determines the service. A user that is not configured gets a
//!   minute, because this process may not have reloaded yet.
//! - While the store or the broker is not available, the intake holds a request and retries until
//!   its code would have expired, and then answers `request_expired`. A request whose answer the
//!   broker still refuses 600 s after it was received is counted and gets no answer.
//! - A message that cannot be read is replaced by a note without its content.

mod document;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;
use watchword_broker::{
    Consumer, DeadLetterReason, Late, LinkState, Outbound, Publisher, Received, Route, Settle,
    work_until,
};
use watchword_chassis::Services;
use watchword_chassis::spans::{Key, Kind, Spans};
use watchword_core::{Clock, Live, RequestId, Service, ServiceName, Timestamp, TraceParent};
use watchword_events::names::event_routing_key;
use watchword_events::{CloudEvent, EventData, Lane, OtpRequested, VerificationUpdated};
use watchword_failpoint::shortened_ms;
use watchword_verifier::Verifier;

use crate::requests::{RequestKey, RequestLog};
use crate::telemetry::{Entry, IssuerMetrics};
use crate::{IssueError, Issuer};
use document::{Note, answer_document, document_id};

const PUBLISH_DEADLINE: Duration = Duration::from_secs(2);
/// Backoff while a peer is not available: from 200 ms, doubled, up to 5 s.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How long a request is held in total: the longest lifetime of a code.
const LONGEST_LIFE_MS: u64 = 600_000;
/// How long the answer to an expired request is retried while the broker refuses it.
const LATE_PATIENCE_MS: u64 = 60_000;
/// How long a message is held until its note is published. If an alarm of the broker lasts longer,
/// the message is counted and dropped without a note.
const NOTE_WITHIN_MS: u64 = 60_000;
/// How long a request of a user that is not configured is held, and how often the configuration is
/// checked. Orchestrators take up to a minute to distribute a new configuration.
const USER_WAIT_MS: u64 = 60_000;
const USER_LOOK: Duration = Duration::from_secs(1);
/// Most such requests held at once: half of the messages that a service's queue delivers at a time,
/// so that an unknown user cannot block the service's own users.
const USERS_HELD: usize = 8;
/// Maximum size of a request in bytes, as over HTTP.
const MAX_BODY_BYTES: usize = 16 * 1024;

/// The dependencies of an [`Intake`].
#[derive(Clone)]
pub struct IntakeParts {
    /// Issues codes.
    pub issuer: Arc<Issuer>,
    /// Provides the hashes for request keys.
    pub verifier: Arc<Verifier>,
    /// Remembers answers.
    pub requests: Arc<dyn RequestLog>,
    /// The services and their broker users.
    pub services: Live<Services>,
    /// Publishes answers and notes.
    pub publisher: Arc<dyn Publisher>,
    /// The clock by which requests expire.
    pub clock: Arc<dyn Clock>,
    /// Metrics of the issuer.
    pub metrics: IssuerMetrics,
    /// Records a span per request.
    pub spans: Spans,
}

/// Consumes requests from the broker.
#[derive(Clone)]
pub struct Intake(IntakeParts, Arc<Semaphore>);

/// A decoded request and the service that it belongs to.
struct Request {
    id: RequestId,
    service: Arc<Service>,
    asked_at: Timestamp,
    received_at: Timestamp,
    data: OtpRequested,
    caller: Option<TraceParent>,
}

/// The properties of a message, without its body.
struct Envelope {
    id: Option<String>,
    user: Option<String>,
    bytes: usize,
    late: Option<Late>,
    settle: Box<dyn Settle>,
}

/// How the processing of a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    /// The message can be acknowledged.
    Settled,
    /// The connection was lost: the broker redelivers the message.
    LetGo,
}

impl Intake {
    /// Creates an intake.
    pub fn new(parts: IntakeParts) -> Self {
        Self(parts, Arc::new(Semaphore::new(USERS_HELD)))
    }

    /// Processes requests until `stop`, each in its own task. The consumer's prefetch bounds their
    /// number.
    pub async fn run(self, consumer: Box<dyn Consumer>, stop: impl Future<Output = ()> + Send) {
        // Dropping `running` tells waiting requests that the intake stops.
        let (running, stopped) = watch::channel(());
        let stop = async move {
            stop.await;
            drop(running);
        };
        work_until(consumer, stop, move |received| {
            let (intake, stopped) = (self.clone(), stopped.clone());
            async move { intake.take(received, stopped).await }
        })
        .await;
    }

    async fn take(&self, received: Received, stopped: watch::Receiver<()>) {
        let Some(read) = self.read_known(&received, stopped).await else {
            // The broker redelivers it to a running issuer.
            return;
        };
        // Free the body while peers are not available: the broker's limit on its size is far higher
        // than ours.
        let envelope = Envelope {
            bytes: received.body.len(),
            id: received.id,
            user: received.user,
            late: received.late,
            settle: received.settle,
        };
        drop(received.body);
        let done = match read {
            Ok(request) => self.answer(&request, &envelope).await,
            Err(reason) => self.put_aside(reason, &envelope).await,
        };
        if done == Done::LetGo || envelope.settle.ack().await.is_err() {
            // The message is redelivered and recognized by its id.
            tracing::debug!("a request could not be settled and will be redelivered");
        }
    }

    /// Decodes a message. If its user is not configured, decodes it again each second, for at most
    /// [`USER_WAIT_MS`]. Returns `None` if the intake stops or the connection is lost.
    async fn read_known(
        &self,
        received: &Received,
        mut stopped: watch::Receiver<()>,
    ) -> Option<Result<Request, DeadLetterReason>> {
        let read = self.read(received);
        let may_be_new = matches!(read, Err(DeadLetterReason::UnknownUser))
            && received.user.is_some()
            && received.late.is_none();
        if !may_be_new {
            return Some(read);
        }
        let Ok(_place) = self.1.try_acquire() else {
            return Some(read);
        };
        let begun = self.0.clock.now();
        loop {
            tokio::select! {
                _ = stopped.changed() => return None,
                () = sleep(USER_LOOK) => {}
            }
            if !received.is_held() {
                return None;
            }
            let read = self.read(received);
            let waited_ms = self.0.clock.now().millis_since(begun);
            if !matches!(read, Err(DeadLetterReason::UnknownUser))
                || waited_ms >= shortened_ms(USER_WAIT_MS)
            {
                return Some(read);
            }
        }
    }

    fn read(&self, received: &Received) -> Result<Request, DeadLetterReason> {
        if received.body.len() > MAX_BODY_BYTES {
            return Err(DeadLetterReason::TooLarge);
        }
        let event = CloudEvent::<OtpRequested>::decode(&received.body)?;
        let id = event.id.parse();
        let id = id.map_err(|_| DeadLetterReason::NotAnEvent)?;
        let services = self.0.services.get();
        let service = received
            .user
            .as_deref()
            .and_then(|user| services.by_broker_user(user));
        let service = service.ok_or(DeadLetterReason::UnknownUser)?.clone();
        // Without topic permissions a user could publish into the queue of another service.
        let is_own_queue = received
            .service
            .as_ref()
            .is_none_or(|own| *own == service.name);
        if !is_own_queue {
            return Err(DeadLetterReason::WrongQueue);
        }
        Ok(Request {
            id,
            service,
            // A publisher's clock may be ahead; that must not prolong its request.
            asked_at: event.time.min(self.0.clock.now()),
            received_at: self.0.clock.now(),
            data: event.data,
            caller: received.traceparent,
        })
    }

    /// Issues a code, remembers the answer and publishes it. Retries until that succeeds, the
    /// connection is lost, or the code would have expired; in the last case the answer is
    /// `request_expired`, remembered or not.
    async fn answer(&self, request: &Request, envelope: &Envelope) -> Done {
        let key = RequestKey::new(self.0.verifier.index(), &request.service.name, &request.id);
        let (mut document, mut wait) = (None, FIRST_WAIT);
        loop {
            let tried = self.try_answer(key, request, envelope, &mut document);
            let Err(error) = tried.await else {
                break;
            };
            if !envelope.settle.is_held() {
                return Done::LetGo;
            }
            if self.is_too_old(request, request.service.policy.lifetime_ms)
                && self.answer_expired(request).await.is_ok()
            {
                break;
            }
            // Measure from reception, not from the request's own time: a request from the late
            // queue, or of a publisher whose clock is behind, may be that old before the first try.
            let patience_ms = match envelope.late {
                Some(_) => LATE_PATIENCE_MS,
                None => LONGEST_LIFE_MS,
            };
            if self.0.clock.now().millis_since(request.received_at) >= patience_ms {
                tracing::error!(
                    code = error.code().as_str(),
                    "a request by event could not be answered in time"
                );
                self.0
                    .metrics
                    .refused(Entry::Event, IssueError::Expired.code());
                break;
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        let reason = match envelope.late {
            None => return Done::Settled,
            Some(Late::Expired) => DeadLetterReason::Expired,
            Some(Late::DeliveryLimit) => DeadLetterReason::DeliveryLimit,
        };
        self.put_aside(reason, envelope).await
    }

    /// Makes one attempt: publishes the remembered answer, or creates, remembers and publishes one.
    /// The answer stays in `document`, so that a further attempt issues no second code.
    async fn try_answer(
        &self,
        key: RequestKey,
        request: &Request,
        envelope: &Envelope,
        document: &mut Option<String>,
    ) -> Result<(), IssueError> {
        let away = |_| IssueError::StoreUnavailable("the requests cannot be read");
        let requests = &self.0.requests;
        if document.is_none() {
            let answered = requests.answer(key, self.0.clock.now()).await;
            if let Some(answer) = answered.map_err(away)? {
                return self.publish(&request.service.name, answer).await;
            }
            *document = Some(self.issue(request, envelope).await?);
        }
        let made = document.clone().unwrap_or_default();
        let answer = requests.remember(key, made, self.0.clock.now()).await;
        let answer = answer.map_err(away)?;
        self.publish(&request.service.name, answer).await
    }

    /// Issues a code and returns the answer's document. Fails only while a peer is not available.
    async fn issue(&self, request: &Request, envelope: &Envelope) -> Result<String, IssueError> {
        let is_expired =
            envelope.late.is_some() || self.is_too_old(request, request.service.policy.lifetime_ms);
        let issued = if is_expired {
            Err(IssueError::Expired)
        } else {
            let mut span =
                (self.0.spans).begin("process watchword.requests", Kind::Consumer, request.caller);
            span.say(Key::Service, || request.service.name.to_string());
            self.0
                .issuer
                .issue(&request.service, request.data.clone(), &mut span)
                .await
        };
        match &issued {
            Ok(_) => self.0.metrics.accepted(Entry::Event),
            Err(error) if error.is_unavailable() => return Err(error.clone()),
            Err(error) => self.0.metrics.refused(Entry::Event, error.code()),
        }
        answer_document(request, issued, self.0.clock.now())
    }

    /// Answers `request_expired` without the store.
    async fn answer_expired(&self, request: &Request) -> Result<(), IssueError> {
        let answer = answer_document(request, Err(IssueError::Expired), self.0.clock.now())?;
        self.publish(&request.service.name, answer).await?;
        self.0
            .metrics
            .refused(Entry::Event, IssueError::Expired.code());
        Ok(())
    }

    async fn publish(&self, service: &ServiceName, answer: String) -> Result<(), IssueError> {
        let outbound = Outbound {
            id: document_id(&answer),
            kind: VerificationUpdated::TYPE,
            route: Route::Event(event_routing_key("verification", service)),
            body: Bytes::from(answer),
            traceparent: None,
            ttl: None,
        };
        let published = self.0.publisher.publish(outbound, PUBLISH_DEADLINE);
        Ok(published.await?)
    }

    /// Dead-letters a message by publishing a note in its place. The message is held until then,
    /// for at most [`NOTE_WITHIN_MS`]: if it were requeued, the broker would redeliver it
    /// immediately, and count each time towards the delivery limit.
    async fn put_aside(&self, reason: DeadLetterReason, envelope: &Envelope) -> Done {
        let user = envelope.user.as_deref().unwrap_or("-");
        tracing::warn!(%reason, user, "dead-lettered a request by event");
        let begun = self.0.clock.now();
        let user = envelope.user.clone();
        let note = Note::new(reason, envelope.id.as_deref(), user, envelope.bytes, begun);
        let mut wait = FIRST_WAIT;
        loop {
            let outbound = Outbound {
                id: note.id.clone(),
                kind: Note::KIND,
                route: Route::Parked(Lane::Requests, note.reason),
                body: note.body.clone(),
                traceparent: None,
                ttl: None,
            };
            let published = self.0.publisher.publish(outbound, PUBLISH_DEADLINE).await;
            if published.is_ok() {
                break;
            }
            let is_down = self.0.publisher.state() == LinkState::Down;
            if is_down || !envelope.settle.is_held() {
                return Done::LetGo;
            }
            if self.0.clock.now().millis_since(begun) >= NOTE_WITHIN_MS {
                tracing::error!(
                    %reason,
                    "dropped a request by event: its note could not be published"
                );
                break;
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        self.0.metrics.dead_lettered(reason);
        Done::Settled
    }

    fn is_too_old(&self, request: &Request, limit_ms: u64) -> bool {
        self.0.clock.now().millis_since(request.asked_at) >= limit_ms
    }
}
