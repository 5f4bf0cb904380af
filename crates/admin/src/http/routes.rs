//! The handlers of the routes. Each authenticates the caller, parses the body, calls the operation,
//! and records and returns the result.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use watchword_chassis::http::PathText;
use watchword_chassis::{Problem, ProblemCode};
use watchword_core::{ProviderName, VerificationId};

use super::call::{Call, body};
use super::{Action, AdminApi, ReloadRequest, Served};
use crate::operate::{
    ChangeReport, ChangeRequest, CircuitRequest, DeadLetterFilter, FindRequest, MOST_LISTED,
    Operator, ShowRequest, StatusSources, UnlockRequest, VerificationReport,
};
use crate::trail::{MOST_RECORDS, TrailRecord};

/// How long a request waits for its reload; longer than a reload takes on a busy machine.
const RELOAD_DEADLINE: Duration = Duration::from_secs(20);

/// A request body that contains only a reason.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReasonBody {
    reason: String,
}

/// Begins the call, or returns its error response from the handler.
macro_rules! begin {
    ($api:expr, $action:ident, $request:expr) => {
        match Call::begin(&$api, Action::$action, $request.headers()).await {
            Ok(call) => call,
            Err(response) => return *response,
        }
    };
}

pub(super) async fn find(State(api): State<AdminApi>, request: Request) -> Response {
    let mut call = begin!(api, Find, request);
    let answer = async {
        let operator = operator(&api)?;
        let wanted: FindRequest = body(request).await?;
        if wanted.is_lookup() {
            call.look_up()?;
        }
        call.concerns(operator.find_target(&wanted)?);
        operator.find(&wanted).await
    };
    let answer = answer.await;
    call.answer(answer).await
}

pub(super) async fn resend(
    State(api): State<AdminApi>,
    PathText(id): PathText,
    request: Request,
) -> Response {
    let mut call = begin!(api, Resend, request);
    let answer = async {
        let id = verification(&mut call, &id, request).await?;
        operator(&api)?.resend(&id).await
    };
    let answer: Result<VerificationReport, _> = answer.await;
    call.answer(answer).await
}

pub(super) async fn cancel(
    State(api): State<AdminApi>,
    PathText(id): PathText,
    request: Request,
) -> Response {
    let mut call = begin!(api, Cancel, request);
    let answer = async {
        let id = verification(&mut call, &id, request).await?;
        operator(&api)?.cancel(&id).await
    };
    let answer: Result<VerificationReport, _> = answer.await;
    call.answer(answer).await
}

/// Parses the id in the path and the reason in the body, and sets both for the trail.
async fn verification(
    call: &mut Call,
    id: &str,
    request: Request,
) -> Result<VerificationId, Problem> {
    let unknown = "no verification of this id is remembered";
    let id = id.parse();
    let id: VerificationId = id.map_err(|_| Problem::new(ProblemCode::NotFound, unknown))?;
    call.concerns(format!("verification {id}"));
    let ReasonBody { reason } = body(request).await?;
    call.because(&reason)?;
    Ok(id)
}

pub(super) async fn unlock(State(api): State<AdminApi>, request: Request) -> Response {
    let mut call = begin!(api, Unlock, request);
    let answer = async {
        let operator = operator(&api)?;
        let wanted: UnlockRequest = body(request).await?;
        // The answer reveals whether anything was counted for the target, as a look-up would.
        call.look_up()?;
        call.because(&wanted.reason)?;
        call.concerns(operator.unlock_target(&wanted)?);
        operator.unlock(&wanted).await
    };
    let answer = answer.await;
    call.answer(answer).await
}

pub(super) async fn list_dead_letters(State(api): State<AdminApi>, request: Request) -> Response {
    let call = begin!(api, ListDeadLetters, request);
    let answer = async {
        let operator = operator(&api)?;
        let filter: DeadLetterFilter = body(request).await?;
        operator.dead_letters(&filter).await
    };
    let answer = answer.await;
    call.answer(answer).await
}

pub(super) async fn show_dead_letter(State(api): State<AdminApi>, request: Request) -> Response {
    let call = begin!(api, ShowDeadLetter, request);
    let answer = async {
        let operator = operator(&api)?;
        let wanted: ShowRequest = body(request).await?;
        operator.dead_letter(&wanted.id).await
    };
    let answer = answer.await;
    call.answer(answer).await
}

pub(super) async fn replay_dead_letters(State(api): State<AdminApi>, request: Request) -> Response {
    let mut call = begin!(api, ReplayDeadLetters, request);
    let answer = async {
        let wanted = change(&mut call, request).await?;
        operator(&api)?.replay(&wanted).await
    };
    let answer: Result<ChangeReport, _> = answer.await;
    call.answer(answer).await
}

pub(super) async fn discard_dead_letters(
    State(api): State<AdminApi>,
    request: Request,
) -> Response {
    let mut call = begin!(api, DiscardDeadLetters, request);
    let answer = async {
        let wanted = change(&mut call, request).await?;
        operator(&api)?.discard(&wanted).await
    };
    let answer: Result<ChangeReport, _> = answer.await;
    call.answer(answer).await
}

async fn change(call: &mut Call, request: Request) -> Result<ChangeRequest, Problem> {
    let wanted: ChangeRequest = body(request).await?;
    call.because(&wanted.reason)?;
    call.concerns(wanted.target());
    Ok(wanted)
}

pub(super) async fn audit(State(api): State<AdminApi>, request: Request) -> Response {
    let call = begin!(api, Audit, request);
    let answer = async { operator(&api)?.audit(MOST_LISTED).await };
    let answer = answer.await;
    call.answer(answer).await
}

pub(super) async fn providers(State(api): State<AdminApi>, request: Request) -> Response {
    let call = begin!(api, Providers, request);
    let answer = operator(&api).and_then(Operator::providers);
    call.answer(answer).await
}

pub(super) async fn circuit(
    State(api): State<AdminApi>,
    PathText(name): PathText,
    request: Request,
) -> Response {
    let mut call = begin!(api, Circuit, request);
    let answer = async {
        let unknown = "no worker of this process has a provider of this name";
        let name = name.parse();
        let name: ProviderName = name.map_err(|_| Problem::new(ProblemCode::NotFound, unknown))?;
        let wanted: CircuitRequest = body(request).await?;
        call.because(&wanted.reason)?;
        call.concerns(wanted.target(&name));
        operator(&api)?.hold_circuit(&name, &wanted)
    };
    let answer = answer.await;
    call.answer(answer).await
}

pub(super) async fn configuration(State(api): State<AdminApi>, request: Request) -> Response {
    let call = begin!(api, Configuration, request);
    let loaded = api.served().map(|served| served.configuration.get());
    let answer = loaded.map(|loaded| loaded.as_ref().clone());
    call.answer(answer).await
}

/// A reload that was applied.
#[derive(Serialize)]
struct ReloadReport {
    reloaded: bool,
    /// The configuration keys whose change waits for a restart of the process.
    restart_needed: Vec<String>,
}

pub(super) async fn reload(State(api): State<AdminApi>, request: Request) -> Response {
    let mut call = begin!(api, Reload, request);
    let answer = async {
        let ReasonBody { reason } = body(request).await?;
        call.because(&reason)?;
        reloaded(&api.served()?.reload).await
    };
    let answer = answer.await;
    call.answer(answer).await
}

async fn reloaded(reload: &mpsc::Sender<ReloadRequest>) -> Result<ReloadReport, Problem> {
    let unavailable = |detail, seconds| {
        let problem = Problem::new(ProblemCode::Overloaded, detail);
        problem.retry_after(seconds)
    };
    let (answer, answered) = oneshot::channel();
    reload
        .try_send(answer)
        .map_err(|_| unavailable("the process is busy with another reload", 2))?;
    match timeout(RELOAD_DEADLINE, answered).await {
        Ok(Ok(Ok(restart_needed))) => Ok(ReloadReport {
            reloaded: true,
            restart_needed,
        }),
        Ok(Ok(Err(why))) => {
            let detail = format!("{why}. The running configuration stays in use.");
            Err(Problem::new(ProblemCode::InvalidRequest, detail))
        }
        Ok(Err(_)) => Err(unavailable("the process stops; nothing was reloaded", 2)),
        Err(_) => Err(unavailable(
            "the reload continues; GET /admin/v1/status shows if it is refused or needs a restart",
            20,
        )),
    }
}

pub(super) async fn status(State(api): State<AdminApi>, request: Request) -> Response {
    let call = begin!(api, Status, request);
    let answer = api.served().map(|served| {
        let Served {
            operator,
            roles,
            readiness,
            registry,
            history,
            configuration,
            ..
        } = served;
        operator.status(StatusSources {
            roles,
            readiness,
            registry,
            history,
            loaded: &configuration.get(),
        })
    });
    call.answer(answer).await
}

/// The records of the audit trail, newest first.
#[derive(Serialize)]
struct TrailReport {
    records: Vec<TrailRecord>,
}

pub(super) async fn trail(State(api): State<AdminApi>, request: Request) -> Response {
    let call = begin!(api, Trail, request);
    let answer = async {
        let records = api.served()?.trail.newest(MOST_RECORDS).await;
        let records = records.map_err(|_| {
            let detail = "the audit trail cannot be read";
            Problem::new(ProblemCode::StoreUnavailable, detail).retry_after(1)
        })?;
        Ok(TrailReport { records })
    };
    let answer: Result<TrailReport, Problem> = answer.await;
    call.answer(answer).await
}

fn operator(api: &AdminApi) -> Result<&Operator, Problem> {
    api.served().map(|served| served.operator.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_long_reload_is_not_said_to_wait_for_another() {
        let (reload, mut asked) = mpsc::channel(1);
        let problem = reloaded(&reload).await.err().unwrap();
        assert_eq!(problem.code, ProblemCode::Overloaded);
        assert!(
            problem.detail.starts_with("the reload continues"),
            "{problem:?}"
        );
        let problem = reloaded(&reload).await.err().unwrap();
        assert!(problem.detail.contains("another reload"), "{problem:?}");
        // The process stops: the request is dropped.
        drop(asked.recv().await);
        let dropped = async { drop(asked.recv().await) };
        let (problem, ()) = tokio::join!(reloaded(&reload), dropped);
        assert!(problem.err().unwrap().detail.contains("stops"));
    }
}
