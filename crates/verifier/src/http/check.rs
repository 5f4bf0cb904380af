//! `POST /v1/verifications/{id}/check`: is this the code? A wrong code is an answer, not an error.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use watchword_chassis::http::{Caller, CallerTrace, JsonBody, PathText};
use watchword_chassis::spans::{Key, Kind};
use watchword_chassis::{Problem, ProblemCode};
use watchword_core::{
    CheckId, CheckVerdict, Purpose, TypedCode, VerificationId, VerificationStatus,
};

use super::VerifierState;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckBody {
    code: String,
    /// Makes a repeat after a lost answer safe: it gets the same answer and counts nothing.
    check_id: Option<String>,
    /// What the caller expects the code to be for; another purpose counts as a wrong code.
    purpose: Option<String>,
}

#[derive(Serialize)]
pub(super) struct CheckAnswer {
    id: String,
    status: VerificationStatus,
    valid: bool,
}

pub(super) async fn check(
    State(state): State<VerifierState>,
    Caller(service): Caller,
    PathText(id): PathText,
    CallerTrace(caller): CallerTrace,
    JsonBody(body): JsonBody<CheckBody>,
) -> Result<Json<CheckAnswer>, Problem> {
    let name = "POST /v1/verifications/{id}/check";
    let mut span = state.spans.begin(name, Kind::Server, caller);
    span.say(Key::Service, || service.name.to_string());
    let typed: TypedCode = body
        .code
        .parse()
        .map_err(|error| Problem::field(ProblemCode::InvalidCode, "code", &error))?;
    let check_id: Option<CheckId> = parse(body.check_id, "check_id")?;
    let purpose: Option<Purpose> = parse(body.purpose, "purpose")?;
    // An id that cannot exist is answered like one that does not.
    let verdict = match id.parse() {
        Ok(id) => {
            span.join(VerificationId::trace_id(&id));
            span.say(Key::Verification, || id.to_string());
            let checked = state
                .verifier
                .check(&service, &id, &typed, check_id, purpose);
            checked.await.inspect_err(|_| span.fail())?
        }
        Err(_) => CheckVerdict::Refused,
    };
    span.say(Key::Verdict, || format!("{verdict:?}").to_lowercase());
    let (status, valid) = match verdict {
        CheckVerdict::Approved => (VerificationStatus::Approved, true),
        CheckVerdict::Wrong => (VerificationStatus::Pending, false),
        CheckVerdict::LastWrong => (VerificationStatus::MaxAttemptsReached, false),
        CheckVerdict::Refused => (VerificationStatus::Expired, false),
    };
    let id = if id.len() <= 64 { id } else { String::new() };
    Ok(Json(CheckAnswer { id, status, valid }))
}

fn parse<T: std::str::FromStr<Err = watchword_core::Malformed>>(
    text: Option<String>,
    field: &'static str,
) -> Result<Option<T>, Problem> {
    text.map(|text| text.parse())
        .transpose()
        .map_err(|error| Problem::field(ProblemCode::InvalidRequest, field, &error))
}
