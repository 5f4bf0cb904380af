//! Errors of the HTTP API: RFC 9457 problem documents with stable codes. No document quotes what
//! the client sent.

use std::borrow::Cow;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use watchword_core::Malformed;

/// Declares the codes with their status and title.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $word:literal, $status:ident, $title:literal;)*) => {
        /// Stable code of a problem, for programs to act on.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ProblemCode { $($(#[$doc])* $variant,)* }

        impl ProblemCode {
            /// Every code, so that metrics can start at zero.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Returns the code as written in documents and metric labels.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// Returns the HTTP status of a response with this code.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }

            const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

codes!(
    /// The key is missing or belongs to no service.
    Unauthorized = "unauthorized", UNAUTHORIZED, "The request has no valid API key";
    /// The admin API key may read but not change.
    Forbidden = "forbidden", FORBIDDEN, "The key may not do this";
    /// The process serves no admin API.
    AdminOff = "admin_off", NOT_FOUND, "The admin API is off";
    /// A process with another role serves this request.
    NotServedHere = "not_served_here", CONFLICT, "Another process serves this";
    /// The admin API key made too many requests.
    TooManyRequests = "too_many_requests", TOO_MANY_REQUESTS, "Too many requests";
    /// The body is not JSON, or a header is invalid.
    InvalidJson = "invalid_json", BAD_REQUEST, "The request cannot be read";
    /// A field is missing, unknown or has the wrong type.
    InvalidRequest = "invalid_request", UNPROCESSABLE_ENTITY, "A field of the request is wrong";
    /// The number is not in strict E.164 form.
    InvalidPhone = "invalid_phone", UNPROCESSABLE_ENTITY, "The phone number is not valid";
    /// The address is not a single plain address.
    InvalidEmail = "invalid_email", UNPROCESSABLE_ENTITY, "The email address is not valid";
    /// The template cannot be rendered with the request's variables.
    TemplateVariables = "template_variables", UNPROCESSABLE_ENTITY, "The variables do not fit the template of the message";
    /// The submitted code is not a string of digits.
    InvalidCode = "invalid_code", UNPROCESSABLE_ENTITY, "The code is not a string of digits";
    /// The body is not declared as JSON.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "The body must be application/json";
    /// The body exceeds the limit of the route.
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, "The body is too large";
    /// The body did not arrive in time.
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, "The body did not arrive in time";
    /// The service does not send to this number.
    DestinationBlocked = "destination_blocked", FORBIDDEN, "No codes are sent to this destination";
    /// The cooldown after the last message is still running.
    Cooldown = "cooldown", TOO_MANY_REQUESTS, "A message was sent a moment ago";
    /// A send limit of the recipient, the service or a shared counter is reached.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Too many messages";
    /// The verification reached its maximum number of messages.
    TooManySends = "too_many_sends", TOO_MANY_REQUESTS, "The verification has used up its messages";
    /// The subject is locked after too many wrong codes.
    SubjectLocked = "subject_locked", TOO_MANY_REQUESTS, "Too many wrong codes";
    /// The verification is unknown or belongs to another service.
    NotFound = "not_found", NOT_FOUND, "Not found";
    /// The path does not support the method.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "Method not allowed";
    /// The request waited longer than the lifetime of its code.
    RequestExpired = "request_expired", GONE, "The request is too old";
    /// The verification has already ended.
    VerificationEnded = "verification_ended", CONFLICT, "The verification has ended";
    /// The broker is unreachable, blocked or slow.
    BrokerUnavailable = "broker_unavailable", SERVICE_UNAVAILABLE, "The message could not be queued";
    /// The store is unreachable or slow.
    StoreUnavailable = "store_unavailable", SERVICE_UNAVAILABLE, "The state could not be read or written";
    /// The limit of concurrent requests is reached.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "Too many requests are in progress";
    /// Internal error of Watchword.
    Internal = "internal", INTERNAL_SERVER_ERROR, "Internal error";
);

/// Error response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Stable code, which also determines the status.
    pub code: ProblemCode,
    /// A sentence about this case. It contains nothing that the client sent.
    pub detail: String,
    /// Field that is wrong, as a path: `fallback[0].to`.
    pub field: Option<Cow<'static, str>>,
    /// Value of `Retry-After`, in whole seconds.
    pub retry_after_seconds: Option<u64>,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    code: &'static str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
}

impl Problem {
    /// Creates a problem of `code` with `detail` as its explanation.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            field: None,
            retry_after_seconds: None,
        }
    }

    /// Creates a problem about a malformed field.
    pub fn field(code: ProblemCode, field: &'static str, error: &Malformed) -> Self {
        Self {
            field: Some(field.into()),
            ..Self::new(code, format!("{field}: {error}"))
        }
    }

    /// Sets `Retry-After` to `seconds`, at least 1.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds.max(1));
        self
    }

    /// Returns the HTTP status.
    pub const fn status(&self) -> StatusCode {
        self.code.status()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let document = Document {
            r#type: format!("urn:watchword:problem:{}", self.code.as_str()),
            title: self.code.title(),
            status: status.as_u16(),
            code: self.code.as_str(),
            detail: &self.detail,
            field: self.field.as_deref(),
        };
        let body = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // Lets middleware count responses by code without parsing the body.
        response.extensions_mut().insert(self.code);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_problem_is_a_document_with_a_stable_code() {
        let problem = Problem::new(ProblemCode::Cooldown, "wait").retry_after(0);
        let response = problem.into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        let body = axum::body::to_bytes(response.into_body(), 1024)
            .await
            .unwrap();
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            document,
            serde_json::json!({
                "type": "urn:watchword:problem:cooldown", "title": "A message was sent a moment ago",
                "status": 429, "code": "cooldown", "detail": "wait",
            })
        );
    }
}
