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

/// A gateway on a port of its own.
pub struct Provider {
    waiting: Mutex<HashMap<String, oneshot::Sender<Arrival>>>,
    latency: Duration,
    port: u16,
}

impl Provider {
    /// Starts one that answers after `latency`.
    pub async fn start(latency: Duration) -> anyhow::Result<Arc<Self>> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let provider = Arc::new(Self {
            waiting: Mutex::default(),
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

    fn take(&self, body: &Bytes) -> (StatusCode, &'static str) {
        let now = Instant::now();
        let Ok(message) = serde_json::from_slice::<Message<'_>>(body) else {
            return (StatusCode::BAD_REQUEST, "");
        };
        let sender = self.waiting().remove(message.to);
        let digits = message.text.split(|c: char| !c.is_ascii_digit());
        if let (Some(sender), Some(code)) = (sender, digits.into_iter().find(|run| run.len() == 6))
        {
            let _ = sender.send((code.to_owned(), now));
        }
        (StatusCode::ACCEPTED, "{\"id\":\"1\"}")
    }
}
