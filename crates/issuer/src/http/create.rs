//! `POST /v1/verifications`: send a code to this recipient.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use watchword_chassis::Problem;
use watchword_chassis::http::{Caller, JsonBody};
use watchword_events::OtpRequested;
use watchword_verifier::http::VerificationView;

use super::IssuerState;

pub(super) async fn create(
    State(state): State<IssuerState>,
    Caller(service): Caller,
    headers: HeaderMap,
    body: Result<JsonBody<OtpRequested>, Problem>,
) -> Result<(StatusCode, Json<VerificationView>), Problem> {
    let begun = Instant::now();
    let mut span = state.begin("POST /v1/verifications", &service, &headers);
    let answer = match body {
        Ok(JsonBody(request)) => state.issuer.issue(&service, request, &mut span).await,
        Err(problem) => Err(problem),
    };
    state.end(span, answer, begun.elapsed())
}
