//! SMS provider of the load: accepts every message, optionally after a delay, and wakes the user
//! that waits for the code in it.

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

/// Code and the time at which it arrived.
pub type Arrival = (String, Instant);

#[derive(Deserialize)]
struct Message<'a> {
    to: &'a str,
    // Owned, because JSON escapes line breaks.
    #[serde(borrow)]
    text: Cow<'a, str>,
}

/// Number of messages, with the times of the first and the last.
#[derive(Debug, Clone, Copy, Default)]
pub struct Taken {
    /// Number of messages.
    pub count: u64,
    /// Arrival of the first message.
    pub first: Option<Instant>,
    /// Arrival of the latest message.
    pub last: Option<Instant>,
}

/// Gateway on a port of its own. It also receives the codes from mails.
pub struct Provider {
    waiting: Mutex<HashMap<String, oneshot::Sender<Arrival>>>,
    taken: Mutex<Taken>,
    latency: Duration,
    port: u16,
}

impl Provider {
    /// Starts a provider that answers after `latency`.
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

    /// Returns the TCP port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns a receiver for the next code to `to`.
    pub fn expect(&self, to: &str) -> oneshot::Receiver<Arrival> {
        let (sender, receiver) = oneshot::channel();
        self.waiting().insert(to.to_owned(), sender);
        receiver
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<String, oneshot::Sender<Arrival>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the counts since the last [`Provider::forget`].
    pub fn taken(&self) -> Taken {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resets the counts.
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

    /// Handles a message with `text` to `to`: wakes the user that waits for its code.
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

/// Returns the first run of exactly six digits.
pub fn code_in(text: &str) -> Option<&str> {
    let mut runs = text.split(|c: char| !c.is_ascii_digit());
    runs.find(|run| run.len() == 6)
}
