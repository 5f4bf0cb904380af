//! `watchword-bench`: what Watchword costs beside the leanest pipeline of the same crates, measured
//! in turns on one machine with private peers. Figures of different runs are not to be compared:
//! ratios within a round are.

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
    /// Two minutes instead of twenty.
    #[arg(long)]
    quick: bool,
    /// Writes the figures as one object.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Draws the figures into this folder.
    #[arg(long)]
    plots: Option<PathBuf>,
    /// Rounds instead of the usual number.
    #[arg(long)]
    rounds: Option<u32>,
    /// Measures these alone: `lean`, `lean_calls`, `one_process`, `four_processes`, `embedded`, `email_way`,
    /// `email`, `slow`. Without it all, and with `--quick` all but `lean_calls`, `email_way` and `slow`.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Fails if the median of `ratio_one_process` is below.
    #[arg(long)]
    least: Option<f64>,
}

#[derive(Subcommand)]
enum Command {
    /// How cost moves with load, recipients, providers, a backlog, a slow provider and workers.
    Growth(growth::Arguments),
    /// Draws plots and writes tables from figures that were measured before.
    Draw(draw::Arguments),
    /// The lean pipeline, as the measured process.
    #[command(hide = true)]
    Lean(lean::Arguments),
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    // One thread, as the lean pipeline is at its best.
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

/// Builds what is measured, if this was started by cargo, which builds this alone.
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
