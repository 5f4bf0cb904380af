//! `POST /v1/verifications/{id}/resend`: sends the code again.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use watchword_chassis::http::{Caller, CallerTrace, OptionalJsonBody, PathText};
use watchword_chassis::spans::Span;
use watchword_chassis::{Problem, ProblemCode};
use watchword_core::{Channel, Malformed, Service};
use watchword_events::ClientRequested;
use watchword_verifier::http::VerificationView;
use watchword_verifier::store::StoredVerification;

use super::IssuerState;
use crate::IssueError;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResendBody {
    /// The channel. It must be the verification's own, because a verification has one recipient.
    channel: Option<String>,
    /// The person's browser or device at the calling service.
    client: Option<ClientRequested>,
}

pub(super) async fn resend(
    State(state): State<IssuerState>,
    Caller(service): Caller,
    PathText(id): PathText,
    trace: CallerTrace,
    body: Result<OptionalJsonBody<ResendBody>, Problem>,
) -> Result<(StatusCode, Json<VerificationView>), Problem> {
    let begun = Instant::now();
    let mut span = state.begin("POST /v1/verifications/{id}/resend", &service, trace);
    let answer = match body {
        Ok(OptionalJsonBody(body)) => {
            let sent = again(&state, &service, &id, body, &mut span).await;
            sent.map_err(Problem::from)
        }
        Err(problem) => Err(problem),
    };
    state.end(span, answer, begun.elapsed())
}

async fn again(
    state: &IssuerState,
    service: &Service,
    id: &str,
    body: ResendBody,
    span: &mut Span,
) -> Result<StoredVerification, IssueError> {
    let id = id.parse().map_err(|_| IssueError::Gone)?;
    if let Some(text) = body.channel {
        let invalid = |error: &Malformed| {
            IssueError::malformed(ProblemCode::InvalidRequest, "channel", error)
        };
        let channel: Channel = text.parse().map_err(|error| invalid(&error))?;
        let live = state.issuer.status(service, &id).await?;
        let live = live.ok_or(IssueError::Gone)?;
        if live.channel != channel {
            return Err(invalid(&Malformed::new(
                "the verification has no recipient on this channel",
            )));
        }
    }
    state.issuer.resend(service, &id, body.client, span).await
}
