//! The public routes: who calls, and what body they may send.
//! Refuses bodies over 16 KiB, slow ones, undeclared ones and those with fields it does not know.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use watchword_core::{Live, TraceParent};

use crate::services::{Service, Services};
use crate::{Problem, ProblemCode};

const MAX_BODY_BYTES: usize = 16 * 1024;
/// What is read of a body that is too large.
const MAX_DISCARDED_BYTES: usize = 2 * 1024 * 1024;
const BODY_DEADLINE: Duration = Duration::from_secs(5);

/// The service that calls, by its API key. Handlers that take it are closed to others.
#[derive(Debug, Clone)]
pub struct Caller(pub Arc<Service>);

impl<S> FromRequestParts<S> for Caller
where
    S: Send + Sync,
    Live<Services>: axum::extract::FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let services = <Live<Services> as axum::extract::FromRef<S>>::from_ref(state).get();
        bearer(&parts.headers)
            .and_then(|key| services.by_api_key(key))
            .map(|service| Self(service.clone()))
            .ok_or_else(|| {
                Problem::new(
                    ProblemCode::Unauthorized,
                    "send Authorization: Bearer <key>",
                )
            })
    }
}

/// The caller's trace, if it sends one that can be read.
#[derive(Debug, Clone, Copy)]
pub struct CallerTrace(pub Option<TraceParent>);

impl<S: Send + Sync> FromRequestParts<S> for CallerTrace {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let header = parts.headers.get("traceparent");
        let trace = header.and_then(|header| TraceParent::parse(header.to_str().ok()?));
        Ok(Self(trace))
    }
}

/// The bearer token, if there is exactly one `Authorization` header and it has one.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then_some(token.trim())
}

/// The one parameter of a path. What is no UTF-8 is the name of nothing; the framework's own answer
/// to it would be no problem document.
#[derive(Debug)]
pub struct PathText(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathText {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        text.map(|Path(text)| Self(text))
            .map_err(|_| Problem::new(ProblemCode::NotFound, "there is no such path"))
    }
}

/// A JSON body of type `T`, read within its limits.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::new(
                ProblemCode::UnsupportedMediaType,
                "send Content-Type: application/json",
            ));
        }
        if request.headers().contains_key(header::CONTENT_ENCODING) {
            return Err(Problem::new(
                ProblemCode::UnsupportedMediaType,
                "send the body without Content-Encoding",
            ));
        }
        let declared = request
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|v| v.to_str().ok()?.parse().ok());
        let within = declared.is_none_or(|bytes: usize| bytes <= MAX_BODY_BYTES);
        let body = timeout(BODY_DEADLINE, read_body(request.into_body(), within))
            .await
            .map_err(|_| {
                Problem::new(
                    ProblemCode::RequestTimeout,
                    "the body must arrive within 5 s",
                )
            })?
            .ok_or_else(|| Problem::new(ProblemCode::BodyTooLarge, "a body has at most 16 KiB"))?;
        parse_json(&body).map(Self)
    }
}

/// The body, or `None` if it is too large. Of one that is, a little more is read and thrown away:
/// a caller whose connection is reset in the middle of its request never sees why.
async fn read_body(body: Body, within: bool) -> Option<Vec<u8>> {
    let mut chunks = body.into_data_stream();
    let (mut kept, mut seen, mut within) = (Vec::new(), 0, within);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.ok()?;
        seen += chunk.len();
        within &= seen <= MAX_BODY_BYTES;
        if within {
            kept.extend_from_slice(&chunk);
        } else if seen > MAX_DISCARDED_BYTES {
            break;
        }
    }
    within.then_some(kept)
}

/// Like [`JsonBody`], but no body at all stands for the default.
#[derive(Debug)]
pub struct OptionalJsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalJsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if axum::body::HttpBody::is_end_stream(request.body()) {
            return Ok(Self(T::default()));
        }
        JsonBody::from_request(request, state)
            .await
            .map(|JsonBody(body)| Self(body))
    }
}

/// JSON from whole bytes; what is wrong is told by its field, never by its value.
pub fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // Which field it is costs more than all else, and is asked for only where one is wrong.
    if let Ok(parsed) = serde_json::from_slice(body) {
        return Ok(parsed);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        if error.is_data() {
            Problem::new(
                ProblemCode::InvalidRequest,
                field_problem(&path, &error.to_string()),
            )
        } else {
            Problem::new(ProblemCode::InvalidJson, "the body is not a JSON document")
        }
    })?;
    deserializer.end().map_err(|_| {
        Problem::new(
            ProblemCode::InvalidJson,
            "the body is not one JSON document",
        )
    })?;
    Ok(parsed)
}

/// Says which field is wrong in our words; serde's own may quote the value.
fn field_problem(path: &str, message: &str) -> String {
    let named = |start: &str| {
        let name = message.strip_prefix(start)?.split('`').next()?;
        // A name the caller made up is quoted only if it looks like one.
        let plain =
            name.len() <= 32 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        plain.then(|| name.to_owned())
    };
    if let Some(name) = named("missing field `") {
        return format!("{name}: is missing");
    }
    if message.starts_with("unknown field") {
        return match named("unknown field `") {
            Some(name) => format!("{name}: is not a field of this request"),
            None => "the request has a field that is unknown".to_owned(),
        };
    }
    if let Some(name) = named("duplicate field `") {
        return format!("{name}: is given twice");
    }
    let plain_path = path.len() <= 64
        && path
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.[]".contains(&b));
    if plain_path && path != "." {
        format!("{path}: has the wrong type")
    } else {
        "the body has the wrong type".to_owned()
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
    else {
        return false;
    };
    let mut parts = value.split(';').map(str::trim);
    let is_json = parts
        .next()
        .is_some_and(|mime| mime.eq_ignore_ascii_case("application/json"));
    let is_utf8 = parts.all(|parameter| {
        parameter.split_once('=').is_none_or(|(name, charset)| {
            !name.eq_ignore_ascii_case("charset")
                || charset.trim_matches('"').eq_ignore_ascii_case("utf-8")
        })
    });
    is_json && is_utf8
}

/// Puts around `routes` what every public route has: an answer for unknown paths and methods.
pub fn public(routes: Router) -> Router {
    routes
        .fallback(async || Problem::new(ProblemCode::NotFound, "there is no such path"))
        .method_not_allowed_fallback(async || {
            Problem::new(
                ProblemCode::MethodNotAllowed,
                "the path exists, but not with this method",
            )
        })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[serde(rename = "code")]
        _code: String,
    }

    #[test]
    fn wrong_bodies_are_told_by_field_and_never_by_value() {
        let problem = |body: &str| parse_json::<Sample>(body.as_bytes()).unwrap_err();
        let cases = [
            ("{}", ProblemCode::InvalidRequest, "code: is missing"),
            (
                "{\"code\":12345}",
                ProblemCode::InvalidRequest,
                "code: has the wrong type",
            ),
            (
                "{\"code\":[\"12345\"]}",
                ProblemCode::InvalidRequest,
                "code: has the wrong type",
            ),
            (
                "{\"code\":null}",
                ProblemCode::InvalidRequest,
                "code: has the wrong type",
            ),
            (
                "{\"code\":\"1\",\"code\":\"12345\"}",
                ProblemCode::InvalidRequest,
                "code: is given twice",
            ),
            (
                "{\"code\":\"1\",\"to\":\"12345\"}",
                ProblemCode::InvalidRequest,
                "to: is not a field of this request",
            ),
            (
                "{\"code\":\"1\",\"12345 x\":1}",
                ProblemCode::InvalidRequest,
                "the request has a field that is unknown",
            ),
            (
                "{\"code\":\"1\"} 12345",
                ProblemCode::InvalidJson,
                "the body is not one JSON document",
            ),
            (
                "{\"code\":",
                ProblemCode::InvalidJson,
                "the body is not a JSON document",
            ),
            (
                "",
                ProblemCode::InvalidJson,
                "the body is not a JSON document",
            ),
        ];
        for (body, code, detail) in cases {
            assert_eq!(problem(body), Problem::new(code, detail), "{body}");
        }
        assert_eq!(
            problem(&"[".repeat(10_000)).code,
            ProblemCode::InvalidRequest
        );
    }

    #[test]
    fn one_bearer_header_is_read_and_two_are_not() {
        let mut headers = HeaderMap::new();
        assert_eq!(bearer(&headers), None);
        headers.append(
            header::AUTHORIZATION,
            HeaderValue::from_static("bearer abc"),
        );
        assert_eq!(bearer(&headers), Some("abc"));
        headers.append(
            header::AUTHORIZATION,
            HeaderValue::from_static("Bearer abc"),
        );
        assert_eq!(bearer(&headers), None);
    }

    #[test]
    fn only_declared_utf8_json_is_json() {
        let declared = |value: &'static str| {
            is_json(&HeaderMap::from_iter([(
                header::CONTENT_TYPE,
                HeaderValue::from_static(value),
            )]))
        };
        assert!(declared("application/json") && declared("Application/JSON; charset=UTF-8"));
        assert!(!declared("text/plain") && !declared("application/json; charset=utf-16"));
        assert!(!is_json(&HeaderMap::new()));
    }
}
