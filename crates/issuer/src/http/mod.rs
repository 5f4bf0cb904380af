//! The issuer's HTTP routes: request a code, and resend it. Each endpoint has a file.

mod create;
mod resend;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRef;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use watchword_chassis::http::CallerTrace;
use watchword_chassis::spans::{Key, Kind, Span, Spans};
use watchword_chassis::{Problem, Service, Services};
use watchword_core::Live;
use watchword_verifier::http::VerificationView;
use watchword_verifier::store::StoredVerification;

use crate::Issuer;
use crate::telemetry::{Entry, IssuerMetrics};

/// The state that the routes share.
#[derive(Clone)]
pub struct IssuerState {
    /// Accepts requests.
    pub issuer: Arc<Issuer>,
    /// The services and their API keys.
    pub services: Live<Services>,
    /// Metrics of the issuer.
    pub metrics: IssuerMetrics,
    /// Records a span per request.
    pub spans: Spans,
}

impl FromRef<IssuerState> for Live<Services> {
    fn from_ref(state: &IssuerState) -> Self {
        state.services.clone()
    }
}

/// Returns the router of the issuer's endpoints.
pub fn routes(state: IssuerState) -> Router {
    Router::new()
        .route("/v1/verifications", post(create::create))
        .route("/v1/verifications/{id}/resend", post(resend::resend))
        .with_state(state)
}

impl IssuerState {
    /// Starts the span of a request of `service`.
    fn begin(&self, name: &'static str, service: &Service, caller: CallerTrace) -> Span {
        let mut span = self.spans.begin(name, Kind::Server, caller.0);
        span.say(Key::Service, || service.name.to_string());
        span
    }

    /// Records the answer in metrics and span, and converts it to a response.
    fn end(
        &self,
        mut span: Span,
        answer: Result<StoredVerification, Problem>,
        took: Duration,
    ) -> Result<(StatusCode, Json<VerificationView>), Problem> {
        self.metrics.took(took);
        self.metrics.answered(Entry::Http, &answer);
        match answer {
            Ok(verification) => {
                span.join(verification.id.trace_id());
                span.say(Key::Verification, || verification.id.to_string());
                let view = VerificationView::from(&verification);
                Ok((StatusCode::ACCEPTED, Json(view)))
            }
            Err(problem) => {
                span.say(Key::Problem, || problem.code.as_str().to_owned());
                if problem.code.status().is_server_error() {
                    span.fail();
                }
                Err(problem)
            }
        }
    }
}
