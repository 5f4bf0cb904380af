//! `POST /v1/verifications/{id}/check`: compares a code. A wrong code is a successful response with
//! `valid: false`, not an error.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use watchword_chassis::http::{Caller, CallerTrace, JsonBody, PathText};
use watchword_chassis::spans::{Key, Kind};
use watchword_chassis::{Problem, ProblemCode};
use watchword_core::{
    Channel, CheckVerdict, Purpose, Recipient, Variables, VerificationId, VerificationStatus,
};

use super::status::after_wrong_code;
use super::{VerifierState, store_problem};
use crate::{CheckRequest, VerifierError};

/// The body of a check. Only the code is required. Every other field but `check_id` is an
/// expectation about the request for the code: a difference counts as a wrong code.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckBody {
    code: String,
    /// Identifies the check, so that a caller can repeat it after a lost response. The repeat gets
    /// the same answer and is not counted.
    check_id: Option<String>,
    purpose: Option<String>,
    subject: Option<String>,
    channel: Option<String>,
    /// The recipient of the request, not of a fallback step.
    to: Option<String>,
    variables: Option<BTreeMap<String, String>>,
}

#[derive(Serialize)]
pub(super) struct CheckAnswer {
    id: String,
    status: VerificationStatus,
    valid: bool,
    /// The approved purpose. Absent unless approved, so that a refused check reveals nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    purpose: Option<Purpose>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
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
    let request = CheckRequest::try_from(body)?;
    // A malformed id is answered like an unknown one.
    let known: Option<VerificationId> = id.parse().ok();
    let (verdict, approval) = match &known {
        Some(id) => {
            span.join(VerificationId::trace_id(id));
            span.say(Key::Verification, || id.to_string());
            let checked = state.verifier.check(&service, id, request);
            let checked = checked.await.inspect_err(|_| span.fail());
            let checked = checked.map_err(unchecked)?;
            (checked.verdict, checked.approval)
        }
        None => (CheckVerdict::Refused, None),
    };
    span.say(Key::Verdict, || format!("{verdict:?}").to_lowercase());
    let (status, valid) = match (verdict, &known) {
        (CheckVerdict::Approved, _) => (VerificationStatus::Approved, true),
        (CheckVerdict::Wrong, Some(id)) => {
            (after_wrong_code(&state, &service.name, id).await, false)
        }
        (CheckVerdict::LastWrong, _) => (VerificationStatus::MaxAttemptsReached, false),
        (CheckVerdict::Refused | CheckVerdict::Wrong, _) => (VerificationStatus::Expired, false),
    };
    let id = if id.len() <= 64 { id } else { String::new() };
    let (purpose, to) = approval.map(|one| (one.purpose, one.masked_to)).unzip();
    Ok(Json(CheckAnswer {
        id,
        status,
        valid,
        purpose,
        to,
    }))
}

/// Returns the problem of a check that could not be decided.
pub(super) fn unchecked(error: VerifierError) -> Problem {
    match error {
        VerifierError::Store(_) => {
            store_problem("nothing is approved; repeat the check with its check_id")
        }
        error => error.into(),
    }
}

impl TryFrom<CheckBody> for CheckRequest {
    type Error = Problem;

    fn try_from(body: CheckBody) -> Result<Self, Problem> {
        let code = (body.code.parse())
            .map_err(|error| Problem::field(ProblemCode::InvalidCode, "code", &error))?;
        let channel = parse(body.channel, "channel")?;
        let recipient = body.to.map(|to| recipient(channel, &to)).transpose()?;
        let variables = body.variables.map(Variables::new).transpose();
        Ok(Self {
            check_id: parse(body.check_id, "check_id")?,
            purpose: parse(body.purpose, "purpose")?,
            subject: parse(body.subject, "subject")?,
            variables: variables.map_err(|error| {
                Problem::field(ProblemCode::InvalidRequest, "variables", &error)
            })?,
            channel,
            recipient,
            code,
        })
    }
}

/// Parses `to`. Without a channel, a text with an `@` is a mail address.
fn recipient(channel: Option<Channel>, to: &str) -> Result<Recipient, Problem> {
    let by_form = if to.contains('@') {
        Channel::Email
    } else {
        Channel::Sms
    };
    let channel = channel.unwrap_or(by_form);
    Recipient::parse(channel, to).map_err(|error| {
        let code = match channel {
            Channel::Sms => ProblemCode::InvalidPhone,
            Channel::Email => ProblemCode::InvalidEmail,
        };
        Problem::field(code, "to", &error)
    })
}

fn parse<T: std::str::FromStr<Err = watchword_core::Malformed>>(
    text: Option<String>,
    field: &'static str,
) -> Result<Option<T>, Problem> {
    text.map(|text| text.parse())
        .transpose()
        .map_err(|error| Problem::field(ProblemCode::InvalidRequest, field, &error))
}
