//! `watchword-bench`: compares Watchword with the leanest pipeline that can be built from the same
//! crates. All systems are measured in turns on one machine with private peers. Compare the ratios
//! within a round, not absolute figures of different runs.

#![expect(clippy::print_stdout, reason = "it prints tables")]

mod cost;
mod draw;
mod figures;
mod growth;
mod lean;
mod load;
mod mail;
mod mailbox;
mod noise;
mod pace;
mod peers;
mod provider;
mod rounds;
mod setup;
mod system;
mod wire;

use std::path::PathBuf;
use std::process;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Runs for two minutes instead of twenty.
    #[arg(long)]
    quick: bool,
    /// Writes the figures to this file as a JSON object.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Writes plots of the figures to this folder.
    #[arg(long)]
    plots: Option<PathBuf>,
    /// Number of rounds.
    #[arg(long)]
    rounds: Option<u32>,
    /// Measures only these: `lean`, `lean_calls`, `one_process`, `four_processes`, `embedded`,
    /// `email_way`, `email`, `slow`. Default: all; with `--quick` all but `lean_calls`, `email_way`
    /// and `slow`.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Fails if the median of `ratio_one_process` is below this value.
    #[arg(long)]
    least: Option<f64>,
}

#[derive(Subcommand)]
enum Command {
    /// Measures how cost grows with load, recipients, providers, backlog, slow providers and
    /// workers.
    Growth(growth::Arguments),
    /// Draws plots and writes tables from figures of earlier runs.
    Draw(draw::Arguments),
    /// Runs the lean pipeline as the measured process.
    #[command(hide = true)]
    Lean(lean::Arguments),
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    // The lean pipeline is fastest on a single thread.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match &arguments.command {
        Some(Command::Lean(lean)) => runtime.block_on(lean::run(lean.clone())),
        Some(Command::Draw(drawn)) => draw::run(drawn),
        Some(Command::Growth(growth)) => {
            build()?;
            runtime.block_on(growth::measure(growth))
        }
        None => {
            build()?;
            runtime.block_on(rounds::measure(&arguments))
        }
    }
}

/// Builds the `watchword` binary if this program was started by cargo, which builds only this
/// package.
fn build() -> anyhow::Result<()> {
    let Some(cargo) = std::env::var_os("CARGO") else {
        return Ok(());
    };
    let profile = if cfg!(debug_assertions) {
        "dev"
    } else {
        "release"
    };
    let mut command = process::Command::new(cargo);
    let status = command
        .args(["build", "--package", "watchword", "--profile", profile])
        .status()?;
    anyhow::ensure!(status.success(), "watchword cannot be built");
    Ok(())
}
