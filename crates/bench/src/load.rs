//! The load. A user asks for a code, waits until the provider has it, and checks it. Users in a
//! closed loop show the highest rate; arrivals at a set rate show latency, which counts from the
//! moment for which an arrival was set.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Deserialize;
use tokio::sync::oneshot::Receiver;
use tokio::time::{sleep, timeout};

mod flood;

pub use flood::{fill, flood, single};

use crate::pace;
use crate::provider::{Arrival, Provider};
use crate::wire::Client;

/// The most that a code may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Connections that an open loop has from the start; it makes more when it needs them.
const KEPT: usize = 256;

/// Mobile numbers of ten countries, each with room for seven digits from [`FIRST`] on: every country's
/// numbers have patterns of their own.
const COUNTRIES: [&str; 10] = [
    "+491510", "+3361", "+3461", "+551191", "+91981", "+861380", "+628121", "+3161", "+4670",
    "+1202",
];

/// The first seven digits.
const FIRST: u64 = 2_000_000;

/// Recipients that were not used yet, over all targets of a run.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// What is asked, and how.
#[derive(Debug, Clone)]
pub struct Target {
    /// The port that takes requests for codes.
    pub ask: u16,
    /// The port that takes checks.
    pub check: u16,
    /// The API key.
    pub key: &'static str,
    /// `sms` or `email`.
    pub channel: &'static str,
}

impl Target {
    /// Somebody who was not asked for before.
    fn recipient(&self) -> String {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        match self.channel {
            "sms" => {
                // A place of 0 to 9.
                let country = COUNTRIES[(number % 10) as usize];
                format!("{country}{}", FIRST + number / 10)
            }
            _ => format!("person{number}@example.org"),
        }
    }
}

/// How long one code took.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// From the request to the provider.
    pub handover: Duration,
    /// From the check to its answer.
    pub check: Duration,
}

/// The samples of a run.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    done: Vec<Sample>,
    /// Arrivals that got no code or no answer.
    failed: u32,
    /// What the first of these met.
    pub fault: Option<String>,
    /// The time that was measured; of an open loop until the last was done.
    took: Duration,
}

impl Samples {
    /// How many codes came and were checked.
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    pub const fn count(&self) -> f64 {
        self.done.len() as f64
    }

    /// How many codes a second.
    pub fn rate(&self) -> f64 {
        self.count() / self.took.as_secs_f64()
    }

    /// How many arrivals got no code, or no answer.
    pub fn failed(&self) -> f64 {
        f64::from(self.failed)
    }

    /// The smallest time that `share` of the samples do not exceed, in milliseconds.
    pub fn quantile(&self, share: f64, of: impl Fn(&Sample) -> Duration) -> f64 {
        let mut times: Vec<_> = self.done.iter().map(of).collect();
        times.sort_unstable();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index"
        )]
        let place = ((times.len() as f64 * share).ceil() as usize).max(1) - 1;
        times
            .get(place)
            .map_or(f64::NAN, |time| time.as_secs_f64() * 1_000.0)
    }
}

#[derive(Deserialize)]
struct Opened {
    id: String,
}

#[derive(Deserialize)]
struct Checked {
    valid: bool,
}

/// Two kept connections.
struct User {
    ask: Client,
    check: Client,
}

impl User {
    async fn connect(target: &Target) -> anyhow::Result<Self> {
        Ok(Self {
            ask: Client::connect(target.ask, target.key).await?,
            check: Client::connect(target.check, target.key).await?,
        })
    }

    /// Asks for a code; its id, and where it will arrive.
    async fn order(
        &mut self,
        target: &Target,
        provider: &Provider,
    ) -> anyhow::Result<(String, Receiver<Arrival>)> {
        let to = target.recipient();
        let arrival = provider.expect(&to);
        Ok((self.open(target, &to).await?, arrival))
    }

    /// Asks for a code for `to`; its id.
    async fn open(&mut self, target: &Target, to: &str) -> anyhow::Result<String> {
        let body = format!("{{\"channel\":\"{}\",\"to\":\"{to}\"}}", target.channel);
        let (status, body) = self.ask.post("/v1/verifications", body).await?;
        ensure!(
            status == 202,
            "{status}: {}",
            String::from_utf8_lossy(&body)
        );
        let opened: Opened = serde_json::from_slice(&body)?;
        Ok(opened.id)
    }

    /// Asks for a code and waits until it is there; its id, and how long it took from `begun`.
    async fn ask(
        &mut self,
        target: &Target,
        provider: &Provider,
        begun: Instant,
    ) -> anyhow::Result<(String, String, Duration)> {
        let (id, arrival) = self.order(target, provider).await?;
        let (code, at) = timeout(PATIENCE, arrival).await.context("no code came")??;
        Ok((id, code, at.saturating_duration_since(begun)))
    }

    async fn whole(
        &mut self,
        target: &Target,
        provider: &Provider,
        begun: Instant,
    ) -> anyhow::Result<Sample> {
        let (id, code, handover) = self.ask(target, provider, begun).await?;
        let begun = Instant::now();
        let path = format!("/v1/verifications/{id}/check");
        let (status, body) = self
            .check
            .post(&path, format!("{{\"code\":\"{code}\"}}"))
            .await?;
        ensure!(
            status == 200,
            "{status}: {}",
            String::from_utf8_lossy(&body)
        );
        let checked: Checked = serde_json::from_slice(&body)?;
        ensure!(checked.valid, "the code that came was refused");
        Ok(Sample {
            handover,
            check: begun.elapsed(),
        })
    }
}

/// What `users` do for `time`, after `warm` of the same.
pub async fn closed(
    target: &Target,
    provider: &Arc<Provider>,
    users: usize,
    (warm, time): (Duration, Duration),
    begins: impl FnOnce(),
) -> anyhow::Result<Samples> {
    let counts = Arc::new(AtomicBool::new(false));
    let ends = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::with_capacity(users);
    for _ in 0..users {
        let mut user = User::connect(target).await?;
        let (target, provider) = (target.clone(), provider.clone());
        let (counts, ends) = (counts.clone(), ends.clone());
        tasks.push(tokio::spawn(async move {
            let mut samples = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                let sample = user.whole(&target, &provider, Instant::now()).await?;
                if counts.load(Ordering::Relaxed) && !ends.load(Ordering::Relaxed) {
                    samples.push(sample);
                }
            }
            anyhow::Ok(samples)
        }));
    }
    sleep(warm).await;
    begins();
    counts.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    sleep(time).await;
    ends.store(true, Ordering::Relaxed);
    let took = begun.elapsed();
    let mut all = Samples {
        took,
        ..Samples::default()
    };
    for task in tasks {
        all.done.extend(task.await??);
    }
    Ok(all)
}

/// What arrives at `rate` a second for `time`. What got no code or no answer is counted, and does
/// not end the run.
pub async fn open(
    target: &Target,
    provider: &Arc<Provider>,
    (rate, time): (f64, Duration),
    begins: impl FnOnce(),
) -> anyhow::Result<Samples> {
    let idle = Arc::new(Mutex::new(Vec::<User>::new()));
    let lock = |idle: &Mutex<Vec<User>>| idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
    for _ in 0..KEPT {
        let user = User::connect(target).await?;
        idle.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(user);
    }
    begins();
    let begun = Instant::now();
    let (mut arrivals, mut tasks) = (pace::arrivals(rate, time), Vec::new());
    while let Some(due) = arrivals.recv().await {
        let (target, provider, idle) = (target.clone(), provider.clone(), idle.clone());
        tasks.push(tokio::spawn(async move {
            let mut user = match lock(&idle) {
                Some(user) => user,
                None => User::connect(&target).await?,
            };
            let sample = user.whole(&target, &provider, due).await?;
            idle.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(user);
            anyhow::Ok(sample)
        }));
    }
    let mut all = Samples::default();
    for task in tasks {
        match task.await? {
            Ok(sample) => all.done.push(sample),
            Err(error) => {
                all.failed += 1;
                all.fault.get_or_insert(format!("{error:#}"));
            }
        }
    }
    all.took = begun.elapsed();
    Ok(all)
}
