//! Fresh code behind many others, live or expired: the time from the worker's start to its
//! hand-over, and the number of messages before it.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use watchword_tests::pipeline::OTHER_KEY;

use super::{Arguments, Rows};
use crate::load::{self, Target};
use crate::peers::Peers;
use crate::provider::Provider;
use crate::rounds::USERS;
use crate::setup::Setup;
use crate::system::System;

/// Shortest possible code lifetime.
const SHORT_SECONDS: u32 = 30;
/// Lifetime of the fresh code, which another service requests; also the maximum wait for it.
const FRESH: Duration = Duration::from_secs(300);

/// Runs the case with an empty queue, behind live codes, and behind expired codes.
pub async fn measure(arguments: &Arguments, peers: &Peers, rows: &mut Rows) -> anyhow::Result<()> {
    one(0, 600, peers, rows).await?;
    one(arguments.stale, 600, peers, rows).await?;
    one(arguments.stale, SHORT_SECONDS, peers, rows).await
}

#[expect(clippy::cast_precision_loss, reason = "counts")]
async fn one(
    stale: u64,
    lifetime_seconds: u32,
    peers: &Peers,
    rows: &mut Rows,
) -> anyhow::Result<()> {
    let provider = Provider::start(Duration::ZERO).await?;
    let setup = Setup {
        roles: &["issuer"],
        lifetime_seconds,
        ..Setup::default()
    };
    let mut system = System::ours(&setup, peers, &provider).await;
    let before = load::flood(&system.target, stale, USERS).await?;
    let are_past = lifetime_seconds == SHORT_SECONDS;
    if are_past {
        sleep(Duration::from_secs(u64::from(SHORT_SECONDS) + 1)).await;
    }
    let target = Target {
        key: OTHER_KEY,
        ..system.target.clone()
    };
    let arrival = load::single(&target, &provider).await?;
    let launched = Instant::now();
    system.launch("worker", "sms-worker");
    let arrived = timeout(FRESH, arrival).await;
    let after_s = match arrived {
        Ok(Ok((_, at))) => (at - launched).as_secs_f64(),
        _ => f64::NAN,
    };
    let handed = provider.taken().count as f64;
    system.ready("worker").await;
    let expired = system
        .metric("watchword_deliveries_ended_total", &["outcome=\"expired\""])
        .await;
    let row = [
        ("before_it", before as f64),
        ("are_past", f64::from(u8::from(are_past))),
        ("after_s", after_s),
        ("handed_over_by_then", handed),
        ("expired_by_then", expired as f64),
    ];
    rows.add("stale", row);
    empty(&provider, &system, before).await;
    Ok(())
}

/// Lets the worker finish the rest, so that it does not disturb the next run.
async fn empty(provider: &Provider, system: &System, count: u64) {
    let name = "watchword_deliveries_ended_total";
    let begun = Instant::now();
    while begun.elapsed() < FRESH {
        let expired = system.metric(name, &["outcome=\"expired\""]).await;
        if provider.taken().count + expired > count {
            return;
        }
        sleep(Duration::from_millis(200)).await;
    }
}
