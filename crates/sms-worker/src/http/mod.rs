//! A gateway with an HTTP API, told by configuration. Refuses redirects, proxies, plain HTTP
//! beyond loopback and answers over 64 KiB; its errors and logs never hold what a peer sent.

mod config;
mod placeholder;
mod request;
mod response;

use std::time::Duration;

use async_trait::async_trait;
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use tokio::time::timeout;
use watchword_chassis::config::ConfigError;
use watchword_core::{AttemptClass, ProviderName};
use watchword_delivery::{Attempted, Dispatch, Provider};

pub use config::{AuthConfig, HttpProviderConfig, RequestConfig, ResponseConfig};

use crate::segments::Encoding;
use crate::text::SmsText;
use placeholder::Values;
use request::RequestPlan;
use response::ResponsePlan;

const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// An SMS provider over HTTP.
pub struct HttpProvider {
    name: ProviderName,
    sender: String,
    limit: Duration,
    client: Client,
    request: RequestPlan,
    response: ResponsePlan,
    text: SmsText,
}

impl HttpProvider {
    /// Compiles the configuration; whatever is wrong in it is told now, by key.
    pub fn new(config: &HttpProviderConfig, text: SmsText) -> Result<Self, ConfigError> {
        let limit = Duration::from_secs(config.timeout_seconds);
        if !(1..=30).contains(&config.timeout_seconds) {
            return Err(ConfigError::new("timeout_seconds", "must be 1 to 30"));
        }
        let client = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_DEADLINE.min(limit))
            .timeout(limit)
            .tcp_nodelay(true)
            .pool_max_idle_per_host(512)
            .user_agent("watchword")
            .build()
            .map_err(|_| ConfigError::new("request", "TLS cannot be set up"))?;
        Ok(Self {
            name: config.name.clone(),
            sender: config.sender.clone(),
            limit,
            client,
            request: RequestPlan::compile(&config.request)
                .map_err(|error| error.within("request"))?,
            response: ResponsePlan::compile(&config.response)
                .map_err(|error| error.within("response"))?,
            text,
        })
    }

    async fn exchange(&self, request: reqwest::Request) -> Attempted {
        let response = match self.client.execute(request).await {
            Ok(response) => response,
            // Before a connection stands nothing was handed over; afterwards nobody knows.
            Err(error) if error.is_connect() => {
                return Attempted::new(AttemptClass::Transient, "connect");
            }
            Err(error) if error.is_timeout() => {
                return Attempted::new(AttemptClass::UnknownOutcome, "timeout");
            }
            Err(_) => return Attempted::new(AttemptClass::UnknownOutcome, "connection"),
        };
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let Some(body) = read_answer(response).await else {
            return Attempted::new(
                AttemptClass::UnknownOutcome,
                format!("http_{status}_unreadable"),
            );
        };
        self.response.classify(status, &headers, &body)
    }
}

/// The answer's body, if it ends within its bounds.
async fn read_answer(mut response: Response) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
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

    async fn attempt(&self, dispatch: &Dispatch) -> Attempted {
        let Ok((text, segments)) = self.text.render(dispatch) else {
            return Attempted::new(AttemptClass::MessageRejected, "template");
        };
        let values = Values {
            to: dispatch.recipient.expose(),
            text: &text,
            sender: &self.sender,
            message_id: dispatch.delivery_id.to_string(),
            remaining: dispatch.remaining,
            is_ucs2: segments.encoding == Encoding::Ucs2,
        };
        let Some(request) = self.request.build(&self.client, &values) else {
            return Attempted::new(AttemptClass::ConfigFault, "request");
        };
        timeout(self.limit, self.exchange(request))
            .await
            .unwrap_or_else(|_| Attempted::new(AttemptClass::UnknownOutcome, "timeout"))
    }
}
