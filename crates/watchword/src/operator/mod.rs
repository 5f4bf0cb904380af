//! The commands of an operator. They call the admin API of a running process, or work on the store
//! directly if none listens. Both ways return the same report, which this module prints.

/// Prints a line of requested data, even with `--quiet`.
macro_rules! println {
    () => { $crate::output::data("\n") };
    ($($argument:tt)*) => { $crate::output::data(&format!("{}\n", format_args!($($argument)*))) };
}

mod arguments;
mod print;
mod session;

use std::path::Path;

use anyhow::ensure;
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};
use watchword_admin::operate::{
    AuditReport, ChangeReport, CircuitReport, DeadLetterDetails, DeadLettersReport, FindReport,
    ProvidersReport, StatusReport, UnlockReport, VerificationReport,
};
use watchword_admin::trail::MOST_RECORDS;

use crate::cli::{
    AdminArguments, ByIdArguments, DeadLetterArguments, DeadLetterChange, DeadLettersCommand,
    FindArguments, ProvidersArguments, ProvidersCommand, UnlockArguments,
};
use crate::failure::Failure;
use crate::needs::Needs;
use crate::output::{self, counted};
use print::{TrailReport, print};
use session::{Note, Session};

/// The most dead letters of a queue that an audit on the store reads, which is the queue's limit.
const MOST_DEAD_LETTERS: usize = 100_000;

/// Prints the report, as JSON if `as_json`.
fn show<T: Serialize>(report: &T, as_json: bool, print: impl Fn(&T)) -> anyhow::Result<()> {
    if as_json {
        return output::json(report);
    }
    print(report);
    Ok(())
}

/// Parses a request as the admin API does.
fn read<T: serde::de::DeserializeOwned>(body: &Value) -> Result<T, watchword_chassis::Problem> {
    serde_json::from_value(body.clone()).map_err(|_| {
        let code = watchword_chassis::ProblemCode::InvalidRequest;
        watchword_chassis::Problem::new(code, "the arguments cannot be read")
    })
}

/// Runs `watchword status`: prints the status of a process, and returns an error if it is not
/// ready.
pub async fn status(path: &Path, arguments: &AdminArguments) -> anyhow::Result<()> {
    let session = Session::open(path, Needs::STORE, arguments).await?;
    let report: StatusReport = session.ask_process((Method::GET, "/status"), None).await?;
    show(&report, arguments.json, print::status)?;
    let down = report.dependencies.iter().filter(|(_, up)| !**up);
    let down: Vec<_> = down.map(|(name, _)| name.as_str()).collect();
    ensure!(
        report.ready,
        "the process is not ready: {} is down",
        down.join(", ")
    );
    Ok(())
}

/// Returns the warnings of the running process, or `None` if `WATCHWORD_ADMIN_KEY` is not set or
/// the admin API does not answer.
pub async fn running_warnings(path: &Path) -> Option<Vec<String>> {
    std::env::var_os("WATCHWORD_ADMIN_KEY")?;
    let arguments = AdminArguments {
        admin_url: None,
        key_file: None,
        json: false,
    };
    let session = Session::open(path, Needs::STORE, &arguments).await.ok()?;
    let status = session.ask_process((Method::GET, "/status"), None).await;
    let report: StatusReport = status.ok()?;
    Some(report.warnings)
}

/// Runs `watchword find`.
pub async fn find(path: &Path, arguments: FindArguments) -> anyhow::Result<()> {
    arguments::check_find(path, &arguments)?;
    let FindArguments {
        admin,
        id,
        service,
        subject,
        recipient,
    } = arguments;
    let session = Session::open(path, Needs::UNLOCK, &admin).await?;
    let body = json!({
        "id": id, "service": service, "subject": subject, "recipient": recipient,
    });
    let note = Note {
        action: "find",
        reason: "not given",
    };
    let to = (Method::POST, "/verifications/find");
    let report: FindReport = session
        .ask(to, Some(body.clone()), Some(note), async |operator| {
            let request = read(&body)?;
            let target = operator.find_target(&request)?;
            Ok((operator.find(&request).await?, target))
        })
        .await
        .map_err(|error| arguments::name_services(path, &admin, error))?;
    show(&report, admin.json, print::found)
}

/// Runs `watchword resend`, which needs a running issuer.
pub async fn resend(path: &Path, arguments: ByIdArguments) -> anyhow::Result<()> {
    let ByIdArguments { change, id } = arguments;
    let session = Session::open(path, Needs::STORE, &change.admin).await?;
    let id = checked_id(&id)?;
    let to = format!("/verifications/{id}/resend");
    let body = json!({ "reason": change.why });
    let report: VerificationReport = session.ask_process((Method::POST, &to), Some(body)).await?;
    show(&report, change.admin.json, print::verification)
}

/// Runs `watchword cancel`.
pub async fn cancel(path: &Path, arguments: ByIdArguments) -> anyhow::Result<()> {
    let ByIdArguments { change, id } = arguments;
    let session = Session::open(path, Needs::UNLOCK, &change.admin).await?;
    let id = checked_id(&id)?;
    let to = format!("/verifications/{id}/cancel");
    let note = Note {
        action: "cancel",
        reason: &change.why,
    };
    let body = json!({ "reason": change.why });
    let report: VerificationReport = session
        .ask(
            (Method::POST, &to),
            Some(body),
            Some(note),
            async |operator| Ok((operator.cancel(&id).await?, format!("verification {id}"))),
        )
        .await?;
    show(&report, change.admin.json, print::verification)
}

/// Parses a verification id. Anything else may be a recipient and must not become part of a URL.
fn checked_id(text: &str) -> anyhow::Result<watchword_core::VerificationId> {
    text.parse().map_err(|_| {
        Failure::usage("An id is 32 characters of a-z and 2-7; 'watchword find' shows it.").into()
    })
}

/// Runs `watchword unlock`.
pub async fn unlock(path: &Path, arguments: UnlockArguments) -> anyhow::Result<()> {
    arguments::check_unlock(path, &arguments)?;
    let UnlockArguments {
        change,
        service,
        subject,
        recipient,
    } = arguments;
    let session = Session::open(path, Needs::UNLOCK, &change.admin).await?;
    let body = json!({
        "service": service, "subject": subject, "recipient": recipient, "reason": change.why,
    });
    let note = Note {
        action: "unlock",
        reason: &change.why,
    };
    let to = (Method::POST, "/unlock");
    let report: UnlockReport = session
        .ask(to, Some(body.clone()), Some(note), async |operator| {
            let request = read(&body)?;
            let target = operator.unlock_target(&request)?;
            Ok((operator.unlock(&request).await?, target))
        })
        .await
        .map_err(|error| arguments::name_services(path, &change.admin, error))?;
    show(&report, change.admin.json, |report| {
        println!("{}", report.summary);
    })
}

/// Runs `watchword dead-letters`.
pub async fn dead_letters(path: &Path, command: DeadLettersCommand) -> anyhow::Result<()> {
    match command {
        DeadLettersCommand::List { admin, filter } => {
            let session = Session::open(path, Needs::QUEUES, &admin).await?;
            let body = filter_of(&filter);
            let to = (Method::POST, "/dead-letters/list");
            let report: DeadLettersReport = session
                .ask(to, Some(body.clone()), None, async |operator| {
                    let filter = read(&body)?;
                    Ok((operator.dead_letters(&filter).await?, String::new()))
                })
                .await?;
            show(&report, admin.json, print::dead_letters)
        }
        DeadLettersCommand::Show { admin, id } => {
            let session = Session::open(path, Needs::QUEUES, &admin).await?;
            let to = (Method::POST, "/dead-letters/show");
            let body = json!({ "id": id });
            let report: DeadLetterDetails = session
                .ask(to, Some(body), None, async |operator| {
                    Ok((operator.dead_letter(&id).await?, String::new()))
                })
                .await?;
            show(&report, true, |_| ())
        }
        DeadLettersCommand::Replay(change) => change_dead_letters(path, change, true).await,
        DeadLettersCommand::Discard(change) => change_dead_letters(path, change, false).await,
    }
}

fn filter_of(arguments: &DeadLetterArguments) -> Value {
    let DeadLetterArguments {
        queue,
        reason,
        service,
        id,
        older_than_seconds,
        limit,
    } = arguments;
    json!({
        "queue": queue, "reason": reason, "service": service, "id": id,
        "older_than_seconds": older_than_seconds, "limit": limit,
    })
}

async fn change_dead_letters(
    path: &Path,
    arguments: DeadLetterChange,
    replays: bool,
) -> anyhow::Result<()> {
    let DeadLetterChange {
        change,
        filter,
        all,
    } = arguments;
    let is_open = filter.id.is_none() && filter.reason.is_none() && filter.service.is_none();
    if !all && is_open && filter.older_than_seconds.is_none() {
        let text = "Name the dead letters with --id, --reason, --service or --older-than-seconds, or pass --all.";
        return Err(Failure::usage(text).into());
    }
    let session = Session::open(path, Needs::QUEUES, &change.admin).await?;
    let body = json!({ "filter": filter_of(&filter), "all": all, "reason": change.why });
    let (to, action) = if replays {
        ("/dead-letters/replay", "dead_letters_replay")
    } else {
        ("/dead-letters/discard", "dead_letters_discard")
    };
    let note = Note {
        action,
        reason: &change.why,
    };
    let report: ChangeReport = session
        .ask(
            (Method::POST, to),
            Some(body.clone()),
            Some(note),
            async |operator| {
                let request: watchword_admin::operate::ChangeRequest = read(&body)?;
                let changed = if replays {
                    operator.replay(&request).await?
                } else {
                    operator.discard(&request).await?
                };
                Ok((changed, request.target()))
            },
        )
        .await?;
    show(&report, change.admin.json, |report| {
        print::changed(report, replays);
    })
}

/// Runs `watchword audit`. Returns an error if a message is lost or dead letters could not be read.
pub async fn audit(path: &Path, arguments: &AdminArguments) -> anyhow::Result<()> {
    let session = Session::open(path, Needs::QUEUES, arguments).await?;
    let note = Note {
        action: "audit",
        reason: "not given",
    };
    let report: AuditReport = session
        .ask(
            (Method::POST, "/audit"),
            None,
            Some(note),
            async |operator| Ok((operator.audit(MOST_DEAD_LETTERS).await?, String::new())),
        )
        .await?;
    show(&report, arguments.json, print::audit)?;
    let lost = counted(report.lost, "accepted message");
    let have = if report.lost == 1 { "has" } else { "have" };
    ensure!(
        report.dead_letters_read,
        "the audit is incomplete: not all dead letters could be read, and {lost} without an outcome in \
         the ledger may be among them. Run the audit again when the broker is back, or discard dead \
         letters that are past their deadline"
    );
    ensure!(report.lost == 0, "{lost} {have} no outcome in the ledger");
    Ok(())
}

/// Runs `watchword providers`, with or without the subcommand `circuit`.
pub async fn providers(path: &Path, arguments: ProvidersArguments) -> anyhow::Result<()> {
    let ProvidersArguments { admin, command } = arguments;
    let session = Session::open(path, Needs::STORE, &admin).await?;
    let Some(ProvidersCommand::Circuit {
        name,
        state,
        channel,
        for_seconds,
        why,
    }) = command
    else {
        let to = (Method::GET, "/providers");
        let report: ProvidersReport = session.ask_process(to, None).await?;
        return show(&report, admin.json, |report| {
            print::providers(&report.providers);
        });
    };
    let name: watchword_core::ProviderName = name.parse()?;
    let to = format!("/providers/{name}/circuit");
    let state = format!("{state:?}").to_lowercase();
    let body = json!({
        "channel": channel, "state": state, "for_seconds": for_seconds, "reason": why,
    });
    let report: CircuitReport = session.ask_process((Method::POST, &to), Some(body)).await?;
    show(&report, admin.json, |report| {
        print::providers(std::slice::from_ref(&report.provider));
        println!("{}", report.note);
    })
}

/// Runs `watchword audit-trail`.
pub async fn trail(path: &Path, arguments: &AdminArguments) -> anyhow::Result<()> {
    let session = Session::open(path, Needs::STORE, arguments).await?;
    let report: TrailReport = session
        .read("/audit-trail", async |shared| {
            let records = shared.engine.trail.newest(MOST_RECORDS).await?;
            Ok(TrailReport { records })
        })
        .await?;
    show(&report, arguments.json, print)
}
