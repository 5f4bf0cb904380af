//! The provider: takes every message, after a while if it is told to, and wakes whoever waits for
//! the code in it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::wire::serve;

/// A code, and when it was handed over.
pub type Arrival = (String, Instant);

#[derive(Deserialize)]
struct Message<'a> {
    to: &'a str,
    // It has line breaks.
    #[serde(borrow)]
    text: Cow<'a, str>,
}

/// How many messages came, and when the first and the last of them did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Taken {
    /// How many.
    pub count: u64,
    /// When the first came.
    pub first: Option<Instant>,
    /// When the newest came.
    pub last: Option<Instant>,
}

/// A gateway on a port of its own; it can hear of mails too.
pub struct Provider {
    waiting: Mutex<HashMap<String, oneshot::Sender<Arrival>>>,
    taken: Mutex<Taken>,
    latency: Duration,
    port: u16,
}

impl Provider {
    /// Starts one that answers after `latency`.
    pub async fn start(latency: Duration) -> anyhow::Result<Arc<Self>> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let provider = Arc::new(Self {
            waiting: Mutex::default(),
            taken: Mutex::default(),
            latency,
            port: listener.local_addr()?.port(),
        });
        let taker = provider.clone();
        tokio::spawn(serve(listener, move |body| {
            let taker = taker.clone();
            async move {
                if !taker.latency.is_zero() {
                    tokio::time::sleep(taker.latency).await;
                }
                taker.take(&body)
            }
        }));
        Ok(provider)
    }

    /// Its port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The code that `to` is going to get.
    pub fn expect(&self, to: &str) -> oneshot::Receiver<Arrival> {
        let (sender, receiver) = oneshot::channel();
        self.waiting().insert(to.to_owned(), sender);
        receiver
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<String, oneshot::Sender<Arrival>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came since it was last forgotten.
    pub fn taken(&self) -> Taken {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts from nothing again.
    pub fn forget(&self) {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = Taken::default();
    }

    fn take(&self, body: &Bytes) -> (StatusCode, &'static str) {
        let Ok(message) = serde_json::from_slice::<Message<'_>>(body) else {
            return (StatusCode::BAD_REQUEST, "");
        };
        self.arrived(message.to, &message.text);
        (StatusCode::ACCEPTED, "{\"id\":\"1\"}")
    }

    /// A message with `text` came for `to`: wakes whoever waits for its code.
    pub fn arrived(&self, to: &str, text: &str) {
        let now = Instant::now();
        {
            let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            taken.count += 1;
            taken.first.get_or_insert(now);
            taken.last = Some(now);
        }
        let sender = self.waiting().remove(to);
        if let (Some(sender), Some(code)) = (sender, code_in(text)) {
            let _ = sender.send((code.to_owned(), now));
        }
    }
}

/// The first run of exactly six digits.
pub fn code_in(text: &str) -> Option<&str> {
    let mut runs = text.split(|c: char| !c.is_ascii_digit());
    runs.find(|run| run.len() == 6)
}
