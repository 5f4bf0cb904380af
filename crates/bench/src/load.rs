//! The load. A user asks for a code, waits until the provider has it, and checks it. Users in a
//! closed loop show the highest rate; arrivals at a set rate show latency.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Deserialize;
use tokio::time::{sleep, sleep_until, timeout};

use crate::provider::Provider;
use crate::wire::Client;

/// The most that a code may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The runtime's timers are no finer than 1 ms: an arrival up to this late counts from when it came.
const TIMER: Duration = Duration::from_millis(2);

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
pub struct Samples(Vec<Sample>);

impl Samples {
    /// How many.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest time that `share` of the samples do not exceed, in milliseconds.
    pub fn quantile(&self, share: f64, of: impl Fn(&Sample) -> Duration) -> f64 {
        let mut times: Vec<_> = self.0.iter().map(of).collect();
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

    /// Asks for a code and waits until it is there; its id, and how long it took from `begun`.
    async fn ask(
        &mut self,
        target: &Target,
        provider: &Provider,
        begun: Instant,
    ) -> anyhow::Result<(String, String, Duration)> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let to = match target.channel {
            "sms" => format!("+49151{number:08}"),
            _ => format!("person{number}@example.org"),
        };
        let arrival = provider.expect(&to);
        let body = format!("{{\"channel\":\"{}\",\"to\":\"{to}\"}}", target.channel);
        let (status, body) = self.ask.post("/v1/verifications", body).await?;
        ensure!(
            status == 202,
            "{status}: {}",
            String::from_utf8_lossy(&body)
        );
        let opened: Opened = serde_json::from_slice(&body)?;
        let (code, at) = timeout(PATIENCE, arrival).await.context("no code came")??;
        Ok((opened.id, code, at.saturating_duration_since(begun)))
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
) -> anyhow::Result<(Samples, Duration)> {
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
    let mut all = Samples::default();
    for task in tasks {
        all.0.extend(task.await??);
    }
    Ok((all, took))
}

/// What arrives at `rate` a second for `time`.
pub async fn open(
    target: &Target,
    provider: &Arc<Provider>,
    rate: f64,
    time: Duration,
) -> anyhow::Result<Samples> {
    let idle = Arc::new(Mutex::new(Vec::<User>::new()));
    let lock = |idle: &Mutex<Vec<User>>| idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
    for _ in 0..16 {
        let user = User::connect(target).await?;
        idle.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(user);
    }
    let (begun, mut tasks) = (Instant::now(), Vec::new());
    for number in 0_u32.. {
        let due = begun + Duration::from_secs_f64(f64::from(number) / rate);
        if due.duration_since(begun) >= time {
            break;
        }
        if due > Instant::now() {
            sleep_until(due.into()).await;
        }
        let now = Instant::now();
        let from = if now.duration_since(due) < TIMER {
            now
        } else {
            due
        };
        let (target, provider, idle) = (target.clone(), provider.clone(), idle.clone());
        tasks.push(tokio::spawn(async move {
            let mut user = match lock(&idle) {
                Some(user) => user,
                None => User::connect(&target).await?,
            };
            let sample = user.whole(&target, &provider, from).await?;
            idle.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(user);
            anyhow::Ok(sample)
        }));
    }
    let mut all = Samples::default();
    for task in tasks {
        all.0.push(task.await??);
    }
    Ok(all)
}

/// Opens `count` verifications that nobody checks.
pub async fn fill(target: &Target, provider: &Arc<Provider>, count: usize) -> anyhow::Result<()> {
    const USERS: usize = 64;
    let mut tasks = Vec::new();
    for _ in 0..USERS {
        let mut user = User::connect(target).await?;
        let (target, provider) = (target.clone(), provider.clone());
        tasks.push(tokio::spawn(async move {
            for _ in 0..count / USERS {
                user.ask(&target, &provider, Instant::now()).await?;
            }
            anyhow::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}
