//! The verifier's HTTP routes: check, status and cancel, each in a module. A check answers alike
//! for unknown, used and expired verifications and for those of another service.

mod cancel;
mod check;
mod status;
mod view;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::{get, post};
use watchword_chassis::spans::Spans;
use watchword_chassis::{Problem, ProblemCode, Services};
use watchword_core::{Live, VerificationId};
use watchword_ledger::{LedgerError, LedgerStore};

pub use view::VerificationView;

use crate::{Verifier, VerifierError};

/// The state of the routes.
#[derive(Clone)]
pub struct VerifierState {
    /// Checks, cancels and shows verifications.
    pub verifier: Arc<Verifier>,
    /// The outcomes of deliveries.
    pub ledger: Arc<dyn LedgerStore>,
    /// The services that may call.
    pub services: Live<Services>,
    /// The recorder of spans.
    pub spans: Spans,
}

impl FromRef<VerifierState> for Live<Services> {
    fn from_ref(state: &VerifierState) -> Self {
        state.services.clone()
    }
}

/// Builds the routes.
pub fn routes(state: VerifierState) -> Router {
    Router::new()
        .route("/v1/verifications/{id}/check", post(check::check))
        .route(
            "/v1/verifications/{id}",
            get(status::status).delete(cancel::cancel),
        )
        .with_state(state)
}

fn parse_id(text: &str) -> Result<VerificationId, Problem> {
    text.parse().map_err(|_| not_found())
}

fn not_found() -> Problem {
    Problem::new(
        ProblemCode::NotFound,
        "the service has no verification of this id",
    )
}

/// Returns the problem of a store that cannot be reached. `advice` says how to go on.
fn store_problem(advice: &str) -> Problem {
    let detail = format!("the store cannot be reached; {advice}");
    Problem::new(ProblemCode::StoreUnavailable, detail).retry_after(1)
}

impl From<VerifierError> for Problem {
    fn from(error: VerifierError) -> Self {
        match error {
            VerifierError::Store(_) => store_problem("repeat the request"),
            VerifierError::Vault(_) | VerifierError::Entropy(_) => {
                tracing::error!(%error, "a verification could not be processed");
                Self::new(ProblemCode::Internal, "the request could not be processed")
            }
        }
    }
}

fn ledger_problem(_: LedgerError) -> Problem {
    Problem::new(
        ProblemCode::StoreUnavailable,
        "the deliveries cannot be read",
    )
    .retry_after(1)
}

#[cfg(test)]
mod tests {
    use watchword_storage::StorageError;

    use super::*;
    use crate::store::StoreError;

    /// Status, cancel and unlock cannot approve, so their advice does not mention it.
    #[test]
    fn only_a_check_says_that_nothing_was_approved() {
        let away = || VerifierError::Store(StoreError::Storage(StorageError::Timeout));
        let detail = Problem::from(away()).detail;
        assert_eq!(detail, "the store cannot be reached; repeat the request");
        let detail = check::unchecked(away()).detail;
        assert!(detail.contains("nothing is approved"), "{detail}");
    }
}
