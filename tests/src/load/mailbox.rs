//! The messages that the providers got, by recipient, each with its time and code. A waiting task
//! is woken only by messages to its own recipient.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::now_ms;

/// A message that a provider accepted.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Time at which the provider had the whole message.
    pub at_ms: u64,
    /// The delivery id in the message.
    pub delivery: String,
    /// The code in the text.
    pub code: String,
}

#[derive(Default)]
struct Entry {
    arrivals: Vec<Arrival>,
    arrived: Arc<Notify>,
}

/// The messages of all providers of an installation.
#[derive(Default)]
pub struct Mailbox(Mutex<HashMap<String, Entry>>);

impl Mailbox {
    /// Records the message of `delivery` to `to`.
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

    /// Returns the messages to `to`.
    pub fn of(&self, to: &str) -> Vec<Arrival> {
        let entries = self.0.lock().expect("the mailbox");
        entries
            .get(to)
            .map_or_else(Vec::new, |entry| entry.arrivals.clone())
    }

    /// Waits for the first message to `to`. The caller bounds the wait.
    pub async fn first(&self, to: &str) -> Arrival {
        loop {
            let arrived = {
                let mut entries = self.0.lock().expect("the mailbox");
                let entry = entries.entry(to.to_owned()).or_default();
                if let Some(first) = entry.arrivals.first() {
                    return first.clone();
                }
                // Register under the lock, so that no message between the look and the wait is
                // missed.
                entry.arrived.clone().notified_owned()
            };
            arrived.await;
        }
    }
}

/// Returns the first run of exactly six digits, or an empty string.
fn code_in(text: &str) -> String {
    text.split(|c: char| !c.is_ascii_digit())
        .find(|run| run.len() == 6)
        .unwrap_or_default()
        .to_owned()
}
