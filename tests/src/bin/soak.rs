//! `tests/soak`: injects random faults, two at a time. The same seed gives the same schedule.

use std::process::ExitCode;

use clap::Parser;
use watchword_tests::fault::{print, soak};
use watchword_tests::process::told_to_stop;

/// Injects random faults, two at a time.
#[derive(Debug, Parser)]
struct Arguments {
    /// Duration of the soak.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Seed of the schedule [default: taken from the clock].
    #[arg(long)]
    seed: Option<u64>,
    /// Verifications per second.
    #[arg(long, default_value_t = 50)]
    load: u32,
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
    let seed = arguments.seed.unwrap_or_else(watchword_tests::load::now_ms);
    println!("seed {seed}");
    let report = soak(arguments.minutes, seed, arguments.load).await;
    println!("{}", print(std::slice::from_ref(&report)));
    if report.wrong.is_empty() {
        println!("it balances");
        return ExitCode::SUCCESS;
    }
    println!("DOES NOT HOLD: {}", report.wrong.join("; "));
    ExitCode::FAILURE
}
