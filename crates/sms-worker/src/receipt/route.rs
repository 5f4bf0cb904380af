//! Route `POST|GET /v1/receipts/{provider}`: verifies a call, queues its receipts, then answers. A
//! body has at most 64 KiB. A forged call is answered with 401 without further detail.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::routing::get;
use watchword_broker::Publisher;
use watchword_chassis::http::{PathText, whole, within};
use watchword_chassis::{Problem, ProblemCode};
use watchword_core::{Clock, Live, ProviderName};
use watchword_metrics::prometheus::{Error, IntCounterVec, Registry};
use watchword_metrics::{Kind, Maker, Series};

use super::heard::publish;
use super::{Call, ReceiptPlans, Refusal};

const MAX_BODY_BYTES: usize = 64 * 1024;
/// Maximum number of concurrent calls. Receipts have a limit of their own, so that a flood of
/// receipts does not use up the places of the API.
const CALLS_IN_WORK: usize = 128;
const RESULTS: [&str; 5] = [
    "queued",
    "forged",
    "unreadable",
    "unknown_state",
    "unavailable",
];

const CALLS: Series = Series {
    name: "watchword_receipt_calls_total",
    kind: Kind::Counter,
    labels: &["provider", "result"],
    help: "Receipt calls of gateways, and receipts over SMPP: `queued`, `forged` (not verified), `unreadable`, `unknown_state` (read, but without a state that the configuration knows), `unavailable` (could not be queued; the gateway calls again).",
    action: "`forged`: the secret or `public_url` differs from the gateway's, or someone sends forged receipts. `unreadable`: the gateway changed its format. `unknown_state`: add the gateway's word to `states`, or correct the JSON pointers.",
};

/// Declarations of this crate's metrics.
pub const SERIES: &[Series] = &[CALLS];

/// Counter of receipt calls, by provider and result.
#[derive(Debug, Clone)]
pub struct ReceiptMetrics(IntCounterVec);

impl ReceiptMetrics {
    /// Registers the counter, with every result of these providers at zero.
    pub fn register<'a>(
        registry: &Registry,
        providers: impl Iterator<Item = &'a ProviderName>,
    ) -> Result<Self, Error> {
        let calls = Maker::new(registry).counters(&CALLS)?;
        for provider in providers {
            for result in RESULTS {
                calls.with_label_values(&[provider.as_str(), result]);
            }
        }
        Ok(Self(calls))
    }

    pub(super) fn count(&self, provider: &ProviderName, result: &'static str) {
        self.0.with_label_values(&[provider.as_str(), result]).inc();
    }
}

/// Dependencies of the route.
#[derive(Clone)]
pub struct ReceiptState {
    /// Receipt plans, which verify and read calls.
    pub plans: Live<ReceiptPlans>,
    /// Public base URL that gateways call: `https://otp.example.org`.
    pub public_url: String,
    /// Publishes receipts to the queue.
    pub publisher: Arc<dyn Publisher>,
    /// Clock for signature ages and event times.
    pub clock: Arc<dyn Clock>,
    /// Counter of calls.
    pub metrics: ReceiptMetrics,
}

/// Detail of the 404 for an unknown provider. `watchword doctor` recognizes by it that an SMS
/// worker answered.
pub const NO_SUCH_PROVIDER: &str = "no such provider takes receipts";

/// Returns the route, with its limit of concurrent calls.
pub fn routes(state: ReceiptState) -> Router {
    let routes = Router::new().route("/v1/receipts/{provider}", get(take).post(take));
    within(routes.with_state(state), CALLS_IN_WORK)
}

async fn take(
    State(state): State<ReceiptState>,
    PathText(provider): PathText,
    request: Request,
) -> Result<StatusCode, Problem> {
    let not_found = || Problem::new(ProblemCode::NotFound, NO_SUCH_PROVIDER);
    let plans = state.plans.get();
    let name = provider.parse::<ProviderName>().ok();
    let name = name.filter(|name| plans.has(name)).ok_or_else(not_found)?;
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let headers = request.headers().clone();
    let body = whole(request, MAX_BODY_BYTES).await?;
    let tail = uri.path_and_query().map_or("/", |tail| tail.as_str());
    let url = format!("{}{tail}", state.public_url.trim_end_matches('/'));
    let query: Vec<_> = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
        .into_owned()
        .collect();
    let call = Call {
        method: &method,
        url: &url,
        headers: &headers,
        query: &query,
        body: &body,
        now: state.clock.now(),
    };
    let receipts = match plans.read(&name, &call) {
        Ok(receipts) => receipts,
        Err(Refusal::Forged) => {
            state.metrics.count(&name, "forged");
            tracing::warn!(provider = %name, "refused a receipt whose signature is invalid or too old");
            return Err(Problem::new(
                ProblemCode::Unauthorized,
                "the signature is not valid",
            ));
        }
        Err(Refusal::Unreadable) => {
            state.metrics.count(&name, "unreadable");
            return Err(Problem::new(
                ProblemCode::InvalidRequest,
                "the receipt cannot be read",
            ));
        }
    };
    if receipts.is_empty() {
        state.metrics.count(&name, "unknown_state");
        return Ok(StatusCode::NO_CONTENT);
    }
    for receipt in receipts {
        let queued = publish(state.publisher.as_ref(), receipt, state.clock.now()).await;
        if queued.is_none() {
            state.metrics.count(&name, "unavailable");
            let problem = Problem::new(ProblemCode::BrokerUnavailable, "call again");
            return Err(problem.retry_after(1));
        }
    }
    state.metrics.count(&name, "queued");
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use async_trait::async_trait;
    use axum::body::Body;
    use tower_service::Service;
    use watchword_broker::{LinkState, Outbound, PublishError};
    use watchword_core::{ManualClock, Timestamp};
    use watchword_events::ReceiptReceived;

    use super::super::{HeardReceipt, ReceiptPlan, Unread, queue_heard};
    use super::*;
    use crate::config::Secrets;

    #[derive(Default)]
    struct Queue(Mutex<Vec<String>>);

    #[async_trait]
    impl Publisher for Queue {
        async fn publish(&self, message: Outbound, _: Duration) -> Result<(), PublishError> {
            self.0.lock().unwrap().push(message.id);
            Ok(())
        }

        fn state(&self) -> LinkState {
            LinkState::Up
        }
    }

    fn metrics() -> ReceiptMetrics {
        let name: ProviderName = "acme".parse().unwrap();
        ReceiptMetrics::register(&Registry::new(), [&name].into_iter()).unwrap()
    }

    fn counted(metrics: &ReceiptMetrics) -> BTreeMap<&'static str, u64> {
        let count = |result: &&'static str| {
            let count = metrics.0.with_label_values(&["acme", result]).get();
            (count > 0).then_some((*result, count))
        };
        RESULTS.iter().filter_map(count).collect()
    }

    #[tokio::test]
    async fn a_call_of_which_nothing_came_is_not_counted_as_queued() {
        let config = toml::from_str(
            r#"
            verify = { kind = "secret_url", secret = "s" }
            id = "/body/id"
            state = "/body/state"
            states = { ok = "delivered" }"#,
        )
        .unwrap();
        let name: ProviderName = "acme".parse().unwrap();
        let secrets = Secrets::of(&[("s", "a-long-secret")]);
        let plan = ReceiptPlan::compile(name.clone(), &config, &secrets).unwrap();
        let plans = ReceiptPlans::new(BTreeMap::from([(name, Arc::new(plan))]));
        let (queue, metrics) = (Arc::new(Queue::default()), metrics());
        let mut router = routes(ReceiptState {
            plans: Live::new(plans),
            public_url: "https://otp.example.org".to_owned(),
            publisher: queue.clone(),
            clock: Arc::new(ManualClock::at(Timestamp::from_millis(0))),
            metrics: metrics.clone(),
        });
        for (token, body, status) in [
            ("a-long-secret", r#"{"id":"1","state":"ok"}"#, 204),
            (
                "a-long-secret",
                "\u{feff}{\"id\":\"2\",\"state\":\"ok\"}",
                204,
            ),
            ("a-long-secret", r#"{"id":"1","state":"other"}"#, 204),
            ("a-long-secret", r#"[{"id":"1","state":"ok"}]"#, 204),
            ("a-long-secret", "", 204),
            ("a-long-secret", "<xml>", 422),
            ("guessed-secret", r#"{"id":"1","state":"ok"}"#, 401),
        ] {
            let uri = format!("/v1/receipts/acme?token={token}");
            let request = Request::post(uri).body(Body::from(body)).unwrap();
            let answered = router.call(request).await.unwrap();
            assert_eq!(answered.status().as_u16(), status, "{body}");
        }
        let expected = [
            ("forged", 1),
            ("queued", 2),
            ("unknown_state", 3),
            ("unreadable", 1),
        ];
        assert_eq!(counted(&metrics), BTreeMap::from(expected));
        assert_eq!(queue.0.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn receipts_of_binds_are_counted_too() {
        let (queue, metrics) = (Arc::new(Queue::default()), metrics());
        let (sender, heard) = tokio::sync::mpsc::channel(4);
        let provider: ProviderName = "acme".parse().unwrap();
        let read = ReceiptReceived {
            provider: provider.clone(),
            delivery_id: None,
            message_id: Some("7".to_owned()),
            state: watchword_core::ReceiptState::Delivered,
            error: None,
        };
        let receipts = [Ok(read), Err(Unread::UnknownState), Err(Unread::Unreadable)];
        for receipt in receipts {
            let provider = provider.clone();
            sender
                .send(HeardReceipt { provider, receipt })
                .await
                .unwrap();
        }
        drop(sender);
        let clock = Arc::new(ManualClock::at(Timestamp::from_millis(0)));
        queue_heard(heard, queue.clone(), clock, metrics.clone()).await;
        let expected = [("queued", 1), ("unknown_state", 1), ("unreadable", 1)];
        assert_eq!(counted(&metrics), BTreeMap::from(expected));
        assert_eq!(queue.0.lock().unwrap().len(), 1);
    }
}
