//! The issuer's HTTP routes: ask for a code, ask for it again. One endpoint a file.

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

/// What the routes need.
#[derive(Clone)]
pub struct IssuerState {
    /// Accepts requests.
    pub issuer: Arc<Issuer>,
    /// Who may ask.
    pub services: Live<Services>,
    /// Where answers are counted.
    pub metrics: IssuerMetrics,
    /// Where their way is recorded.
    pub spans: Spans,
}

impl FromRef<IssuerState> for Live<Services> {
    fn from_ref(state: &IssuerState) -> Self {
        state.services.clone()
    }
}

/// The routes.
pub fn routes(state: IssuerState) -> Router {
    Router::new()
        .route("/v1/verifications", post(create::create))
        .route("/v1/verifications/{id}/resend", post(resend::resend))
        .with_state(state)
}

impl IssuerState {
    /// Begins to record what `service` asks for.
    fn begin(&self, name: &'static str, service: &Service, caller: CallerTrace) -> Span {
        let mut span = self.spans.begin(name, Kind::Server, caller.0);
        span.say(Key::Service, || service.name.to_string());
        span
    }

    /// Counts and records how it ended.
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
