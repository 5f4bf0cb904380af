//! Cases in which one parameter grows while the load stays the same.

use std::time::{Duration, Instant};

use super::{Arguments, Rows};
use crate::cost;
use crate::load::{self, Sample};
use crate::peers::Peers;
use crate::provider::Provider;
use crate::rounds::{ON_THE_WAY, SLOW_USERS, USERS, WARM};
use crate::setup::Setup;
use crate::system::{Kind, System};

/// Shares of the highest rate that are offered.
const OFFERED: [f64; 7] = [0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9];
/// Live verifications at the first measurement of memory.
const FIRST_WEIGHED: u64 = 10_000;
/// Concurrency of a worker in the `workers` case: low, so that the provider is the limit.
const FEW: u16 = 32;
/// Latency of the provider in the `workers` case.
const TAKES: Duration = Duration::from_millis(100);

/// Measures rate and CPU time at several offered rates, then in a closed loop.
pub async fn load(arguments: &Arguments, peers: &Peers, rows: &mut Rows) -> anyhow::Result<()> {
    let provider = Provider::start(Duration::ZERO).await?;
    let system = System::start(Kind::One, peers, &provider).await?;
    let mut meter = system.meter(peers);
    let times = (WARM, arguments.time());
    let load = load::closed(&system.target, &provider, USERS, times, || meter.begin());
    let samples = load.await?;
    let highest = samples.rate();
    let mut full = meter.each(samples.count());
    full.push(("per_s".to_owned(), highest));
    for share in OFFERED {
        let rate = highest * share;
        let schedule = (rate, arguments.time());
        let load = load::open(&system.target, &provider, schedule, || meter.begin());
        let samples = load.await?;
        let mut row = meter.each(samples.count());
        let mut add = |name: &str, value: f64| row.push((name.to_owned(), value));
        add("offered_per_s", rate);
        add("per_s", samples.rate());
        add("failed", samples.failed());
        if let Some(fault) = &samples.fault {
            println!(
                "load at {rate:.0} a second: {} failed: {fault}",
                samples.failed()
            );
        }
        for (name, share) in [("handover_p50_ms", 0.5), ("handover_p99_ms", 0.99)] {
            add(
                name,
                samples.quantile(share, |sample: &Sample| sample.handover),
            );
        }
        rows.add_with("load", [], &row);
    }
    rows.add_with("load", [], &full);
    Ok(())
}

/// Measures the memory that one live verification takes in Redis, with all its keys, and the cost
/// of opening one.
#[expect(clippy::cast_precision_loss, reason = "counts")]
pub async fn recipients(
    arguments: &Arguments,
    peers: &Peers,
    rows: &mut Rows,
) -> anyhow::Result<()> {
    let provider = Provider::start(Duration::ZERO).await?;
    // The longest possible lifetime, so that the first verifications are still live at the end.
    let setup = Setup {
        lifetime_seconds: 600,
        ..Setup::default()
    };
    let system = System::ours(&setup, peers, &provider).await;
    let empty = peers.store_bytes().await?;
    let mut meter = system.meter(peers);
    let (mut live, first) = (0, Instant::now());
    while live < arguments.recipients {
        let next = (live * 10).clamp(FIRST_WEIGHED, arguments.recipients);
        let (begun, more) = (Instant::now(), next - live);
        meter.begin();
        load::fill(&system.target, &provider, more.try_into()?).await?;
        let spent = meter.each(more as f64);
        let bytes = peers.store_bytes().await? - empty;
        live = next;
        let took = begun.elapsed().as_secs_f64();
        let row = [
            ("live", live as f64),
            ("redis_bytes_each", bytes / live as f64),
            ("keys_each", peers.keys().await? / live as f64),
            ("opened_per_s", more as f64 / took),
            ("oldest_s", first.elapsed().as_secs_f64()),
            ("own_mb", cost::memory_mb(&system.processes)),
        ];
        rows.add_with("recipients", row, &spent);
    }
    Ok(())
}

/// Measures 1, 10 and 100 providers with one route each. Every message matches the last route.
pub async fn providers(
    arguments: &Arguments,
    peers: &Peers,
    rows: &mut Rows,
) -> anyhow::Result<()> {
    let provider = Provider::start(Duration::ZERO).await?;
    for providers in [1, 10, 100] {
        let setup = Setup {
            providers,
            ..Setup::default()
        };
        let system = System::ours(&setup, peers, &provider).await;
        let idle = cost::memory_mb(&system.processes);
        let mut meter = system.meter(peers);
        let times = (WARM, arguments.time());
        let load = load::closed(&system.target, &provider, USERS, times, || meter.begin());
        let samples = load.await?;
        let row = [
            ("providers", f64::from(providers)),
            ("per_s", samples.rate()),
            ("idle_mb", idle),
            ("full_load_mb", cost::memory_mb(&system.processes)),
        ];
        let spent = meter.each(samples.count());
        rows.add_with("providers", row, &spent);
    }
    Ok(())
}

/// Measures providers with a latency of 100 ms and 1 s, against the rate that the concurrency
/// allows.
pub async fn slow(arguments: &Arguments, peers: &Peers, rows: &mut Rows) -> anyhow::Result<()> {
    for delay in [Duration::from_millis(100), Duration::from_secs(1)] {
        let provider = Provider::start(delay).await?;
        let system = System::start(Kind::One, peers, &provider).await?;
        let times = (WARM + delay * 2, arguments.time());
        let load = load::closed(&system.target, &provider, SLOW_USERS, times, || {});
        let samples = load.await?;
        let (rate, most) = (samples.rate(), ON_THE_WAY / delay.as_secs_f64());
        let row = [
            ("delay_ms", delay.as_secs_f64() * 1_000.0),
            ("on_the_way", ON_THE_WAY),
            ("per_s", rate),
            ("most_per_s", most),
            ("share", rate / most),
            ("full_load_mb", cost::memory_mb(&system.processes)),
        ];
        rows.add("slow", row);
    }
    Ok(())
}

/// Measures 1, 2, 4 and 8 SMS worker processes with low concurrency.
pub async fn workers(arguments: &Arguments, peers: &Peers, rows: &mut Rows) -> anyhow::Result<()> {
    let provider = Provider::start(TAKES).await?;
    for workers in [1_u16, 2, 4, 8] {
        let setup = Setup {
            roles: &["issuer", "verifier"],
            concurrency: FEW,
            ..Setup::default()
        };
        let mut system = System::ours(&setup, peers, &provider).await;
        let names = (1..=workers).map(|number| format!("worker-{number}"));
        let names: Vec<String> = names.collect();
        let ids: Vec<u32> = names
            .iter()
            .map(|name| system.launch(name, "sms-worker"))
            .collect();
        for name in &names {
            system.ready(name).await;
        }
        let on_the_way = workers * FEW;
        let users = usize::from(on_the_way) * 2;
        let mut meter = system.meter(peers);
        let times = (WARM, arguments.time());
        let load = load::closed(&system.target, &provider, users, times, || meter.begin());
        let samples = load.await?;
        let (rate, most) = (samples.rate(), f64::from(on_the_way) / TAKES.as_secs_f64());
        let row = [
            ("workers", f64::from(workers)),
            ("on_the_way", f64::from(on_the_way)),
            ("per_s", rate),
            ("most_per_s", most),
            ("share", rate / most),
            ("worker_mb", cost::memory_mb(&ids)),
        ];
        let spent = meter.each(samples.count());
        rows.add_with("workers", row, &spent);
    }
    Ok(())
}
