//! `DELETE /v1/verifications/{id}`: cancels a verification. Canceling it again is not an error.

use axum::extract::State;
use axum::http::StatusCode;
use watchword_chassis::http::{Caller, PathText};
use watchword_chassis::{Problem, ProblemCode};
use watchword_core::VerificationStatus;

use super::{VerifierState, not_found, parse_id};

pub(super) async fn cancel(
    State(state): State<VerifierState>,
    Caller(service): Caller,
    PathText(id): PathText,
) -> Result<StatusCode, Problem> {
    let id = parse_id(&id)?;
    let canceled = state
        .verifier
        .cancel(&service.name, &id)
        .await?
        .ok_or_else(not_found)?;
    match canceled.status {
        VerificationStatus::Canceled => Ok(StatusCode::NO_CONTENT),
        status => Err(Problem::new(
            ProblemCode::VerificationEnded,
            format!("the verification is {status}"),
        )),
    }
}
