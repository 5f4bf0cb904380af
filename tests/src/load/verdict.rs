//! Compares the answers of a load with the messages that arrived. Unless a field says otherwise,
//! counts are of deliveries; a delivery is a message that was answered with 202.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use reqwest::Client;
use tokio::time::sleep;

use super::{Life, Load, Mailbox, Target, now_ms};

/// A person who waits longer than this for a message or a verdict is not served promptly.
const PROMPT_MS: u64 = 2_000;
/// How long after the last verification the ledger may take to record the last end: the longest
/// retry delay that fits into a code's lifetime, plus a lease.
const SETTLE: Duration = Duration::from_secs(45);

/// The time span of a fault.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Begin of the fault.
    pub begun_ms: u64,
    /// Return of the peer.
    pub healed_ms: u64,
    /// A clock of the product was wrong. Deadlines are then judged by the clock of this process,
    /// and refusals of right codes are not counted.
    pub clocks_were_wrong: bool,
    /// The store lost its last writes, so refusals of right codes are not counted.
    pub store_forgot: bool,
}

/// The result of a load.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Verifications requested.
    pub asked: usize,
    /// Deliveries answered with 202.
    pub accepted: usize,
    /// Accepted deliveries that a provider has.
    pub handed_over: usize,
    /// Accepted deliveries without a message, by their end in the ledger.
    pub ended: BTreeMap<String, usize>,
    /// Accepted deliveries with neither.
    pub lost: Vec<String>,
    /// Messages that arrived after their code's deadline.
    pub late: usize,
    /// Delay of the latest message past its deadline.
    pub latest_ms: u64,
    /// Verifications that were approved by more than one check, or by a wrong code.
    pub double_approvals: usize,
    /// Right codes, entered in time, that were refused.
    pub refused: usize,
    /// Verifications that were approved.
    pub approved: usize,
    /// Messages beyond the first of a delivery.
    pub duplicates: usize,
    /// Verifications in flight when the fault began.
    pub in_flight: usize,
    /// Verifications in flight at any moment from the fault until all was normal again.
    pub touched: usize,
    /// From the return of the peer to the last verification that was not served promptly.
    pub recovery_ms: u64,
}

impl Verdict {
    /// Returns the number of ended deliveries, handed over or not.
    pub fn ends(&self) -> usize {
        self.handed_over + self.ended.values().sum::<usize>()
    }
}

/// Returns when the last verification began that was opened after `since_ms` and not served
/// promptly; `None` if all were.
pub fn last_bad(lives: &[Life], mailbox: &Mailbox, since_ms: u64) -> Option<u64> {
    let bad = lives.iter().filter(|life| {
        life.begun_ms() >= since_ms && !life.asked.is_empty() && !is_prompt(life, mailbox)
    });
    bad.map(Life::begun_ms).max()
}

/// Whether the first request was accepted, the message arrived in time and the right code was
/// approved, each at once. A verification still in progress and not yet slow counts as prompt.
fn is_prompt(life: &Life, mailbox: &Mailbox) -> bool {
    let now = now_ms();
    let begun = life.begun_ms();
    let first = &life.asked[0];
    if first.status != Some(202) || first.until_ms - first.at_ms > PROMPT_MS {
        return false;
    }
    let Some(arrival) = mailbox.of(&life.to).first().cloned() else {
        return now < begun + PROMPT_MS;
    };
    let checked = life.checks.iter().find(|check| check.is_right);
    let checked_promptly = checked.is_none_or(|check| {
        check.tries == 1 && check.valid == Some(true) && check.until_ms - check.at_ms <= PROMPT_MS
    });
    arrival.at_ms <= begun + PROMPT_MS && checked_promptly
}

/// Judges a load. Waits until the ledger has an end for each delivery that no provider got, or
/// until it has had enough time.
pub async fn judge(load: &Load, mailbox: &Mailbox, target: &Target, window: Window) -> Verdict {
    let lives = load.lives();
    let healed = window.healed_ms;
    let last_bad = last_bad(&lives, mailbox, healed).unwrap_or(healed);
    let mut verdict = Verdict {
        asked: lives.len(),
        recovery_ms: last_bad - healed,
        ..Verdict::default()
    };
    let counts_refusals = !window.clocks_were_wrong && !window.store_forgot;
    let mut open = Vec::new();
    for life in &lives {
        let arrivals = mailbox.of(&life.to);
        let approvals = life.approvals();
        let wrong = life
            .checks
            .iter()
            .any(|check| !check.is_right && check.valid == Some(true));
        verdict.approved += usize::from(approvals > 0);
        verdict.double_approvals += usize::from(approvals > 1 || wrong);
        verdict.refused += usize::from(counts_refusals && is_refused(life));
        let mut deliveries = BTreeMap::new();
        for accepted in &life.accepted {
            deliveries.insert(format!("{}-{}", accepted.id, accepted.sends), accepted);
        }
        let begun = life.begun_ms();
        let until = arrivals.iter().map(|arrival| arrival.at_ms).max();
        let flies =
            |from: u64, to: u64| begun <= to && until.is_none_or(|until| until + 500 >= from);
        verdict.in_flight += usize::from(flies(window.begun_ms, window.begun_ms));
        verdict.touched += usize::from(flies(window.begun_ms, last_bad.max(healed)));
        for (id, accepted) in deliveries {
            verdict.accepted += 1;
            let own = arrivals.iter().filter(|arrival| arrival.delivery == id);
            let deadline_ms = if window.clocks_were_wrong {
                accepted.at_ms + load.lifetime_ms()
            } else {
                accepted.expires_at_ms
            };
            let late = |at_ms: u64| at_ms > deadline_ms;
            let count = own.clone().count();
            for arrival in own.filter(|arrival| late(arrival.at_ms)) {
                verdict.late += 1;
                verdict.latest_ms = verdict.latest_ms.max(arrival.at_ms - deadline_ms);
                let after_ms = arrival.at_ms - window.begun_ms.min(arrival.at_ms);
                eprintln!("late: {} {id} at {after_ms} ms", life.channel);
            }
            verdict.duplicates += count.saturating_sub(1);
            if count > 0 {
                verdict.handed_over += 1;
            } else {
                open.push(id);
            }
        }
    }
    let (ended, lost) = ends(target, open).await;
    (verdict.ended, verdict.lost) = (ended, lost);
    verdict
}

/// Whether the right code was entered at least a second before its deadline and refused.
fn is_refused(life: &Life) -> bool {
    let Some(accepted) = life.accepted.last() else {
        return false;
    };
    let first = life.checks.iter().find(|check| check.is_right);
    first.is_some_and(|check| {
        check.valid == Some(false) && check.until_ms + 1_000 < accepted.expires_at_ms
    })
}

/// Asks the verifier for the ends of deliveries that no provider has. A delivery that the ledger
/// calls handed over counts as lost.
async fn ends(target: &Target, mut open: Vec<String>) -> (BTreeMap<String, usize>, Vec<String>) {
    let http = Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(5))
        .build()
        .expect("a client");
    let mut ended = BTreeMap::new();
    let mut lied = Vec::new();
    let begun = Instant::now();
    loop {
        let (before, mut left) = (open.len(), Vec::new());
        for id in open {
            match outcome(&http, target, &id).await.as_deref() {
                Some(end @ ("failed" | "expired" | "parked")) => {
                    *ended.entry(end.to_owned()).or_default() += 1;
                }
                Some(end @ ("accepted" | "delivered")) => lied.push(format!("{id} ({end})")),
                other => left.push((id, other.unwrap_or("unknown").to_owned())),
            }
        }
        // Asking for thousands takes longer than `SETTLE`: continue while rounds still find ends.
        if left.is_empty() || (begun.elapsed() > SETTLE && left.len() == before) {
            lied.extend(left.into_iter().map(|(id, word)| format!("{id} ({word})")));
            return (ended, lied);
        }
        open = left.into_iter().map(|(id, _)| id).collect();
        sleep(Duration::from_millis(500)).await;
    }
}

async fn outcome(http: &Client, target: &Target, delivery: &str) -> Option<String> {
    let (verification, _) = delivery.rsplit_once('-')?;
    let url = format!("{}/v1/verifications/{verification}", target.verifier);
    let response = http.get(url).bearer_auth(&target.key).send().await.ok()?;
    let bytes = response.bytes().await.ok()?;
    let status: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    let deliveries = status["deliveries"].as_array()?;
    let own = deliveries.iter().find(|one| one["id"] == delivery)?;
    own["outcome"].as_str().map(ToOwned::to_owned)
}
