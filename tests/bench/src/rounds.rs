//! Measurement by rounds: each round measures every system in turn.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::json;

use crate::cost;
use crate::figures::{Figures, median};
use crate::load::{self, Sample, Samples};
use crate::mail::Relay;
use crate::noise::{self, Watch};
use crate::peers::Peers;
use crate::provider::Provider;
use crate::setup::Setup;
use crate::system::{Kind, System};
use crate::{Arguments, draw};

/// Users of a closed loop: the number at which the lean pipeline is fastest.
pub const USERS: usize = 128;
/// Arrivals per second of a typical login page.
const EVERYDAY: f64 = 300.0;
/// Warm-up time of a closed loop.
pub const WARM: Duration = Duration::from_secs(1);
/// Latency of the slow provider, number of users at it, and the worker's default concurrency.
const SLOW: Duration = Duration::from_millis(100);
pub const SLOW_USERS: usize = 512;
pub const ON_THE_WAY: f64 = 256.0;
/// Verifications opened to measure the memory of one.
const WEIGHED: usize = 12_800;

/// Figure that `--least` checks.
const RATIO: &str = "ratio_one_process";
/// Aliases of figures that other tools read.
const NAMED: [(&str, &str); 6] = [
    ("handover_p50_ms_300", "one_process.handover_p50_ms_300"),
    ("handover_p99_ms_300", "one_process.handover_p99_ms_300"),
    ("embedded_per_s", "embedded.per_s"),
    ("idle_mb", "four_processes.idle_mb"),
    ("full_load_mb", "four_processes.full_load_mb"),
    ("redis_bytes_per_verification", "one_process.store_bytes"),
];
/// Ratios of figures of the same round.
const RATIOS: [(&str, &str, &str); 7] = [
    ("ratio_lean_calls", "lean_calls.per_s", "lean.per_s"),
    (
        "ratio_one_process_to_lean_calls",
        "one_process.per_s",
        "lean_calls.per_s",
    ),
    (
        "ratio_four_processes_to_lean_calls",
        "four_processes.per_s",
        "lean_calls.per_s",
    ),
    (RATIO, "one_process.per_s", "lean.per_s"),
    ("ratio_four_processes", "four_processes.per_s", "lean.per_s"),
    ("cpu_ratio", "one_process.own_us", "lean.own_us"),
    ("email_ratio", "email_way.per_s", "one_process.per_s"),
];

/// Durations and counts of a run.
#[derive(Clone, Copy)]
struct Plan {
    rounds: u32,
    closed: Duration,
    open: Duration,
    /// Number of mails that Watchword and the mail generator each send.
    mails: u32,
    /// Shares of the highest rate at which latency is measured.
    shares: &'static [f64],
    /// Parts measured by default.
    parts: &'static [&'static str],
}

const QUICK: Plan = Plan {
    rounds: 3,
    closed: Duration::from_secs(3),
    open: Duration::from_secs(2),
    mails: 10_000,
    shares: &[],
    parts: &["lean", "one_process", "four_processes", "embedded", "email"],
};
const RECORDED: Plan = Plan {
    rounds: 5,
    closed: Duration::from_secs(10),
    open: Duration::from_secs(6),
    mails: 100_000,
    shares: &[0.25, 0.5, 0.75],
    parts: &[
        "lean",
        "lean_calls",
        "one_process",
        "four_processes",
        "embedded",
        "email_way",
        "email",
        "slow",
    ],
};

/// Measures, prints the table, and writes the files that `arguments` name.
pub async fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let mut plan = if arguments.quick { QUICK } else { RECORDED };
    plan.rounds = arguments.rounds.unwrap_or(plan.rounds);
    let begun = Instant::now();
    let peers = Peers::start().await;
    let versions = peers.versions().await?;
    let provider = Provider::start(Duration::ZERO).await?;
    let relay = Relay::start().await?;
    let telling = Relay::telling(&provider).await?;
    let wanted = |name: &str| match &arguments.only[..] {
        [] => plan.parts.contains(&name),
        only => only.iter().any(|only| only == name),
    };
    let mut figures = Figures::default();
    let mut noisy = Vec::new();
    for round in 0..plan.rounds {
        let watch = Watch::begin();
        let mut kinds = Kind::ALL.to_vec();
        if round % 2 == 1 {
            kinds.reverse();
        }
        // `email_way` is measured next to the process for SMS.
        kinds.retain(|kind| wanted(kind.name()) || *kind == Kind::One && wanted("email_way"));
        for kind in kinds {
            let done = one(kind, plan, &peers, &provider, &mut figures).await;
            done.context(kind.name())?;
            // Measure directly after the system that it is compared with.
            if kind == Kind::One && wanted("email_way") {
                let done = email_way(plan, &peers, &provider, &telling, &mut figures).await;
                done.context("email_way")?;
            }
        }
        if wanted("email") {
            relay.compare(plan.mails, &mut figures).await?;
        }
        if wanted("slow") {
            let done = slow(plan, &peers, &mut figures).await;
            done.context("slow")?;
        }
        for (name, above, below) in RATIOS {
            figures.add_ratio(name, above, below);
        }
        for (name, of) in NAMED {
            if let Some(value) = figures.last(of) {
                figures.add(name, value);
            }
        }
        figures.add("noise.others_share", watch.others());
        noisy = noise::mark(&mut figures);
        // Write after each round, so that an interrupted run keeps its figures.
        let run = json!({
            "rounds": round + 1, "closed_s": plan.closed.as_secs(), "open_s": plan.open.as_secs(),
            "users": USERS, "took_s": begun.elapsed().as_secs(), "on": versions,
        });
        write(arguments.json.as_deref(), &figures, run)?;
    }
    println!("{}", figures.table());
    for line in noisy {
        println!("{line}");
    }
    if let Some(folder) = &arguments.plots {
        draw::plots(&figures.json(), folder)?;
    }
    arguments
        .least
        .map_or(Ok(()), |least| hold(&figures, least))
}

/// Fails if the median ratio of Watchword in one process to the lean pipeline is below `least`.
fn hold(figures: &Figures, least: f64) -> anyhow::Result<()> {
    let rounds = figures.rounds(RATIO);
    let reached = median(rounds);
    anyhow::ensure!(
        reached >= least,
        "{RATIO} is {reached:.2} ({rounds:.2?}), below {least}"
    );
    println!("{RATIO} is {reached:.2}, at least {least}");
    Ok(())
}

fn write(path: Option<&Path>, figures: &Figures, run: serde_json::Value) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let mut all = figures.json();
    all["run"] = run;
    Ok(std::fs::write(path, format!("{all:#}\n"))?)
}

/// Measures Watchword in one process with a slow provider: the share that it reaches of the rate
/// that its concurrency allows.
async fn slow(plan: Plan, peers: &Peers, figures: &mut Figures) -> anyhow::Result<()> {
    let provider = Provider::start(SLOW).await?;
    let system = System::start(Kind::One, peers, &provider).await?;
    let times = (WARM, plan.closed);
    let load = load::closed(&system.target, &provider, SLOW_USERS, times, || {});
    let samples = load.await?;
    let rate = samples.rate();
    figures.add("slow.per_s", rate);
    figures.add("slow.full_load_mb", cost::memory_mb(&system.processes));
    let most = ON_THE_WAY / SLOW.as_secs_f64();
    figures.add("slow_provider_share", rate / most);
    Ok(())
}

/// Measures Watchword in one process with mails instead of SMS, and Postfix's `smtp-sink` as relay.
async fn email_way(
    plan: Plan,
    peers: &Peers,
    provider: &Arc<Provider>,
    relay: &Relay,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let setup = Setup {
        channel: "email",
        relay: relay.port(),
        ..Setup::default()
    };
    let system = System::ours(&setup, peers, provider).await;
    let mut meter = system.meter(peers);
    let mut sink_us = 0.0;
    let times = (WARM, plan.closed);
    let load = load::closed(&system.target, provider, USERS, times, || {
        meter.begin();
        sink_us = cost::processor_us(&[relay.id()]);
    });
    let samples = load.await?;
    figures.add("email_way.per_s", samples.rate());
    for (name, value) in meter.each(samples.count()) {
        figures.add(format!("email_way.{name}"), value);
    }
    let sink_us = (cost::processor_us(&[relay.id()]) - sink_us) / samples.count();
    figures.add("email_way.relay_us", sink_us);
    for line in system.complaints().iter().take(3) {
        println!("email: {line}");
    }
    Ok(())
}

/// Measures one system in one round.
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
    let mut meter = system.meter(peers);
    let times = (WARM, plan.closed);
    let load = load::closed(&system.target, provider, USERS, times, || meter.begin());
    let samples = load.await?;
    for (name, value) in meter.each(samples.count()) {
        add(&name, value);
    }
    let rate = samples.rate();
    add("per_s", rate);
    add("full_load_mb", cost::memory_mb(&system.processes));
    let mut at = |name: &str, samples: &Samples| {
        for (quantile, share) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
            let handover = samples.quantile(share, |sample: &Sample| sample.handover);
            add(&format!("handover_{quantile}_ms_{name}"), handover);
            let check = samples.quantile(share, |sample: &Sample| sample.check);
            add(&format!("check_{quantile}_ms_{name}"), check);
        }
        add(&format!("failed_{name}"), samples.failed());
        if let Some(fault) = &samples.fault {
            println!(
                "{} at {name}: {} failed: {fault}",
                kind.name(),
                samples.failed()
            );
        }
    };
    let everyday = load::open(&system.target, provider, (EVERYDAY, plan.open), || {}).await?;
    at("300", &everyday);
    for share in plan.shares {
        let schedule = (rate * share, plan.open);
        let samples = load::open(&system.target, provider, schedule, || {}).await?;
        at(&format!("{:.0}pc", share * 100.0), &samples);
    }
    if kind == Kind::One {
        // Start with an empty store: the memory that a growing hash table takes belongs to all
        // keys, not only to the new ones.
        peers.clear().await;
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
