//! JSON bodies: accepted forms and error messages.

use axum::body::Body;
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
        let problem = problem(body);
        assert_eq!((problem.code, &*problem.detail), (code, detail), "{body}");
        let field = detail.split_once(": ").map(|(field, _)| field);
        assert_eq!(problem.field.as_deref(), field, "{body}");
    }
    assert_eq!(
        problem(&"[".repeat(10_000)).code,
        ProblemCode::InvalidRequest
    );
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nested {
    #[serde(rename = "to")]
    _to: String,
    #[serde(rename = "variables", default)]
    _variables: std::collections::BTreeMap<String, String>,
    #[serde(rename = "steps", default)]
    _steps: Vec<Sample>,
}

#[test]
fn the_path_of_a_wrong_field_is_named() {
    for (body, field) in [
        ("{\"to\":5}", Some("to")),
        ("{\"to\":\"\",\"variables\":[]}", Some("variables")),
        (
            "{\"to\":\"\",\"variables\":{\"amount\":5}}",
            Some("variables.amount"),
        ),
        ("{\"to\":\"\",\"variables\":{\"12 34\":5}}", None),
        ("{\"to\":\"\",\"steps\":{}}", Some("steps")),
        ("{\"to\":\"\",\"steps\":[7]}", Some("steps[0]")),
        ("{\"to\":\"\",\"steps\":[{}]}", Some("steps[0].code")),
        (
            "{\"to\":\"\",\"steps\":[{\"code\":\"1\"},{\"code\":5}]}",
            Some("steps[1].code"),
        ),
        (
            "{\"to\":\"\",\"steps\":[{\"code\":\"1\",\"more\":5}]}",
            Some("steps[0].more"),
        ),
        (
            "{\"to\":\"\",\"steps\":[{\"code\":\"1\",\"code\":\"2\"}]}",
            Some("steps[0].code"),
        ),
        ("[]", None),
        ("5", None),
    ] {
        let problem = parse_json::<Nested>(body.as_bytes()).unwrap_err();
        assert_eq!(problem.code, ProblemCode::InvalidRequest, "{body}");
        assert_eq!(problem.field.as_deref(), field, "{body}");
        let names_it = field.is_none_or(|field| problem.detail.starts_with(field));
        assert!(names_it, "{}", problem.detail);
    }
}

#[test]
fn json_is_what_declares_itself_so_in_utf8() {
    let declared = |name: header::HeaderName, value: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        headers.insert(name, HeaderValue::from_static(value));
        check_headers(&headers).is_ok()
    };
    for value in [
        "application/json",
        "Application/JSON",
        "application/json;",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "application/json; charset=utf8",
        "application/json; charset=UTF8",
        "application/json; charset=us-ascii",
        "application/json; charset=\"US-ASCII\"",
        "application/json; charset=\"utf-8\"; x=y",
        "application/json; Charset = \"Utf8\"",
    ] {
        assert!(declared(header::CONTENT_TYPE, value), "{value}");
    }
    for value in [
        "",
        "text/plain",
        "text/json",
        "application/json-patch",
        "application/json; charset=utf-16",
        "application/json; charset=latin1",
        "application/json; charset=",
    ] {
        assert!(!declared(header::CONTENT_TYPE, value), "{value}");
    }
    assert!(check_headers(&HeaderMap::new()).is_err());
    for (coding, is_taken) in [
        ("identity", true),
        ("Identity", true),
        ("gzip", false),
        ("", false),
        ("identity, gzip", false),
    ] {
        assert_eq!(
            declared(header::CONTENT_ENCODING, coding),
            is_taken,
            "{coding}"
        );
    }
}

#[test]
fn a_byte_order_mark_in_front_is_ignored() {
    assert!(parse_json::<Sample>("\u{feff}{\"code\":\"1\"}".as_bytes()).is_ok());
    let twice = parse_json::<Sample>("\u{feff}\u{feff}{}".as_bytes());
    assert_eq!(twice.unwrap_err().code, ProblemCode::InvalidJson);
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Optional {
    a: Option<u8>,
}

fn post(headers: &[(&str, &str)], body: impl Into<Body>) -> Request {
    let mut request = Request::post("/");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

/// Body of unknown length, like a chunked one.
fn chunks(chunks: &'static [&'static str]) -> Body {
    let chunks = chunks.iter().map(|chunk| Ok::<_, std::io::Error>(*chunk));
    Body::from_stream(futures_util::stream::iter(chunks))
}

#[tokio::test]
async fn a_body_without_bytes_is_no_body() {
    let json = ("content-type", "application/json");
    for headers in [
        &[][..],
        &[json],
        &[("content-type", "text/plain")],
        &[json, ("content-encoding", "gzip")],
    ] {
        for body in [Body::empty(), chunks(&[]), chunks(&["", ""])] {
            let read = OptionalJsonBody::from_request(post(headers, body), &()).await;
            assert_eq!(
                read.map(|body: OptionalJsonBody<Optional>| body.0),
                Ok(Optional::default()),
                "{headers:?}"
            );
        }
        let read = OptionalJsonBody::<Optional>::from_request(
            post(headers, chunks(&["{\"a\"", ":1}"])),
            &(),
        )
        .await;
        if headers == [json] {
            assert_eq!(read.unwrap().0, Optional { a: Some(1) });
        } else {
            assert_eq!(
                read.unwrap_err().code,
                ProblemCode::UnsupportedMediaType,
                "{headers:?}"
            );
        }
    }
    let none = JsonBody::<Optional>::from_request(post(&[json], Body::empty()), &()).await;
    assert_eq!(none.unwrap_err().code, ProblemCode::InvalidJson);
}

#[tokio::test]
async fn a_body_has_at_most_16_kib() {
    let json = ("content-type", "application/json");
    let padded = |bytes: usize| format!("{{\"a\":{}1}}", " ".repeat(bytes - 7));
    for (bytes, is_taken) in [
        (16 * 1024, true),
        (16 * 1024 + 1, false),
        (70 * 1024, false),
    ] {
        let read = JsonBody::<Optional>::from_request(post(&[json], padded(bytes)), &()).await;
        assert_eq!(
            read.err().map(|problem| problem.code),
            (!is_taken).then_some(ProblemCode::BodyTooLarge)
        );
    }
}
