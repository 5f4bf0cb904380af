//! A load that checks the product: it requests, receives and checks verifications at a set rate,
//! records every answer and every message, and compares them afterwards. The verdict relies on
//! these records; the product's own accounts are compared with them.

mod gateway;
mod life;
mod mailbox;
mod verdict;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::Client;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

pub use gateway::{SmsGateway, Temper};
pub use life::{Accepted, Asked, Check, Life};
pub use mailbox::{Arrival, Mailbox};
pub use verdict::{Verdict, Window, judge, last_bad};

/// Milliseconds since the epoch by the clock of this process, which no fault steps.
#[expect(
    clippy::disallowed_methods,
    reason = "the judge's clock is the machine's"
)]
pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock after 1970");
    u64::try_from(since.as_millis()).expect("a clock before the year 500 million")
}

/// The addresses and the key that the load uses.
#[derive(Debug, Clone)]
pub struct Target {
    /// Base URL of the issuer.
    pub issuer: String,
    /// Base URL of the verifier.
    pub verifier: String,
    /// The API key.
    pub key: String,
}

/// The data that all verifications of a load share.
pub(crate) struct Scene {
    pub(crate) target: Target,
    pub(crate) http: Client,
    pub(crate) mailbox: Arc<Mailbox>,
    /// Lifetime of a code, which bounds every wait for one.
    pub(crate) lifetime: Duration,
    /// Whether some people take seconds to type a code. The second use of the code comes later
    /// then, too.
    pub(crate) has_slow_typists: bool,
}

/// A running load.
pub struct Load {
    lives: Arc<Mutex<Vec<Arc<Mutex<Life>>>>>,
    open: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
    driver: JoinHandle<()>,
    per_second: u32,
    lifetime: Duration,
    others: Arc<AtomicUsize>,
}

/// Recipients are numbered, so that no two loads of a process share one.
static NEXT: AtomicU32 = AtomicU32::new(0);

impl Load {
    /// Starts to open `per_second` verifications, half by SMS and half by email.
    pub fn start(
        target: Target,
        mailbox: Arc<Mailbox>,
        per_second: u32,
        lifetime: Duration,
        has_slow_typists: bool,
    ) -> Self {
        let http = Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(5))
            .connect_timeout(Duration::from_secs(2))
            .build()
            .expect("a client");
        let scene = Arc::new(Scene {
            target,
            http,
            mailbox,
            lifetime,
            has_slow_typists,
        });
        let lives = Arc::<Mutex<Vec<_>>>::default();
        let open = Arc::new(AtomicUsize::new(0));
        let stopped = Arc::new(AtomicBool::new(false));
        let driver = tokio::spawn(drive(
            scene,
            per_second,
            lives.clone(),
            open.clone(),
            stopped.clone(),
        ));
        Self {
            lives,
            open,
            stopped,
            driver,
            per_second,
            lifetime,
            others: Arc::default(),
        }
    }

    /// Runs beside requests of other people, counted by `others`.
    #[must_use]
    pub fn beside(mut self, others: Arc<AtomicUsize>) -> Self {
        self.others = others;
        self
    }

    /// Returns the number of requests of other people.
    pub fn others(&self) -> u64 {
        self.others.load(Ordering::SeqCst) as u64
    }

    /// Returns the verifications per second.
    pub const fn per_second(&self) -> u32 {
        self.per_second
    }

    /// Returns the lifetime of a code.
    pub fn lifetime_ms(&self) -> u64 {
        u64::try_from(self.lifetime.as_millis()).unwrap_or(u64::MAX)
    }

    /// Opens no further verification; those already open continue.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    /// Returns the number of verifications that are still in progress.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Returns the records of all verifications so far.
    pub fn lives(&self) -> Vec<Life> {
        let lives = self.lives.lock().expect("lives");
        lives
            .iter()
            .map(|life| life.lock().expect("a life").clone())
            .collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn drive(
    scene: Arc<Scene>,
    per_second: u32,
    lives: Arc<Mutex<Vec<Arc<Mutex<Life>>>>>,
    open: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
) {
    let mut ticks = interval(Duration::from_secs(1) / per_second);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut tasks = JoinSet::new();
    loop {
        ticks.tick().await;
        // Count before reading `stopped`: a caller that stops the load and then sees none open can
        // rely on it.
        open.fetch_add(1, Ordering::SeqCst);
        if stopped.load(Ordering::SeqCst) {
            open.fetch_sub(1, Ordering::SeqCst);
            break;
        }
        let life = Arc::new(Mutex::new(Life::new(NEXT.fetch_add(1, Ordering::SeqCst))));
        lives.lock().expect("lives").push(life.clone());
        let (scene, open) = (scene.clone(), open.clone());
        tasks.spawn(async move {
            life::live(&scene, &life).await;
            open.fetch_sub(1, Ordering::SeqCst);
        });
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
}
