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
use watchword_chassis::{Problem, Services};
use watchword_core::{Live, Service};
use watchword_verifier::http::VerificationView;
use watchword_verifier::store::StoredVerification;

use crate::telemetry::{Entry, IssuerMetrics};
use crate::{IssueError, Issuer};

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

impl From<IssueError> for Problem {
    fn from(error: IssueError) -> Self {
        Self {
            code: error.code(),
            detail: error.to_string(),
            field: match &error {
                IssueError::Invalid { field, .. } => Some((*field).into()),
                _ => None,
            },
            retry_after_seconds: error.retry_after_seconds(),
        }
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
        match answer {
            Ok(verification) => {
                self.metrics.accepted(Entry::Http);
                span.join(verification.id.trace_id());
                span.say(Key::Verification, || verification.id.to_string());
                let view = VerificationView::from(&verification);
                Ok((StatusCode::ACCEPTED, Json(view)))
            }
            Err(problem) => {
                self.metrics.refused(Entry::Http, problem.code);
                span.say(Key::Problem, || problem.code.as_str().to_owned());
                if problem.code.status().is_server_error() {
                    span.fail();
                }
                Err(problem)
            }
        }
    }
}
