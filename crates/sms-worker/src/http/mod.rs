//! SMS gateways with an HTTP API, described by configuration. The client follows no redirects, uses
//! no proxy and no plain HTTP beyond loopback, and reads at most 64 KiB of an answer. Errors and
//! logs contain nothing that the gateway sent.

mod auth;
mod config;
mod placeholder;
mod request;
mod response;
mod show;
mod sigv4;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Request, Response};
use tokio::time::{Instant, timeout};
use watchword_chassis::config::ConfigError;
use watchword_core::{AttemptClass, Clock, ProviderName};
use watchword_delivery::{Attempted, Dispatch, Provider, Scope, TlsPeer, attempt_limit};
use watchword_dial::TlsFault;

pub use config::{Preset, ReceiptConfig, RequestConfig, ResponseConfig};
pub use response::ResponsePlan;
pub(crate) use response::{as_text, check_pointer, plain_id};

use crate::config::{Secrets, Senders};
use crate::payload;
use crate::receipt::ReceiptPlan;
use crate::segments::Encoding;
use crate::text::{SmsText, TextError};
use auth::AuthFault;
use placeholder::{Settings, Values};
use request::RequestPlan;

/// How long a connection stays open without a message. Its buffers hold the last message with code
/// and number until it closes. Under load no connection is idle for that long.
const IDLE_LIMIT: Duration = Duration::from_secs(5);
/// Maximum number of headers in an answer. Proxies in front of gateways add theirs, and an answer
/// beyond the limit is lost even if the gateway accepted the message.
const MAX_HEADERS: usize = 512;
/// Time reserved before the attempt limit: reading an answer ends this much earlier, because at the
/// limit the worker records an unknown outcome.
const MARGIN: Duration = Duration::from_millis(200);
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// Arguments of [`HttpProvider::new`].
pub(crate) struct HttpProviderParts<'a> {
    pub name: ProviderName,
    pub senders: Senders,
    pub timeout_seconds: u64,
    pub settings: Settings,
    pub secrets: &'a Secrets,
    pub request: &'a RequestConfig,
    pub response: &'a ResponseConfig,
    /// Public URL and receipt plan, if the gateway is asked for receipts.
    pub receipts: Option<(String, Arc<ReceiptPlan>)>,
    pub text: SmsText,
    pub clock: Arc<dyn Clock>,
}

/// SMS provider with an HTTP API.
pub struct HttpProvider {
    name: ProviderName,
    senders: Senders,
    limit: Duration,
    client: Client,
    request: RequestPlan,
    is_idempotent: bool,
    response: ResponsePlan,
    receipts: Option<(String, Arc<ReceiptPlan>)>,
    text: SmsText,
    clock: Arc<dyn Clock>,
}

/// Answer of the gateway.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    /// Index of the rule that matched.
    rule: Option<usize>,
}

/// Error of building or signing a request.
enum Unmade {
    Text(TextError),
    Request,
    Auth(AuthFault),
}

impl HttpProvider {
    /// Compiles the configuration. Errors name the config key.
    pub(crate) fn new(parts: HttpProviderParts<'_>) -> Result<Self, ConfigError> {
        let limit = attempt_limit(parts.timeout_seconds)?;
        let client = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_DEADLINE.min(limit))
            .timeout(limit)
            .tcp_nodelay(true)
            .pool_max_idle_per_host(512)
            .pool_idle_timeout(IDLE_LIMIT)
            .user_agent("watchword")
            .default_headers(HeaderMap::from_iter([(
                ACCEPT_ENCODING,
                HeaderValue::from_static("identity"),
            )]))
            // A malformed header must not hide that the gateway accepted the message.
            .http1_max_headers(MAX_HEADERS)
            .http1_ignore_invalid_headers_in_responses(true)
            .http1_allow_spaces_after_header_name_in_responses(true)
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            .build()
            .map_err(|_| ConfigError::new("request", "cannot set up TLS"))?;
        Ok(Self {
            name: parts.name,
            senders: parts.senders,
            limit,
            client,
            request: RequestPlan::compile(parts.request, &parts.settings, parts.secrets)
                .map_err(|error| error.within("request"))?,
            is_idempotent: parts.request.idempotent,
            response: ResponsePlan::compile(parts.response)
                .map_err(|error| error.within("response"))?,
            receipts: parts.receipts,
            text: parts.text,
            clock: parts.clock,
        })
    }

    async fn request(&self, dispatch: &Dispatch) -> Result<Request, Unmade> {
        let (text, segments) = self.text.render(dispatch).map_err(Unmade::Text)?;
        let message_id = dispatch.delivery_id.to_string();
        let values = Values {
            to: dispatch.recipient.expose(),
            text: &text,
            code: dispatch.code.expose(),
            app: &dispatch.sender.app,
            sender: self.senders.of(&dispatch.recipient),
            callback: self
                .receipts
                .as_ref()
                .map_or_else(String::new, |(url, plan)| {
                    plan.callback(url, &dispatch.delivery_id)
                }),
            message_id,
            remaining: dispatch.remaining,
            now: self.clock.now(),
            is_ucs2: segments.encoding == Encoding::Ucs2,
        };
        let request = self
            .request
            .build(&self.client, &values)
            .ok_or(Unmade::Request)?;
        self.request
            .auth
            .sign(request, &values.message_id, &self.client, &self.clock)
            .await
            .map_err(Unmade::Auth)
    }

    async fn exchange(&self, request: Request) -> (Attempted, Option<Answer>) {
        let alone = |class, reason: &str| (Attempted::new(class, reason), None);
        let begun = Instant::now();
        let showed = request.headers().get(AUTHORIZATION).cloned();
        let mut response = match self.client.execute(request).await {
            Ok(response) => response,
            // If connecting failed nothing was sent; after that the outcome is unknown.
            Err(error) if error.is_connect() => {
                let reason = unreached_reason("connect", TlsFault::of(&error));
                let attempted = Attempted::new(AttemptClass::Transient, reason);
                return (attempted.about(Scope::Provider), None);
            }
            Err(error) if error.is_timeout() => {
                return alone(AttemptClass::UnknownOutcome, "timeout");
            }
            Err(_) => return alone(AttemptClass::UnknownOutcome, "connection"),
        };
        let status = response.status().as_u16();
        if status == 401 {
            let (auth, now) = (&self.request.auth, self.clock.now());
            if auth.refused(showed.as_ref(), now).await {
                return alone(AttemptClass::Transient, "token");
            }
        }
        // If the body stops arriving, the status and the headers may still decide.
        let patience = self.limit.saturating_sub(begun.elapsed() + MARGIN);
        let body = timeout(patience, read_answer(&mut response)).await;
        let body = body.ok().flatten();
        let headers = std::mem::take(response.headers_mut());
        let (attempted, rule) = self.response.explain(status, &headers, body.as_deref());
        let answer = Answer {
            status,
            headers,
            body: body.unwrap_or_default(),
            rule,
        };
        (attempted, Some(answer))
    }

    /// Builds and sends the request. Returns the answer as well, if one arrived.
    async fn send(&self, dispatch: &Dispatch) -> (Attempted, Option<Answer>) {
        let alone = |class, reason| (Attempted::new(class, reason), None);
        // Limit rendering and signing to half of the time: a timeout in this half means that
        // nothing was sent, so the message can be retried safely.
        let request = match timeout(self.limit / 2, self.request(dispatch)).await {
            Ok(Ok(request)) => request,
            Ok(Err(Unmade::Text(error))) => return (Attempted::without_text(&error), None),
            Ok(Err(Unmade::Request)) => {
                let class = AttemptClass::ConfigFault;
                return (Attempted::not_called(class, "request"), None);
            }
            Ok(Err(Unmade::Auth(AuthFault::Refused))) => {
                return alone(AttemptClass::ConfigFault, "auth");
            }
            // The token server was unreachable, so the message was not sent.
            Ok(Err(Unmade::Auth(AuthFault::Away(fault)))) => {
                let reason = unreached_reason("auth_away", fault);
                let attempted = Attempted::new(AttemptClass::Transient, reason);
                return (attempted.about(Scope::Provider), None);
            }
            Err(_) => {
                let attempted = Attempted::new(AttemptClass::Transient, "auth_away");
                return (attempted.about(Scope::Provider), None);
            }
        };
        timeout(self.limit, self.exchange(request))
            .await
            .unwrap_or_else(|_| alone(AttemptClass::UnknownOutcome, "timeout"))
    }
}

/// Classifies an answer by `config`, for the tests of the presets.
#[cfg(test)]
pub(crate) fn classify(config: &ResponseConfig, status: u16, body: &[u8]) -> Attempted {
    let plan = ResponsePlan::compile(config).unwrap_or_else(|error| panic!("{error}"));
    plan.classify(status, &reqwest::header::HeaderMap::new(), body)
}

/// Returns the reason for a call that did not reach its peer, including the TLS fault.
fn unreached_reason(reason: &str, fault: Option<TlsFault>) -> String {
    fault.map_or_else(
        || reason.to_owned(),
        |fault| format!("{reason}_tls_{fault}"),
    )
}

/// Reads and decompresses the body; `None` if it breaks off or exceeds the limit.
async fn read_answer(response: &mut Response) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        if body.len() + chunk.len() > payload::MAX_BYTES {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    Some(payload::decompressed(response.headers(), &body)?.into_owned())
}

#[async_trait]
impl Provider for HttpProvider {
    fn name(&self) -> &ProviderName {
        &self.name
    }

    fn attempt_limit(&self) -> Duration {
        self.limit
    }

    fn is_idempotent(&self) -> bool {
        self.is_idempotent
    }

    fn tls_peers(&self) -> Vec<TlsPeer> {
        self.request.tls_peers()
    }

    fn wants_name(&self) -> bool {
        self.receipts
            .as_ref()
            .is_some_and(|(_, plan)| plan.wants_name())
    }

    async fn probe(&self) -> Result<&'static str, Attempted> {
        let unreached = |reason, fault| {
            Attempted::new(AttemptClass::Transient, unreached_reason(reason, fault))
        };
        let proven = match self.request.auth.probe(&self.client, &self.clock).await {
            Ok(true) => "reached, and a token was fetched",
            Ok(false) => "reached; only a sent message shows whether the credentials are valid",
            Err(AuthFault::Refused) => {
                return Err(Attempted::new(AttemptClass::ConfigFault, "auth"));
            }
            Err(AuthFault::Away(fault)) => return Err(unreached("auth_away", fault)),
        };
        // Any answer to this request proves that host, port and certificate are right.
        let origin = (self.request.origin()).ok_or_else(|| unreached("url", None))?;
        let answered = self.client.head(origin).send().await;
        let failed = |error| unreached("connect", TlsFault::of(&error));
        answered.map(|_| proven).map_err(failed)
    }

    async fn attempt(&self, dispatch: &Dispatch) -> Attempted {
        self.send(dispatch).await.0
    }

    async fn try_out(&self, dispatch: &Dispatch) -> (Attempted, Option<String>) {
        let (attempted, answer) = self.send(dispatch).await;
        let shown = answer.map(|answer| show::answer(&answer, dispatch, &self.request.auth));
        (attempted, shown)
    }

    async fn show(&self, dispatch: &Dispatch) -> Option<String> {
        let request = self.request(dispatch).await.ok()?;
        Some(show::masked(&request, &self.request.auth))
    }
}

#[cfg(test)]
mod tests;
