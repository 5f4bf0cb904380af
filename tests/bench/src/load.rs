//! Load generator. A user requests a code, waits until the provider receives it, and checks it. A
//! closed loop of users shows the highest rate. An open loop with a fixed arrival rate shows
//! latency, which counts from the scheduled arrival.

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

/// Maximum time until a code arrives.
const PATIENCE: Duration = Duration::from_secs(20);
/// Initial connections of an open loop; it opens more when needed.
const KEPT: usize = 256;

/// Prefixes of mobile numbers of ten countries, each followed by seven digits from [`FIRST`] on.
/// Several countries, because each one's numbering plan has patterns of its own.
const COUNTRIES: [&str; 10] = [
    "+491510", "+3361", "+3461", "+551191", "+91981", "+861380", "+628121", "+3161", "+4670",
    "+1202",
];

/// First value of the seven digits.
const FIRST: u64 = 2_000_000;

/// Number of the next unused recipient, shared by all targets of a run.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Target of the load.
#[derive(Debug, Clone)]
pub struct Target {
    /// Port for requests for codes.
    pub ask: u16,
    /// Port for checks.
    pub check: u16,
    /// API key of the service.
    pub key: &'static str,
    /// `sms` or `email`.
    pub channel: &'static str,
}

impl Target {
    /// Returns a recipient that was not used before.
    fn recipient(&self) -> String {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        match self.channel {
            "sms" => {
                // The index is below 10.
                let country = COUNTRIES[(number % 10) as usize];
                format!("{country}{}", FIRST + number / 10)
            }
            _ => format!("person{number}@example.org"),
        }
    }
}

/// Latencies of one code.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Time from the request to the provider.
    pub handover: Duration,
    /// Time from the check to its response.
    pub check: Duration,
}

/// Samples of a run.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    done: Vec<Sample>,
    /// Arrivals without a code or a response.
    failed: u32,
    /// Error of the first failed arrival.
    pub fault: Option<String>,
    /// Measured time; for an open loop until the last arrival was done.
    took: Duration,
}

impl Samples {
    /// Returns the number of codes that arrived and were checked.
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    pub const fn count(&self) -> f64 {
        self.done.len() as f64
    }

    /// Returns the rate in codes per second.
    pub fn rate(&self) -> f64 {
        self.count() / self.took.as_secs_f64()
    }

    /// Returns the number of arrivals without a code or a response.
    pub fn failed(&self) -> f64 {
        f64::from(self.failed)
    }

    /// Returns the quantile `share`, in milliseconds.
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

/// Two persistent connections.
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

    /// Requests a code. Returns its id and a receiver for its arrival.
    async fn order(
        &mut self,
        target: &Target,
        provider: &Provider,
    ) -> anyhow::Result<(String, Receiver<Arrival>)> {
        let to = target.recipient();
        let arrival = provider.expect(&to);
        Ok((self.open(target, &to).await?, arrival))
    }

    /// Requests a code for `to` and returns its id.
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

    /// Requests a code and waits for it. Returns its id, the code, and the time since `begun`.
    async fn ask(
        &mut self,
        target: &Target,
        provider: &Provider,
        begun: Instant,
    ) -> anyhow::Result<(String, String, Duration)> {
        let (id, arrival) = self.order(target, provider).await?;
        let (code, at) = timeout(PATIENCE, arrival)
            .await
            .context("the code did not arrive in time")??;
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
        ensure!(checked.valid, "the code that arrived was rejected");
        Ok(Sample {
            handover,
            check: begun.elapsed(),
        })
    }
}

/// Runs a closed loop of `users` for `time`, after a warm-up of `warm`.
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

/// Runs an open loop with `rate` arrivals per second for `time`. Arrivals without a code or a
/// response are counted and do not end the run.
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
