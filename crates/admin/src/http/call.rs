//! A call, from its key to its record: authentication, role, limits, the body, the answer, the
//! trail.

use std::time::Instant;

use axum::Json;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use watchword_chassis::config::AdminRole;
use watchword_chassis::http::{JsonBody, bearer};
use watchword_chassis::{Problem, ProblemCode};
use watchword_core::KeyId;

use super::{Action, AdminApi};
use crate::trail::{TrailRecord, check_reason};

/// A call of a known key.
pub(super) struct Call {
    api: AdminApi,
    action: Action,
    key: KeyId,
    target: String,
    reason: String,
}

impl Call {
    /// Admits the caller to `action`, or answers.
    pub(super) async fn begin(
        api: &AdminApi,
        action: Action,
        headers: &HeaderMap,
    ) -> Result<Self, Box<Response>> {
        let parts = &api.0;
        let keys = parts.keys.get();
        let refuse = |problem: Problem| {
            parts.metrics.answered(None, Some(&problem));
            Box::new(problem.into_response())
        };
        keys.admit().map_err(refuse)?;
        let Some(key) = bearer(headers).and_then(|key| keys.find(key)) else {
            let detail = "send Authorization: Bearer <key> with a key of [admin.keys]";
            let limited = parts.limits.failure(Instant::now());
            let unknown = Problem::new(ProblemCode::Unauthorized, detail);
            return Err(refuse(limited.err().unwrap_or(unknown)));
        };
        let call = Self {
            api: api.clone(),
            action,
            key: key.name.clone(),
            target: String::new(),
            reason: String::new(),
        };
        if let Err(problem) = parts.limits.request(&call.key, Instant::now()) {
            parts.metrics.answered(Some(action), Some(&problem));
            return Err(Box::new(problem.into_response()));
        }
        if action.role() == AdminRole::Operator && key.role == AdminRole::Viewer {
            let detail = "the key's role is viewer; this takes a key with role = \"operator\"";
            let problem = Problem::new(ProblemCode::Forbidden, detail);
            return Err(Box::new(call.answer::<()>(Err(problem)).await));
        }
        Ok(call)
    }

    /// Counts the call as a look-up of a subject or recipient.
    pub(super) fn look_up(&self) -> Result<(), Problem> {
        self.api.0.limits.lookup(&self.key, Instant::now())
    }

    /// Notes what the call is about, for the trail; never a recipient or subject in clear.
    pub(super) fn concerns(&mut self, target: String) {
        self.target = target;
    }

    /// Notes why, as the operator says.
    pub(super) fn because(&mut self, reason: &str) -> Result<(), Problem> {
        check_reason(reason)?;
        reason.clone_into(&mut self.reason);
        Ok(())
    }

    /// Counts, records and answers.
    pub(super) async fn answer<T: Serialize>(self, answer: Result<T, Problem>) -> Response {
        let problem = answer.as_ref().err();
        let result = problem.map_or("ok", |problem| problem.code.as_str());
        let parts = &self.api.0;
        parts.metrics.answered(Some(self.action), problem);
        if self.action.is_kept() {
            // A refused call changed and showed nothing, and its caller can repeat it at will: the
            // store holds none of these, so that they push no other record out.
            let is_refused = problem.is_some_and(|problem| {
                matches!(
                    problem.status(),
                    StatusCode::UNAUTHORIZED
                        | StatusCode::FORBIDDEN
                        | StatusCode::NOT_FOUND
                        | StatusCode::TOO_MANY_REQUESTS
                )
            });
            self.record(result, !is_refused).await;
        }
        match answer {
            Ok(report) => Json(report).into_response(),
            Err(problem) => problem.into_response(),
        }
    }

    /// Logs the record and, if `is_stored`, adds it to the trail. The log has every record, also while
    /// the store is away.
    async fn record(&self, result: &str, is_stored: bool) {
        let now = self.api.0.clock.now();
        let record = TrailRecord {
            at: now.to_rfc3339(),
            key: self.key.to_string(),
            action: self.action.as_str().to_owned(),
            target: self.target.clone(),
            reason: self.reason.clone(),
            result: result.to_owned(),
        };
        record.log();
        if is_stored
            && let Ok(served) = self.api.served()
            && let Err(error) = served.trail.append(&record, now).await
        {
            tracing::warn!(%error, "the audit trail cannot be written; the log has the record");
        }
    }
}

/// Reads the body of a request.
pub(super) async fn body<T: DeserializeOwned>(request: Request) -> Result<T, Problem> {
    JsonBody::from_request(request, &())
        .await
        .map(|JsonBody(body)| body)
}
