//! Backlog: orders are published while no worker runs, then a worker starts. Measures whether
//! publishing slows down as the queue grows, its memory, the time to the first hand-over, the drain
//! rate, and whether the worker's memory stays constant.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{Arguments, Rows};
use crate::cost;
use crate::load;
use crate::peers::Peers;
use crate::provider::Provider;
use crate::rounds::USERS;
use crate::setup::Setup;
use crate::system::System;

/// Number of parts in which the backlog is published.
const PARTS: u64 = 10;
/// Interval between samples of the drain.
const LOOK: Duration = Duration::from_millis(500);
/// Time without progress after which the drain counts as finished.
const QUIET: Duration = Duration::from_secs(15);
/// Maximum duration of a drain.
const DRAIN: Duration = Duration::from_secs(600);

/// Metric with the worker's ended deliveries.
const ENDED: &str = "watchword_deliveries_ended_total";

/// Runs the case.
#[expect(clippy::cast_precision_loss, reason = "counts")]
pub async fn measure(arguments: &Arguments, peers: &Peers, rows: &mut Rows) -> anyhow::Result<()> {
    let provider = Provider::start(Duration::ZERO).await?;
    // The longest possible lifetime, so that few codes expire before the worker reaches them.
    let setup = Setup {
        roles: &["issuer"],
        lifetime_seconds: 600,
        ..Setup::default()
    };
    let mut system = System::ours(&setup, peers, &provider).await;
    let issuer = system.processes.clone();
    let broker_empty = cost::memory_mb(&peers.broker_processes);
    let mut published = 0;
    for _ in 0..PARTS {
        let begun = Instant::now();
        let part = load::flood(&system.target, arguments.events / PARTS, USERS).await?;
        published += part;
        let row = [
            ("published", published as f64),
            ("per_s", part as f64 / begun.elapsed().as_secs_f64()),
            ("broker_mb", cost::memory_mb(&peers.broker_processes)),
            ("issuer_mb", cost::memory_mb(&issuer)),
        ];
        rows.add("backlog_publish", row);
    }
    provider.forget();
    let (launched, worker) = (Instant::now(), [system.launch("worker", "sms-worker")]);
    system.ready("worker").await;
    let (mut before, mut expired) = ((launched, 0), 0);
    let mut quiet = Instant::now();
    while launched.elapsed() < DRAIN && quiet.elapsed() < QUIET {
        sleep(LOOK).await;
        let ended = system.metric(ENDED, &["outcome=\"expired\""]).await;
        let (now, taken) = (Instant::now(), provider.taken());
        if taken.count > before.1 || ended > expired {
            quiet = now;
            let per_s = (taken.count - before.1) as f64 / (now - before.0).as_secs_f64();
            let row = [
                ("after_s", (now - launched).as_secs_f64()),
                ("handed_over", taken.count as f64),
                ("expired", ended as f64),
                ("per_s", per_s),
                ("worker_mb", cost::memory_mb(&worker)),
                ("broker_mb", cost::memory_mb(&peers.broker_processes)),
            ];
            rows.add("backlog_drain", row);
        }
        (before, expired) = ((now, taken.count), ended);
        if taken.count + expired >= published {
            break;
        }
    }
    let taken = provider.taken();
    let span = taken.first.zip(taken.last);
    let drain_s = span.map_or(f64::NAN, |(first, last)| (last - first).as_secs_f64());
    let first_s = taken
        .first
        .map_or(f64::NAN, |first| (first - launched).as_secs_f64());
    let row = [
        ("asked", arguments.events as f64),
        ("published", published as f64),
        ("handed_over", taken.count as f64),
        ("expired", expired as f64),
        ("first_s", first_s),
        ("drain_per_s", taken.count as f64 / drain_s),
        ("broker_empty_mb", broker_empty),
    ];
    rows.add("backlog", row);
    Ok(())
}
