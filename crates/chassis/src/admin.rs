//! Routes of the admin listener: liveness, readiness and metrics. The public listener does not
//! serve them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use watchword_metrics::Maker;
use watchword_metrics::prometheus::core::Collector;
use watchword_metrics::prometheus::proto::MetricFamily;
use watchword_metrics::prometheus::{Encoder, Registry, TEXT_FORMAT, TextEncoder};

use crate::telemetry::DEPENDENCY;

/// Returns whether a dependency is available. Called for every request, so it must be cheap.
type Probe = Box<dyn Fn() -> bool + Send + Sync>;

/// Dependencies that must be available for the process to do its work.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, Probe>>>);

#[derive(Serialize)]
struct Report {
    ready: bool,
    dependencies: BTreeMap<&'static str, &'static str>,
}

impl Readiness {
    /// Adds the dependency `name`, checked with `probe`.
    pub fn require(&self, name: &'static str, probe: impl Fn() -> bool + Send + Sync + 'static) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name, Box::new(probe));
    }

    /// Returns each dependency and whether it is available.
    pub fn report(&self) -> BTreeMap<&'static str, bool> {
        let probes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        probes
            .iter()
            .map(|(name, probe)| (*name, probe()))
            .collect()
    }

    /// Whether all dependencies are available.
    pub fn is_ready(&self) -> bool {
        self.report().values().all(|up| *up)
    }
}

impl std::fmt::Debug for Readiness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Readiness").field(&self.report()).finish()
    }
}

/// Returns the routes of the admin listener.
pub fn routes(registry: Registry, readiness: Readiness) -> Router {
    Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .with_state(readiness.clone())
        .route("/metrics", get(metrics).with_state((registry, readiness)))
}

async fn readyz(State(readiness): State<Readiness>) -> Response {
    let report = readiness.report();
    let ready = report.values().all(|up| *up);
    let dependencies = report
        .into_iter()
        .map(|(name, up)| (name, if up { "up" } else { "down" }))
        .collect();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        status,
        Json(Report {
            ready,
            dependencies,
        }),
    )
        .into_response()
}

/// Returns the state of each dependency as a gauge, probed at this scrape.
fn dependencies(readiness: &Readiness) -> Vec<MetricFamily> {
    let Ok(gauges) = Maker::new(&Registry::new()).gauges(&DEPENDENCY) else {
        return Vec::new();
    };
    for (name, up) in readiness.report() {
        gauges.with_label_values(&[name]).set(i64::from(up));
    }
    Collector::collect(&gauges)
}

async fn metrics(State((registry, readiness)): State<(Registry, Readiness)>) -> Response {
    let mut text = Vec::new();
    let mut families = registry.gather();
    families.extend(dependencies(&readiness));
    match TextEncoder::new().encode(&families, &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
