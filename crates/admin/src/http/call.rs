//! The steps that all routes share: authentication, role, rate limits, the request body, the
//! response and the audit trail.

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

/// A request with a known key, from authentication to its record in the trail.
pub(super) struct Call {
    api: AdminApi,
    action: Action,
    key: KeyId,
    target: String,
    reason: String,
}

impl Call {
    /// Authenticates the caller and checks its limits and its role for `action`. Returns the
    /// response to send if the request is refused.
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
            let detail = "the key's role is viewer; use a key with role = \"operator\"";
            let problem = Problem::new(ProblemCode::Forbidden, detail);
            return Err(Box::new(call.answer::<()>(Err(problem)).await));
        }
        Ok(call)
    }

    /// Counts the call against the limit on look-ups by subject or recipient.
    pub(super) fn look_up(&self) -> Result<(), Problem> {
        self.api.0.limits.lookup(&self.key, Instant::now())
    }

    /// Sets the target for the trail. `target` must not contain a recipient or subject in clear.
    pub(super) fn concerns(&mut self, target: String) {
        self.target = target;
    }

    /// Checks the operator's reason and sets it for the trail.
    pub(super) fn because(&mut self, reason: &str) -> Result<(), Problem> {
        check_reason(reason)?;
        reason.clone_into(&mut self.reason);
        Ok(())
    }

    /// Counts the call, adds it to the trail if the action is kept, and returns the response.
    pub(super) async fn answer<T: Serialize>(self, answer: Result<T, Problem>) -> Response {
        let problem = answer.as_ref().err();
        let result = problem.map_or("ok", |problem| problem.code.as_str());
        let parts = &self.api.0;
        parts.metrics.answered(Some(self.action), problem);
        if self.action.is_kept() {
            // A refused call changed and showed nothing, and its caller can repeat it at will. Only
            // the log records it, so that repeats do not push other records out of the trail.
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

    /// Logs the record and, if `is_stored`, adds it to the trail. The log contains every record,
    /// even while the store cannot be reached.
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
            tracing::warn!(%error, "the audit trail cannot be written; the record is only in this log");
        }
    }
}

/// Parses the request body as JSON.
pub(super) async fn body<T: DeserializeOwned>(request: Request) -> Result<T, Problem> {
    JsonBody::from_request(request, &())
        .await
        .map(|JsonBody(body)| body)
}
