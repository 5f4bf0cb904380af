//! `tests/faults`: the fault table. Runs every row with load and prints what came of it; the status
//! is 1 if a row does not hold.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use clap::Parser;
use watchword_tests::fault::{Kind, NOT_SHOWN, Pace, Report, Row, Stand, print, rows, run};
use watchword_tests::process::told_to_stop;

/// Proof by fault.
#[derive(Debug, Parser)]
struct Arguments {
    /// Short faults and a small load: ten minutes at most.
    #[arg(long)]
    quick: bool,
    /// Only rows whose name holds this.
    #[arg(long)]
    only: Option<String>,
    /// Verifications a second; 50, or 20 with --quick.
    #[arg(long)]
    load: Option<u32>,
    /// Installations at once.
    #[arg(long, default_value_t = 4)]
    stands: usize,
    /// Writes the rows as JSON, one object a row.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Told to stop, it stops what it has started.
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

/// Takes rows; those of the installation it has first.
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
            // What a failed row leaves must not spoil the next.
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
        // Another installation: that of the last row, so that stands differ.
        queue.pop_back()
    })
}
