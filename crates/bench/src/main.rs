//! `watchword-bench`: what Watchword costs beside the leanest pipeline of the same crates, measured
//! in turns on one machine with private peers. Figures of different runs are not to be compared:
//! ratios within a round are.

#![expect(clippy::print_stdout, reason = "it prints tables")]

mod cost;
mod figures;
mod lean;
mod load;
mod mail;
mod provider;
mod system;
mod wire;

use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use figures::Figures;
use load::Sample;
use mail::Relay;
use provider::Provider;
use system::{Kind, Peers, System};

/// Users of a closed loop: the number that gives the lean pipeline the most.
const USERS: usize = 128;
/// A login page's everyday.
const EVERYDAY: f64 = 300.0;
/// How long the slow provider takes, how many users ask for codes at it, and how many messages a
/// worker has on the way at once unless it is told otherwise.
const SLOW: Duration = Duration::from_millis(100);
const SLOW_USERS: usize = 512;
const ON_THE_WAY: f64 = 256.0;
/// Verifications that are opened to weigh one.
const WEIGHED: usize = 12_800;

/// Figures under the names that others read, and where they are from.
const NAMED: [(&str, &str); 6] = [
    ("handover_p50_ms_300", "one_process.handover_p50_ms_300"),
    ("handover_p99_ms_300", "one_process.handover_p99_ms_300"),
    ("embedded_per_s", "embedded.per_s"),
    ("idle_mb", "four_processes.idle_mb"),
    ("full_load_mb", "four_processes.full_load_mb"),
    ("redis_bytes_per_verification", "one_process.store_bytes"),
];

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Two minutes instead of fifteen.
    #[arg(long)]
    quick: bool,
    /// Writes the figures as one object.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Rounds instead of the usual number.
    #[arg(long)]
    rounds: Option<u32>,
    /// Measures these alone: `lean`, `one_process`, `four_processes`, `embedded`, `email`,
    /// `slow`.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

#[derive(Subcommand)]
enum Command {
    /// The lean pipeline, as the measured process.
    #[command(hide = true)]
    Lean(lean::Arguments),
}

/// How long and how often.
#[derive(Clone, Copy)]
struct Plan {
    rounds: u32,
    closed: Duration,
    open: Duration,
    /// Mails of ours, and of the generator beside them.
    mails: u32,
    /// Shares of the highest rate at which latency is taken.
    shares: &'static [f64],
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    // One thread, as the lean pipeline is at its best.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match arguments.command {
        Some(Command::Lean(lean)) => runtime.block_on(lean::run(lean)),
        None => {
            build()?;
            runtime.block_on(measure(&arguments))
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

async fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let mut plan = if arguments.quick {
        Plan {
            rounds: 3,
            closed: Duration::from_secs(4),
            open: Duration::from_secs(3),
            mails: 20_000,
            shares: &[],
        }
    } else {
        Plan {
            rounds: 5,
            closed: Duration::from_secs(10),
            open: Duration::from_secs(6),
            mails: 100_000,
            shares: &[0.25, 0.5, 0.75],
        }
    };
    plan.rounds = arguments.rounds.unwrap_or(plan.rounds);
    let peers = Peers::start().await;
    let provider = Provider::start(Duration::ZERO).await?;
    let relay = Relay::start().await?;
    let wanted =
        |name: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == name);
    let mut figures = Figures::default();
    for round in 0..plan.rounds {
        let mut kinds = Kind::ALL.to_vec();
        if round % 2 == 1 {
            kinds.reverse();
        }
        kinds.retain(|kind| wanted(kind.name()));
        for kind in kinds {
            one(kind, plan, &peers, &provider, &mut figures).await?;
        }
        if wanted("email") {
            relay.compare(plan.mails, &mut figures).await?;
        }
        if wanted("slow") {
            slow(plan, &peers, &mut figures).await?;
        }
        figures.add_ratio("ratio_one_process", "one_process.per_s", "lean.per_s");
        figures.add_ratio("ratio_four_processes", "four_processes.per_s", "lean.per_s");
        figures.add_ratio("cpu_ratio", "one_process.own_us", "lean.own_us");
        for (name, of) in NAMED {
            if let Some(value) = figures.last(of) {
                figures.add(name, value);
            }
        }
    }
    println!("{}", figures.table());
    if let Some(path) = &arguments.json {
        std::fs::write(path, format!("{:#}\n", figures.json()))?;
    }
    Ok(())
}

/// Ours as one process, with a provider that takes its time: what share of the rate it reaches that
/// the messages on the way allow.
async fn slow(plan: Plan, peers: &Peers, figures: &mut Figures) -> anyhow::Result<()> {
    let provider = Provider::start(SLOW).await?;
    let system = System::start(Kind::One, peers, &provider).await?;
    let warm = Duration::from_secs(1);
    let load = load::closed(
        &system.target,
        &provider,
        SLOW_USERS,
        (warm, plan.closed),
        || {},
    );
    let (samples, took) = load.await?;
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    let rate = samples.len() as f64 / took.as_secs_f64();
    figures.add("slow.per_s", rate);
    figures.add("slow.full_load_mb", cost::memory_mb(&system.processes));
    let most = ON_THE_WAY / SLOW.as_secs_f64();
    figures.add("slow_provider_share", rate / most);
    Ok(())
}

/// One system in one round.
async fn one(
    kind: Kind,
    plan: Plan,
    peers: &Peers,
    provider: &Arc<Provider>,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let system = System::start(kind, peers, provider).await?;
    let mut add = |what: &str, value: f64| figures.add(format!("{}.{what}", kind.name()), value);
    add("idle_mb", cost::memory_mb(&system.processes));
    let us = [std::process::id()];
    let groups = [
        ("own_us", &system.processes[..]),
        ("broker_us", &peers.broker_processes),
        ("store_us", &peers.store_processes),
        ("driver_us", &us),
    ];
    let mut spent = groups.map(|_| 0.0);
    let warm = Duration::from_secs(1);
    let (samples, took) =
        load::closed(&system.target, provider, USERS, (warm, plan.closed), || {
            spent = groups.map(|(_, processes)| cost::processor_us(processes));
        })
        .await?;
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    let count = samples.len() as f64;
    for ((name, processes), spent) in groups.iter().zip(spent) {
        add(name, (cost::processor_us(processes) - spent) / count);
    }
    let rate = count / took.as_secs_f64();
    add("per_s", rate);
    add("full_load_mb", cost::memory_mb(&system.processes));
    let mut at = |name: &str, samples: &load::Samples| {
        for (quantile, share) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
            let handover = samples.quantile(share, |sample: &Sample| sample.handover);
            add(&format!("handover_{quantile}_ms_{name}"), handover);
            let check = samples.quantile(share, |sample: &Sample| sample.check);
            add(&format!("check_{quantile}_ms_{name}"), check);
        }
    };
    let everyday = load::open(&system.target, provider, EVERYDAY, plan.open).await?;
    at("300", &everyday);
    for share in plan.shares {
        let samples = load::open(&system.target, provider, rate * share, plan.open).await?;
        at(&format!("{:.0}pc", share * 100.0), &samples);
    }
    if kind == Kind::One {
        let before = peers.store_bytes().await?;
        load::fill(&system.target, provider, WEIGHED).await?;
        #[expect(clippy::cast_precision_loss, reason = "a count")]
        let each = (peers.store_bytes().await? - before) / WEIGHED as f64;
        add("store_bytes", each);
    }
    for line in system.complaints().iter().take(3) {
        println!("{}: {line}", kind.name());
    }
    Ok(())
}
