//! The issuer's HTTP routes: ask for a code, ask for it again. One endpoint a file.

mod create;
mod resend;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::http::HeaderMap;
use axum::routing::post;
use watchword_chassis::Services;
use watchword_core::{Live, TraceId};

use crate::Issuer;
use crate::telemetry::IssuerMetrics;

/// What the routes need.
#[derive(Clone)]
pub struct IssuerState {
    /// Accepts requests.
    pub issuer: Arc<Issuer>,
    /// Who may ask.
    pub services: Live<Services>,
    /// Where answers are counted.
    pub metrics: IssuerMetrics,
}

impl FromRef<IssuerState> for Live<Services> {
    fn from_ref(state: &IssuerState) -> Self {
        state.services.clone()
    }
}

/// The routes.
pub fn routes(state: IssuerState) -> Router {
    Router::new()
        .route("/v1/verifications", post(create::create))
        .route("/v1/verifications/{id}/resend", post(resend::resend))
        .with_state(state)
}

/// The trace the caller is in, if it says so.
fn trace_of(headers: &HeaderMap) -> Option<TraceId> {
    TraceId::of_traceparent(headers.get("traceparent")?.to_str().ok()?)
}
