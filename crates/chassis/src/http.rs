//! HTTP layer of the public routes: authentication by API key, shared extractors, the limit of
//! concurrent requests and the answers to unknown paths and methods.

mod body;
mod json;

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Semaphore;
use watchword_core::{Live, Service, TraceParent};

use crate::services::Services;
use crate::{Problem, ProblemCode};

pub(crate) use body::receive;
pub use body::whole;
pub use json::{JsonBody, OptionalJsonBody, parse_json};

/// The detail of the answer to an unknown path.
pub const NO_PATH: &str = "there is no such path";

/// The service that calls, found by its API key. A handler that extracts it answers 401 if there is
/// no known key.
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
        let refused = |detail| Problem::new(ProblemCode::Unauthorized, detail);
        let key =
            bearer(&parts.headers).ok_or_else(|| refused("send Authorization: Bearer <key>"))?;
        services
            .by_api_key(key)
            .map(|service| Self(service.clone()))
            .ok_or_else(|| refused("no service has this API key"))
    }
}

/// The trace context of the caller, if it sent a valid `traceparent`.
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

/// Returns the bearer token if there is exactly one `Authorization` header and it has one.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
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

/// The single parameter of a path. A segment that is not UTF-8 is answered with 404, because axum's
/// rejection is not a problem document.
#[derive(Debug)]
pub struct PathText(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathText {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        text.map(|Path(text)| Self(text))
            .map_err(|_| Problem::new(ProblemCode::NotFound, NO_PATH))
    }
}

/// Limits `routes` to `places` concurrent requests; a further one is answered with `overloaded`.
///
/// A request counts from the moment its body has arrived, so that a slow sender occupies no place.
pub fn within(routes: Router, places: usize) -> Router {
    if !routes.has_routes() {
        return routes;
    }
    let places = Arc::new(Semaphore::new(places));
    routes.route_layer(from_fn(move |request: Request, next: Next| {
        let place = places.clone().try_acquire_owned();
        async move {
            let Ok(_place) = place else {
                return Problem::new(ProblemCode::Overloaded, "try again in a moment")
                    .retry_after(1)
                    .into_response();
            };
            next.run(request).await
        }
    }))
}

/// Adds the common routes of the public listener: `/healthz` for load balancers, and answers for
/// unknown paths and methods. `OPTIONS`, which some probes send, is answered with 204 on every
/// path; without CORS headers that gives no page of another origin access.
pub fn public(routes: Router) -> Router {
    routes
        .route("/healthz", get(async || StatusCode::OK))
        .fallback(async |method: Method| {
            options_or(&method, Problem::new(ProblemCode::NotFound, NO_PATH))
        })
        .method_not_allowed_fallback(async |method: Method| {
            options_or(
                &method,
                Problem::new(
                    ProblemCode::MethodNotAllowed,
                    "the path exists, but not with this method",
                ),
            )
        })
}

fn options_or(method: &Method, problem: Problem) -> Response {
    if method == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        problem.into_response()
    }
}

#[cfg(test)]
mod tests;
