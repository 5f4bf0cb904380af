//! JSON bodies: content type, size, and errors that name the field but never quote its value.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use serde::de::DeserializeOwned;

use super::body::whole;
use crate::{Problem, ProblemCode};

const MAX_BODY_BYTES: usize = 16 * 1024;
/// Byte order mark that some encoders write first. RFC 8259 section 8.1 allows a reader to ignore
/// it.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// JSON body of type `T`, at most 16 KiB.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        check_headers(request.headers())?;
        let body = whole(request, MAX_BODY_BYTES).await?;
        parse_json(&body).map(Self)
    }
}

/// Like [`JsonBody`], but an empty body yields the default regardless of its headers: clients and
/// proxies that stream announce a body before they know that it is empty.
#[derive(Debug)]
pub struct OptionalJsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalJsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let checked = check_headers(request.headers());
        let body: Bytes = whole(request, MAX_BODY_BYTES).await?;
        if body.is_empty() {
            return Ok(Self(T::default()));
        }
        checked?;
        parse_json(&body).map(Self)
    }
}

/// Checks that the body is declared as JSON in UTF-8 and is not compressed.
fn check_headers(headers: &HeaderMap) -> Result<(), Problem> {
    let unsupported = |detail| Err(Problem::new(ProblemCode::UnsupportedMediaType, detail));
    if !is_json(headers) {
        return unsupported("send Content-Type: application/json");
    }
    let is_plain = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .all(|coding| {
            coding
                .as_bytes()
                .trim_ascii()
                .eq_ignore_ascii_case(b"identity")
        });
    if !is_plain {
        return unsupported("send the body without Content-Encoding");
    }
    Ok(())
}

/// Whether the content type is JSON in UTF-8 or in US-ASCII, which is a subset. `utf8` is not a
/// registered charset name, but is common.
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
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, "utf-8"));
        let charset = value.trim().trim_matches('"');
        !name.trim().eq_ignore_ascii_case("charset")
            || ["utf-8", "utf8", "us-ascii"]
                .iter()
                .any(|known| charset.eq_ignore_ascii_case(known))
    });
    is_json && is_utf8
}

/// Parses one JSON document.
///
/// # Errors
///
/// Names the field that is wrong and never quotes its value.
pub fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    // Tracking the path costs more than parsing, so only an invalid document is parsed with it.
    if let Ok(parsed) = serde_json::from_slice(body) {
        return Ok(parsed);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        if error.is_data() {
            field_problem(&path, &error.to_string())
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

/// Builds the error from the kind of serde's message: the message itself may quote the value.
fn field_problem(path: &str, message: &str) -> Problem {
    let wrong = |field: Option<String>, what: &str| {
        let detail = match &field {
            Some(field) => format!("{field}: {what}"),
            None => what.to_owned(),
        };
        Problem {
            field: field.map(Into::into),
            ..Problem::new(ProblemCode::InvalidRequest, detail)
        }
    };
    let path = Some(path).filter(|path| *path != "." && is_plain(path, 64, b"_.[]"));
    for (start, what) in [
        ("missing field `", "is missing"),
        ("unknown field `", "is not a field of this request"),
        ("duplicate field `", "is given twice"),
    ] {
        let Some(rest) = message.strip_prefix(start) else {
            continue;
        };
        // Quote a name from the request only if it looks like a field name.
        let name = rest
            .split('`')
            .next()
            .filter(|name| is_plain(name, 32, b"_"));
        return match name {
            Some(name) => wrong(Some(join_path(path, name)), what),
            None => wrong(None, "the request has a field that is unknown"),
        };
    }
    match path {
        Some(path) => wrong(Some(path.to_owned()), "has the wrong type"),
        None => wrong(None, "the body has the wrong type"),
    }
}

/// Returns the path of field `name` in the object at `path`. `path` may already end with the name.
fn join_path(path: Option<&str>, name: &str) -> String {
    match path {
        Some(path) if path == name || path.ends_with(&format!(".{name}")) => path.to_owned(),
        Some(path) => format!("{path}.{name}"),
        None => name.to_owned(),
    }
}

/// Whether `text` has at most `most` bytes and consists of letters, digits and `more`.
fn is_plain(text: &str, most: usize, more: &[u8]) -> bool {
    let mut bytes = text.bytes();
    text.len() <= most && bytes.all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
}

#[cfg(test)]
mod tests;
