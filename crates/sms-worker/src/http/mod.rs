//! A gateway with an HTTP API, told by configuration. Refuses redirects, proxies, plain HTTP
//! beyond loopback and answers over 64 KiB; its errors and logs never hold what a peer sent.

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
use reqwest::header::AUTHORIZATION;
use reqwest::redirect::Policy;
use reqwest::{Client, Request, Response};
use tokio::time::timeout;
use watchword_chassis::config::ConfigError;
use watchword_core::{AttemptClass, Clock, ProviderName};
use watchword_delivery::{Attempted, Dispatch, Provider, Scope, TlsPeer, attempt_limit};

pub use config::{Preset, ReceiptConfig, RequestConfig, ResponseConfig};
pub use response::ResponsePlan;
pub(crate) use response::{as_text, check_pointer, plain_id};

use crate::config::{Secrets, Senders};
use crate::receipt::ReceiptPlan;
use crate::segments::Encoding;
use crate::text::SmsText;
use auth::AuthFault;
use placeholder::{Settings, Values};
use request::RequestPlan;

/// How long a connection waits for the next message. Its buffers hold the last one, code and
/// number, until it closes; under load it never waits this long.
const IDLE_LIMIT: Duration = Duration::from_secs(5);
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// What an [`HttpProvider`] is made of.
pub(crate) struct HttpProviderParts<'a> {
    pub name: ProviderName,
    pub senders: Senders,
    pub timeout_seconds: u64,
    pub settings: Settings,
    pub secrets: &'a Secrets,
    pub request: &'a RequestConfig,
    pub response: &'a ResponseConfig,
    /// Where the gateway is to call, if it is to.
    pub receipts: Option<(String, Arc<ReceiptPlan>)>,
    pub text: SmsText,
    pub clock: Arc<dyn Clock>,
}

/// An SMS provider over HTTP.
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

/// Why no request could be made.
enum Unmade {
    Template,
    Request,
    Auth(AuthFault),
}

impl HttpProvider {
    /// Compiles the configuration; whatever is wrong in it is told now, by key.
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
            .build()
            .map_err(|_| ConfigError::new("request", "TLS cannot be set up"))?;
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
        let (text, segments) = self.text.render(dispatch).map_err(|_| Unmade::Template)?;
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

    async fn exchange(&self, request: Request) -> Attempted {
        let showed = request.headers().get(AUTHORIZATION).cloned();
        let mut response = match self.client.execute(request).await {
            Ok(response) => response,
            // Before a connection stands nothing was handed over; afterwards nobody knows.
            Err(error) if error.is_connect() => {
                return Attempted::new(AttemptClass::Transient, "connect").about(Scope::Provider);
            }
            Err(error) if error.is_timeout() => {
                return Attempted::new(AttemptClass::UnknownOutcome, "timeout");
            }
            Err(_) => return Attempted::new(AttemptClass::UnknownOutcome, "connection"),
        };
        let status = response.status().as_u16();
        if status == 401 {
            let (auth, now) = (&self.request.auth, self.clock.now());
            if auth.refused(showed.as_ref(), now).await {
                return Attempted::new(AttemptClass::Transient, "token");
            }
        }
        let Some(body) = read_answer(&mut response, MAX_ANSWER_BYTES).await else {
            return Attempted::new(
                AttemptClass::UnknownOutcome,
                format!("http_{status}_unreadable"),
            );
        };
        self.response.classify(status, response.headers(), &body)
    }
}

/// What an answer means by this configuration, for the tests of the presets.
#[cfg(test)]
pub(crate) fn classify(config: &ResponseConfig, status: u16, body: &[u8]) -> Attempted {
    let plan = ResponsePlan::compile(config).unwrap_or_else(|error| panic!("{error}"));
    plan.classify(status, &reqwest::header::HeaderMap::new(), body)
}

/// The answer's body, if it ends within its bounds.
async fn read_answer(response: &mut Response, most: usize) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        if body.len() + chunk.len() > most {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    Some(body)
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
        let away = |reason| Attempted::new(AttemptClass::Transient, reason);
        let proven = match self.request.auth.probe(&self.client, &self.clock).await {
            Ok(true) => "reached, and a token fetched",
            Ok(false) => "reached; only a message shows whether the credentials are right",
            Err(AuthFault::Refused) => {
                return Err(Attempted::new(AttemptClass::ConfigFault, "auth"));
            }
            Err(AuthFault::Away) => return Err(away("auth_away")),
        };
        // Any answer to a request for nothing shows that name, port and certificate are right.
        let origin = self.request.origin().ok_or_else(|| away("url"))?;
        let answered = self.client.head(origin).send().await;
        answered.map(|_| proven).map_err(|_| away("connect"))
    }

    async fn attempt(&self, dispatch: &Dispatch) -> Attempted {
        // Half the time is for getting ready, so that running out of it is known to be harmless.
        let request = match timeout(self.limit / 2, self.request(dispatch)).await {
            Ok(Ok(request)) => request,
            Ok(Err(Unmade::Template)) => {
                return Attempted::not_called(AttemptClass::MessageRejected, "template");
            }
            Ok(Err(Unmade::Request)) => {
                return Attempted::not_called(AttemptClass::ConfigFault, "request");
            }
            Ok(Err(Unmade::Auth(AuthFault::Refused))) => {
                return Attempted::new(AttemptClass::ConfigFault, "auth");
            }
            // Nothing was handed over yet.
            Ok(Err(Unmade::Auth(AuthFault::Away))) | Err(_) => {
                return Attempted::new(AttemptClass::Transient, "auth_away").about(Scope::Provider);
            }
        };
        timeout(self.limit, self.exchange(request))
            .await
            .unwrap_or_else(|_| Attempted::new(AttemptClass::UnknownOutcome, "timeout"))
    }

    async fn show(&self, dispatch: &Dispatch) -> Option<String> {
        let request = self.request(dispatch).await.ok()?;
        Some(show::masked(&request, &self.request.auth))
    }
}
