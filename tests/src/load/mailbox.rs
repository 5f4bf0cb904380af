//! What the providers got: every message with its moment and its code, by recipient. Whoever waits
//! for a code is woken by its own recipient's messages only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::now_ms;

/// A message a provider took.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// When the provider had the whole of it.
    pub at_ms: u64,
    /// The delivery it names itself after.
    pub delivery: String,
    /// The code in it.
    pub code: String,
}

#[derive(Default)]
struct Entry {
    arrivals: Vec<Arrival>,
    arrived: Arc<Notify>,
}

/// The messages of all providers of a stand.
#[derive(Default)]
pub struct Mailbox(Mutex<HashMap<String, Entry>>);

impl Mailbox {
    /// Keeps the message `delivery` to `to`.
    pub fn put(&self, to: &str, delivery: &str, text: &str) {
        let arrival = Arrival {
            at_ms: now_ms(),
            delivery: delivery.to_owned(),
            code: code_in(text),
        };
        let mut entries = self.0.lock().expect("the mailbox");
        let entry = entries.entry(to.to_owned()).or_default();
        entry.arrivals.push(arrival);
        entry.arrived.notify_waiters();
    }

    /// The messages to `to`.
    pub fn of(&self, to: &str) -> Vec<Arrival> {
        let entries = self.0.lock().expect("the mailbox");
        entries
            .get(to)
            .map_or_else(Vec::new, |entry| entry.arrivals.clone())
    }

    /// Waits for the first message to `to`; the caller bounds the wait.
    pub async fn first(&self, to: &str) -> Arrival {
        loop {
            let arrived = {
                let mut entries = self.0.lock().expect("the mailbox");
                let entry = entries.entry(to.to_owned()).or_default();
                if let Some(first) = entry.arrivals.first() {
                    return first.clone();
                }
                // Made under the lock: what arrives from here on wakes it.
                entry.arrived.clone().notified_owned()
            };
            arrived.await;
        }
    }
}

/// The first run of exactly six digits; empty if there is none.
fn code_in(text: &str) -> String {
    text.split(|c: char| !c.is_ascii_digit())
        .find(|run| run.len() == 6)
        .unwrap_or_default()
        .to_owned()
}
