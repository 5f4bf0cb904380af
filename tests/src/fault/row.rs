//! A row of the fault table: a load, a fault in the middle of it, the return to normal, and a
//! comparison of four accounts: the load's record, the ledger, the queues and the metrics.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::injection::Fault;
use super::stand::{Kind, LIFETIME, Stand};
use crate::load::{Load, Verdict, Window, judge, last_bad, now_ms};

/// Time before the fault: long enough to see that the load runs.
const WARM_UP: Duration = Duration::from_millis(1_500);
/// How long every verification must be served promptly before the row counts as normal again:
/// longer than it takes to notice a slow one.
const CALM_MS: u64 = 4_000;
/// Longest wait of a row for normality.
const PATIENCE: Duration = Duration::from_secs(40);
/// Longest time from the return of the peer to normal.
const MOST_RECOVERY_MS: u64 = 10_000;

/// A row of the table.
#[derive(Debug, Clone)]
pub struct Row {
    /// The part of the table that the row belongs to.
    pub group: &'static str,
    /// The fault, as printed in the table.
    pub name: String,
    /// The installation it runs on.
    pub kind: Kind,
    /// The faults, begun and ended together.
    pub faults: Vec<Fault>,
    /// How long the faults last.
    pub lasts: Duration,
    /// Whether the fault must not affect the load: every code must be handed over in normal time
    /// while it lasts.
    pub is_harmless: bool,
}

/// The result of a row.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The part of the table that the row belongs to.
    pub group: &'static str,
    /// The fault, as printed in the table.
    pub row: String,
    /// Verifications per second.
    pub load: u32,
    /// Deliveries answered with 202.
    pub accepted: usize,
    /// Accepted deliveries that ended: handed over, expired, failed or dead-lettered.
    pub ended: usize,
    /// Ended deliveries that a provider has.
    pub handed_over: usize,
    /// Accepted deliveries without an end.
    pub lost: usize,
    /// Messages handed over after their deadline.
    pub late: usize,
    /// Verifications approved more than once.
    pub double_approvals: usize,
    /// Messages beyond the first of a delivery.
    pub duplicates: usize,
    /// The most duplicates that the fault can explain.
    pub duplicates_at_most: usize,
    /// Seconds from the return of the peer to normal.
    pub recovery_s: f64,
    /// Violated expectations; empty if the row holds.
    pub wrong: Vec<String>,
}

/// Runs `row` on `stand`. Afterwards all faults are undone and the load has ended.
pub async fn run(stand: &mut Stand, row: &Row, per_second: u32) -> Report {
    stand.forget().await;
    for fault in &row.faults {
        fault.prepare(stand).await;
    }
    let before = (stand.running(), stand.ended_by_metrics().await);
    let load = stand.load(per_second);
    sleep(WARM_UP).await;
    let mut begun_ms = now_ms();
    for fault in &row.faults {
        fault.begin(stand).await;
        if fault.is_instant() {
            begun_ms = now_ms();
        }
    }
    sleep(row.lasts).await;
    for fault in row.faults.iter().rev() {
        fault.end(stand).await;
    }
    let window = Window {
        begun_ms,
        healed_ms: now_ms(),
        clocks_were_wrong: row
            .faults
            .iter()
            .any(|fault| matches!(fault, Fault::Clock(..))),
        store_forgot: row.faults.contains(&Fault::FailoverBehind),
    };
    let is_calm = settle(stand, &load, window.healed_ms).await;
    let verdict = close(stand, &load, window).await;
    let is_instant = row.faults.iter().all(|fault| fault.is_instant());
    let mut report = report(&row.name, per_second, &verdict, is_instant);
    report.group = row.group;
    if row.is_harmless {
        let held_up = last_bad(&load.lives(), &stand.mailbox, begun_ms);
        report
            .wrong
            .extend(held_up.map(|_| "other codes are delayed".to_owned()));
    }
    if !is_calm {
        report.wrong.push("did not return to normal".to_owned());
    }
    let restarts: Vec<_> = row
        .faults
        .iter()
        .filter_map(|fault| fault.restarts())
        .collect();
    report.wrong.extend(stand.restarted(&before.0, &restarts));
    report
        .wrong
        .extend(stand.disagreements(&load, &verdict).await);
    if restarts.is_empty() {
        let mut counted = stand.ended_by_metrics().await - before.1;
        let told = verdict.accepted as u64;
        if window.store_forgot && counted < told {
            // A delivery whose claim the store forgot cannot be recorded, so the metrics miss it.
            // These are at most the deliveries in flight during the fault.
            counted = (counted + verdict.touched as u64).min(told);
        }
        let differs = disagreement("the metrics count", counted, &load, &verdict);
        report.wrong.extend(differs);
    }
    report
}

/// Waits until every verification has been served promptly for [`CALM_MS`]. Returns false if that
/// takes longer than [`PATIENCE`].
pub(super) async fn settle(stand: &Stand, load: &Load, healed_ms: u64) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        sleep(Duration::from_millis(250)).await;
        let bad = last_bad(&load.lives(), &stand.mailbox, healed_ms);
        if now_ms() > bad.unwrap_or(0).max(healed_ms) + CALM_MS {
            return true;
        }
    }
    false
}

/// Stops the load, waits for its last verification and judges.
pub(super) async fn close(stand: &mut Stand, load: &Load, window: Window) -> Verdict {
    load.stop();
    let begun = Instant::now();
    // A person requests, waits and checks, and each of the three takes a code's lifetime at most.
    while load.open() > 0 && begun.elapsed() < LIFETIME * 3 {
        sleep(Duration::from_millis(100)).await;
    }
    let target = stand.target();
    judge(load, &stand.mailbox, &target, window).await
}

pub(super) fn report(name: &str, load: u32, verdict: &Verdict, is_instant: bool) -> Report {
    let most = if is_instant {
        verdict.in_flight
    } else {
        verdict.touched
    };
    let mut wrong = Vec::new();
    let mut expect = |holds: bool, what: String| {
        if !holds {
            wrong.push(what);
        }
    };
    expect(verdict.accepted > 0, "nothing was accepted".to_owned());
    expect(verdict.approved > 0, "nothing was approved".to_owned());
    let lost: Vec<_> = verdict.lost.iter().take(5).cloned().collect();
    expect(verdict.lost.is_empty(), format!("lost {lost:?}"));
    expect(
        verdict.ends() == verdict.accepted,
        "the number of ends differs from the number of accepted messages".to_owned(),
    );
    expect(
        verdict.late == 0,
        format!("{} late, by up to {} ms", verdict.late, verdict.latest_ms),
    );
    expect(
        verdict.double_approvals == 0,
        format!("{} approved twice", verdict.double_approvals),
    );
    expect(
        verdict.refused == 0,
        format!("{} right codes refused", verdict.refused),
    );
    expect(
        verdict.duplicates <= most,
        format!("{} duplicates of {most}", verdict.duplicates),
    );
    expect(
        verdict.recovery_ms <= MOST_RECOVERY_MS,
        format!("normal after {} ms", verdict.recovery_ms),
    );
    Report {
        group: "soak",
        row: name.to_owned(),
        load,
        accepted: verdict.accepted,
        ended: verdict.ends(),
        handed_over: verdict.handed_over,
        lost: verdict.lost.len(),
        late: verdict.late,
        double_approvals: verdict.double_approvals,
        duplicates: verdict.duplicates,
        duplicates_at_most: most,
        recovery_s: std::time::Duration::from_millis(verdict.recovery_ms).as_secs_f64(),
        wrong,
    }
}

/// Compares a count of the product with the load's. The product may count more: requests that got
/// no answer or an error, and requests of other people.
pub(super) fn disagreement(
    who: &str,
    counted: u64,
    load: &Load,
    verdict: &Verdict,
) -> Option<String> {
    let told = verdict.accepted as u64;
    let untold = load
        .lives()
        .iter()
        .flat_map(|life| life.asked.clone())
        .filter(|asked| asked.status != Some(202))
        .count() as u64
        + load.others();
    let fits = (told..=told + untold).contains(&counted);
    (!fits).then(|| format!("{who} {counted}, the load {told} and at most {untold} more"))
}
