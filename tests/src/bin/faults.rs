//! `tests/faults`: runs the rows of the fault table under load and prints a report of each. Exits
//! with status 1 if a row does not hold.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use clap::Parser;
use watchword_tests::fault::{Kind, NOT_SHOWN, Pace, Report, Row, Stand, print, rows, run};
use watchword_tests::process::told_to_stop;

/// Runs the fault table.
#[derive(Debug, Parser)]
struct Arguments {
    /// Short faults and a small load; the table takes about ten minutes.
    #[arg(long)]
    quick: bool,
    /// Run only the rows whose name contains TEXT.
    #[arg(long)]
    only: Option<String>,
    /// Verifications per second [default: 50, or 20 with --quick].
    #[arg(long)]
    load: Option<u32>,
    /// Number of installations that run rows side by side.
    #[arg(long, default_value_t = 4)]
    stands: usize,
    /// Write the rows to this file as JSON, one object per row.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // On SIGINT or SIGTERM, dropping the work stops every process it has started.
    tokio::select! {
        code = work_through(arguments) => code,
        () = told_to_stop() => ExitCode::FAILURE,
    }
}

async fn work_through(arguments: Arguments) -> ExitCode {
    let pace = if arguments.quick {
        Pace::Quick
    } else {
        Pace::Full
    };
    let load = arguments
        .load
        .unwrap_or(if arguments.quick { 20 } else { 50 });
    let mut rows = rows(pace);
    if let Some(only) = &arguments.only {
        rows.retain(|row| row.name.contains(only.as_str()));
    }
    let names: Vec<_> = rows.iter().map(|row| row.name.clone()).collect();
    let queue = Arc::new(Mutex::new(VecDeque::from(rows)));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..arguments.stands.max(1) {
        tasks.spawn(work(queue.clone(), load));
    }
    let mut reports = Vec::new();
    while let Some(done) = tasks.join_next().await {
        reports.extend(done.expect("a stand that does not panic"));
    }
    reports.sort_by_key(|report: &Report| names.iter().position(|name| *name == report.row));
    println!("\n{}", print(&reports));
    println!("Not shown here:");
    for missing in NOT_SHOWN {
        println!("- {missing}");
    }
    if let Some(path) = arguments.json {
        let text = serde_json::to_string_pretty(&reports).expect("reports");
        std::fs::write(path, text).expect("a file that can be written");
    }
    let failed: Vec<_> = reports
        .iter()
        .filter(|report| !report.wrong.is_empty())
        .collect();
    for report in &failed {
        println!(
            "\nDOES NOT HOLD: {}: {}",
            report.row,
            report.wrong.join("; ")
        );
    }
    let (passed, failed) = (reports.len() - failed.len(), failed.len());
    println!("\nfaults: {passed} passed, {failed} failed");
    if failed == 0 && passed == names.len() && passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs rows from the queue until it is empty. Prefers rows of the installation that is running,
/// because starting another one takes seconds.
async fn work(queue: Arc<Mutex<VecDeque<Row>>>, load: u32) -> Vec<Report> {
    let mut reports = Vec::new();
    let mut stand: Option<Stand> = None;
    while let Some(row) = next(&queue, stand.as_ref().map(|stand| stand.kind)) {
        if stand.as_ref().is_none_or(|stand| stand.kind != row.kind) || is_used_up(&row) {
            drop(stand.take());
            stand = Some(Stand::start(row.kind).await);
        }
        let Some(current) = stand.as_mut() else {
            continue;
        };
        let report = run(current, &row, load).await;
        let word = if report.wrong.is_empty() {
            "holds"
        } else {
            "DOES NOT HOLD"
        };
        println!("{word}: {} {}", report.row, report.wrong.join("; "));
        if !report.wrong.is_empty() || is_used_up(&row) {
            // Leftovers of a failed row must not affect the next one.
            stand = None;
        }
        reports.push(report);
    }
    reports
}

fn is_used_up(row: &Row) -> bool {
    matches!(row.kind, Kind::Sentinel | Kind::SmallDisk)
}

fn next(queue: &Mutex<VecDeque<Row>>, kind: Option<Kind>) -> Option<Row> {
    let mut queue = queue.lock().expect("the queue");
    let same = queue.iter().position(|row| Some(row.kind) == kind);
    same.and_then(|index| queue.remove(index)).or_else(|| {
        // Take the last row, so that the installations running side by side are of different kinds.
        queue.pop_back()
    })
}
