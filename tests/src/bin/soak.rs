//! `tests/soak`: random faults, several at once. The same seed gives the same faults.

use std::process::ExitCode;

use clap::Parser;
use watchword_tests::fault::{print, soak};
use watchword_tests::process::told_to_stop;

/// Random faults, several at once.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Which faults; by the clock if none is given.
    #[arg(long)]
    seed: Option<u64>,
    /// Verifications a second.
    #[arg(long, default_value_t = 50)]
    load: u32,
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
