//! `POST /v1/verifications`: sends a code to a recipient.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use watchword_chassis::Problem;
use watchword_chassis::http::{Caller, CallerTrace, JsonBody};
use watchword_events::OtpRequested;
use watchword_verifier::http::VerificationView;

use super::IssuerState;

pub(super) async fn create(
    State(state): State<IssuerState>,
    Caller(service): Caller,
    trace: CallerTrace,
    body: Result<JsonBody<OtpRequested>, Problem>,
) -> Result<(StatusCode, Json<VerificationView>), Problem> {
    let begun = Instant::now();
    let mut span = state.begin("POST /v1/verifications", &service, trace);
    let answer = match body {
        Ok(JsonBody(request)) => {
            let issued = state.issuer.issue(&service, request, &mut span).await;
            issued.map_err(Problem::from)
        }
        Err(problem) => Err(problem),
    };
    state.end(span, answer, begun.elapsed())
}
