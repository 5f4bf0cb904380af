//! The admin API, `/admin/v1` on the admin listener: authentication, roles, rate limits and the
//! audit trail. The routes call the operations of [`crate::operate`].

mod action;
mod call;
mod routes;

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use tokio::sync::{mpsc, oneshot};
use watchword_chassis::admin::Readiness;
use watchword_chassis::http::within;
use watchword_chassis::{Problem, ProblemCode};
use watchword_core::{Clock, Live};
use watchword_metrics::prometheus::Registry;

pub use action::Action;

use crate::configuration::Loaded;
use crate::limits::Limits;
use crate::operate::{History, Operator};
use crate::trail::AuditTrail;
use crate::{AdminKeys, AdminMetrics};

/// The most changes in progress at once, and the most reads.
const MOST_IN_FLIGHT: usize = 8;

/// A request for a reload. The reply is the changed keys that need a restart, or the error.
pub type ReloadRequest = oneshot::Sender<Result<Vec<String>, String>>;

/// The admin API of a process; cheap to clone.
#[derive(Clone)]
pub struct AdminApi(Arc<Parts>);

/// The state that all clones of an [`AdminApi`] share.
struct Parts {
    keys: Live<AdminKeys>,
    clock: Arc<dyn Clock>,
    metrics: AdminMetrics,
    limits: Limits,
    served: OnceLock<Served>,
}

/// The parts of the API that exist only once the process has started.
pub struct Served {
    /// The operations.
    pub operator: Arc<Operator>,
    /// Where actions are recorded.
    pub trail: Arc<dyn AuditTrail>,
    /// The names of the roles of the process.
    pub roles: Vec<&'static str>,
    /// The dependencies of the process.
    pub readiness: Readiness,
    /// The series of the process.
    pub registry: Registry,
    /// The counters of the last hour.
    pub history: Arc<History>,
    /// The configuration as it was loaded, without secrets.
    pub configuration: Live<Loaded>,
    /// The channel of reload requests.
    pub reload: mpsc::Sender<ReloadRequest>,
}

impl AdminApi {
    /// Creates the API of a process that is starting. It authenticates callers and answers 503
    /// until [`Self::serve`] is called.
    pub fn new(keys: Live<AdminKeys>, clock: Arc<dyn Clock>, metrics: AdminMetrics) -> Self {
        Self(Arc::new(Parts {
            keys,
            clock,
            metrics,
            limits: Limits::default(),
            served: OnceLock::new(),
        }))
    }

    /// Starts to serve requests. A second call has no effect.
    pub fn serve(&self, served: Served) {
        let _ = self.0.served.set(served);
    }

    fn served(&self) -> Result<&Served, Problem> {
        self.0.served.get().ok_or_else(|| {
            let detail = "the process is starting: /readyz names what is missing";
            Problem::new(ProblemCode::StoreUnavailable, detail).retry_after(1)
        })
    }

    /// Builds the routes under `/admin/v1`.
    pub fn routes(self) -> Router {
        let ended =
            from_fn(async |request: Request, next: Next| to_the_end(next.run(request)).await);
        // `ended` wraps `within`: a change keeps its place until it has ended, even if the caller
        // disconnects earlier.
        let changes = Router::new()
            .route("/verifications/{id}/resend", post(routes::resend))
            .route("/verifications/{id}/cancel", post(routes::cancel))
            .route("/unlock", post(routes::unlock))
            .route("/dead-letters/replay", post(routes::replay_dead_letters))
            .route("/dead-letters/discard", post(routes::discard_dead_letters))
            .route("/providers/{name}/circuit", post(routes::circuit))
            .route("/reload", post(routes::reload))
            .with_state(self.clone());
        let changes = within(changes, MOST_IN_FLIGHT).route_layer(ended);
        let looks = Router::new()
            .route("/verifications/find", post(routes::find))
            .route("/dead-letters/list", post(routes::list_dead_letters))
            .route("/dead-letters/show", post(routes::show_dead_letter))
            .route("/audit", post(routes::audit))
            .route("/providers", get(routes::providers))
            .route("/configuration", get(routes::configuration))
            .route("/status", get(routes::status))
            .route("/audit-trail", get(routes::trail))
            .with_state(self);
        let routes = changes
            .merge(within(looks, MOST_IN_FLIGHT))
            .method_not_allowed_fallback(async || {
                let detail = "the path exists, but not with this method";
                Problem::new(ProblemCode::MethodNotAllowed, detail)
            })
            .route("/{*path}", any(unknown_path));
        Router::new().nest("/admin/v1", routes)
    }
}

/// Runs `call` in its own task, so that a change is finished and recorded even if its caller
/// disconnects.
async fn to_the_end(call: impl Future<Output = Response> + Send + 'static) -> Response {
    let ended = tokio::spawn(call).await;
    ended.unwrap_or_else(|_| {
        let detail = "the request could not be processed";
        Problem::new(ProblemCode::Internal, detail).into_response()
    })
}

async fn unknown_path() -> impl IntoResponse {
    Problem::new(ProblemCode::NotFound, "there is no such path")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use super::*;

    #[tokio::test]
    async fn a_change_is_finished_although_its_caller_goes_away() {
        let is_done = Arc::new(AtomicBool::new(false));
        let done = is_done.clone();
        let call = to_the_end(async move {
            sleep(Duration::from_millis(50)).await;
            done.store(true, Ordering::SeqCst);
            Response::default()
        });
        assert!(timeout(Duration::from_millis(5), call).await.is_err());
        assert!(!is_done.load(Ordering::SeqCst));
        for _ in 0..200 {
            sleep(Duration::from_millis(10)).await;
            if is_done.load(Ordering::SeqCst) {
                return;
            }
        }
        panic!("the change was dropped");
    }
}
