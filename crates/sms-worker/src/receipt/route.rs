//! `POST|GET /v1/receipts/{provider}`: verified, queued, then answered. A body has at most 64 KiB; a forged
//! call gets 401 and nothing more.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::routing::get;
use watchword_broker::{Outbound, Publisher, Route};
use watchword_chassis::http::{PathText, whole, within};
use watchword_chassis::{Problem, ProblemCode};
use watchword_core::{Clock, Live, ProviderName};
use watchword_events::{CloudEvent, EventData, Lane, ReceiptReceived};
use watchword_metrics::prometheus::{Error, IntCounterVec, Registry};
use watchword_metrics::{Kind, Maker, Series};

use super::{Call, ReceiptPlans, Refusal};

const MAX_BODY_BYTES: usize = 64 * 1024;
/// Calls in work at once. Their places are their own: a flood of receipts leaves the API its places.
const CALLS_IN_WORK: usize = 128;
/// Gateways give up after 2 s (Telnyx), and then call again.
const PUBLISH_DEADLINE: Duration = Duration::from_millis(1_500);
const RESULTS: [&str; 4] = ["queued", "forged", "unreadable", "unavailable"];

const CALLS: Series = Series {
    name: "watchword_receipt_calls_total",
    kind: Kind::Counter,
    labels: &["provider", "result"],
    help: "Calls of gateways with receipts: `queued`, `forged` (not verified), `unreadable`, `unavailable` (could not be queued; the gateway calls again).",
    action: "`forged`: the secret or `public_url` differs from the gateway's, or someone tries. `unreadable`: the gateway changed its form.",
};

/// Everything this crate counts.
pub const SERIES: &[Series] = &[CALLS];

/// Calls of gateways, by what became of them.
#[derive(Debug, Clone)]
pub struct ReceiptMetrics(IntCounterVec);

impl ReceiptMetrics {
    /// Registers the counter for these providers.
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

    fn count(&self, provider: &ProviderName, result: &'static str) {
        self.0.with_label_values(&[provider.as_str(), result]).inc();
    }
}

/// What the route needs.
#[derive(Clone)]
pub struct ReceiptState {
    /// Who may call, and how that is checked.
    pub plans: Live<ReceiptPlans>,
    /// The URL under which gateways reach us: `https://otp.example.org`.
    pub public_url: String,
    /// Queues receipts.
    pub publisher: Arc<dyn Publisher>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where calls are counted.
    pub metrics: ReceiptMetrics,
}

/// The route.
pub fn routes(state: ReceiptState) -> Router {
    let routes = Router::new().route("/v1/receipts/{provider}", get(take).post(take));
    within(routes.with_state(state), CALLS_IN_WORK)
}

async fn take(
    State(state): State<ReceiptState>,
    PathText(provider): PathText,
    request: Request,
) -> Result<StatusCode, Problem> {
    let not_found = || Problem::new(ProblemCode::NotFound, "no such provider takes receipts");
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
            tracing::warn!(provider = %name, "a receipt that is not the provider's, or stale, was refused");
            return Err(Problem::new(
                ProblemCode::Unauthorized,
                "the signature is not right",
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
    for receipt in receipts {
        if queue(&state, receipt).await.is_none() {
            state.metrics.count(&name, "unavailable");
            let problem = Problem::new(ProblemCode::BrokerUnavailable, "call again");
            return Err(problem.retry_after(1));
        }
    }
    state.metrics.count(&name, "queued");
    Ok(StatusCode::NO_CONTENT)
}

async fn queue(state: &ReceiptState, receipt: ReceiptReceived) -> Option<()> {
    publish(state.publisher.as_ref(), receipt, state.clock.now()).await
}

/// Queues one receipt; `None` if the broker did not take it.
pub(crate) async fn publish(
    publisher: &dyn Publisher,
    receipt: ReceiptReceived,
    now: watchword_core::Timestamp,
) -> Option<()> {
    let about = match (&receipt.delivery_id, &receipt.message_id) {
        (Some(id), _) => id.to_string(),
        (None, Some(id)) => id.clone(),
        (None, None) => return None,
    };
    let event = CloudEvent {
        id: format!("{}.{about}.{}", receipt.provider, receipt.state),
        source: "/watchword/sms-worker".to_owned(),
        time: now,
        data: receipt,
    };
    let outbound = Outbound {
        kind: ReceiptReceived::TYPE,
        route: Route::Lane(Lane::Receipts),
        body: event.encode().ok()?.into(),
        id: event.id,
        traceparent: None,
        ttl: None,
    };
    publisher.publish(outbound, PUBLISH_DEADLINE).await.ok()
}

/// Queues what SMPP binds hear until there are none any more; a receipt the broker does not take is
/// tried again while others wait, and lost with the process, as receipts may be.
pub async fn queue_heard(
    mut heard: tokio::sync::mpsc::Receiver<ReceiptReceived>,
    publisher: Arc<dyn Publisher>,
    clock: Arc<dyn Clock>,
) {
    while let Some(receipt) = heard.recv().await {
        while publish(publisher.as_ref(), receipt.clone(), clock.now())
            .await
            .is_none()
        {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
