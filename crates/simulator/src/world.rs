//! State that the listeners share: behavior, random generator and accepted messages.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use reqwest::Client;
use serde::Serialize;
use tokio::sync::Semaphore;
use watchword_core::{Channel, Recipient};

use crate::behaviour::{Outcome, SimulatorConfig, SmsBehaviour, SmtpBehaviour, draw, listed};

const KEPT: usize = 100_000;
/// Messages with pending receipts at once.
const RECEIPTS: usize = 1_024;

/// An accepted message.
#[derive(Debug, Clone, Serialize)]
pub struct SimulatedMessage {
    /// Sequence number, from 1.
    pub n: u64,
    /// `sim-` and the sequence number.
    pub id: String,
    /// `sms` or `email`.
    pub channel: &'static str,
    /// The recipient as submitted.
    pub to: String,
    /// The text of an SMS, or the whole mail.
    pub text: String,
    /// The sender's reference.
    pub reference: Option<String>,
    /// The URL for its receipts.
    #[serde(skip)]
    pub callback: Option<String>,
}

/// Returns the recipient in a form that may be logged.
fn masked(message: &SimulatedMessage) -> String {
    let channel = message.channel.parse::<Channel>();
    let recipient = channel.and_then(|channel| Recipient::parse(channel, &message.to));
    recipient.map_or_else(|_| "***".to_owned(), |recipient| recipient.masked())
}

#[derive(Clone)]
pub(crate) struct World {
    inner: Arc<Mutex<Inner>>,
    pub(crate) client: Client,
    pub(crate) receipts: Arc<Semaphore>,
}

struct Inner {
    sms: SmsBehaviour,
    smtp: SmtpBehaviour,
    random: StdRng,
    messages: VecDeque<SimulatedMessage>,
    taken: u64,
    counters: BTreeMap<String, u64>,
    second: (Instant, u32),
    greylisted: HashSet<String>,
}

impl World {
    pub(crate) fn new(config: &SimulatorConfig) -> Self {
        let inner = Inner {
            sms: config.sms.clone().unwrap_or_default(),
            smtp: config.smtp.clone().unwrap_or_default(),
            random: StdRng::seed_from_u64(config.seed),
            messages: VecDeque::new(),
            taken: 0,
            counters: BTreeMap::new(),
            second: (Instant::now(), 0),
            greylisted: HashSet::new(),
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            client: Client::builder()
                .no_proxy()
                .timeout(Duration::from_secs(5))
                .build()
                .unwrap_or_default(),
            receipts: Arc::new(Semaphore::new(RECEIPTS)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_sms(&self, behaviour: SmsBehaviour) {
        self.lock().sms = behaviour;
    }

    pub(crate) fn set_smtp(&self, behaviour: SmtpBehaviour) {
        self.lock().smtp = behaviour;
    }

    pub(crate) fn sms(&self) -> SmsBehaviour {
        self.lock().sms.clone()
    }

    /// Returns the outcome of an SMS to `to` and the response time.
    pub(crate) fn sms_fate(&self, to: &str) -> (Outcome, Duration) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let latency = inner.sms.latency.draw(&mut inner.random);
        if let Some(most) = inner.sms.throttle_per_second {
            if inner.second.0.elapsed() >= Duration::from_secs(1) {
                inner.second = (Instant::now(), 0);
            }
            inner.second.1 += 1;
            if inner.second.1 > most {
                return (Outcome::Throttled, Duration::ZERO);
            }
        }
        let outcome = listed(&inner.sms.numbers, to);
        let outcome = outcome.unwrap_or_else(|| draw(&inner.sms.outcomes, &mut inner.random));
        (outcome, latency)
    }

    /// Returns the outcome of a mail to `to` and the response time.
    pub(crate) fn mail_fate(&self, to: &str) -> (Outcome, Duration) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let latency = inner.smtp.latency.draw(&mut inner.random);
        if inner.smtp.greylist
            && inner.greylisted.len() < KEPT
            && inner.greylisted.insert(to.to_owned())
        {
            return (Outcome::Throttled, latency);
        }
        let outcome = listed(&inner.smtp.addresses, to);
        let outcome = outcome.unwrap_or_else(|| draw(&inner.smtp.outcomes, &mut inner.random));
        (outcome, latency)
    }

    /// Returns true with the probability `share`.
    pub(crate) fn happens(&self, share: f64) -> bool {
        use rand::RngExt;
        share > 0.0 && self.lock().random.random::<f64>() < share
    }

    /// Stores a message and returns it with its number and id.
    pub(crate) fn keep(&self, mut message: SimulatedMessage) -> SimulatedMessage {
        let mut inner = self.lock();
        inner.taken += 1;
        message.n = inner.taken;
        message.id = format!("sim-{}", message.n);
        if inner.messages.len() == KEPT {
            inner.messages.pop_front();
        }
        inner.messages.push_back(message.clone());
        drop(inner);
        tracing::info!(
            channel = message.channel,
            to = masked(&message),
            id = message.id,
            "accepted a message"
        );
        message
    }

    pub(crate) fn messages(&self, since: u64) -> Vec<SimulatedMessage> {
        let inner = self.lock();
        inner
            .messages
            .iter()
            .filter(|message| message.n > since)
            .cloned()
            .collect()
    }

    pub(crate) fn message(&self, id: &str) -> Option<SimulatedMessage> {
        self.lock()
            .messages
            .iter()
            .find(|message| message.id == id)
            .cloned()
    }

    pub(crate) fn count(&self, what: &str) {
        *self.lock().counters.entry(what.to_owned()).or_default() += 1;
    }

    pub(crate) fn counters(&self) -> BTreeMap<String, u64> {
        self.lock().counters.clone()
    }
}
