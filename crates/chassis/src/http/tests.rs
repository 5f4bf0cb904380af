//! API keys, responses to unknown paths and methods, and the limit of concurrent requests.

use axum::body::Body;
use axum::http::HeaderValue;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;

use super::*;

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

#[tokio::test]
async fn probes_are_answered_and_unknown_paths_and_methods_are_refused() {
    let routes = || public(Router::new().route("/v1/a", get(async || "a")));
    for (method, path, status, allow) in [
        ("GET", "/healthz", 200, None),
        ("HEAD", "/healthz", 200, None),
        ("OPTIONS", "/healthz", 204, Some("GET,HEAD")),
        ("OPTIONS", "/v1/a", 204, Some("GET,HEAD")),
        ("OPTIONS", "/", 204, None),
        ("OPTIONS", "*", 204, None),
        ("POST", "/healthz", 405, Some("GET,HEAD")),
        ("POST", "/v1/a", 405, Some("GET,HEAD")),
        ("GET", "/", 404, None),
        ("GET", "/v1/a/", 404, None),
        ("GET", "//v1/a", 404, None),
        ("GET", "/%76/a", 404, None),
    ] {
        let request = Request::builder().method(method).uri(path);
        let service = TowerToHyperService::new(routes());
        let answer = service.call(request.body(Body::empty()).unwrap()).await;
        let (head, body) = answer.unwrap().into_parts();
        assert_eq!(head.status, status, "{method} {path}");
        let found = head
            .headers
            .get("allow")
            .map(|value| value.to_str().unwrap());
        assert_eq!(found, allow, "{method} {path}");
        let body = axum::body::to_bytes(body, 4_096).await.unwrap();
        let is_problem = status >= 400 && !body.is_empty();
        assert_eq!(
            head.headers.get("content-type"),
            is_problem.then_some(&HeaderValue::from_static("application/problem+json")),
            "{method} {path}"
        );
        assert_eq!(body.is_empty(), status < 400, "{method} {path}");
    }
}
