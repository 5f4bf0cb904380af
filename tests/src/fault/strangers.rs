//! Other people who request codes for destinations that a provider refuses, four a second, beside a
//! load that must not be affected.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Client;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::stand::Stand;
use crate::load::Target;

/// The country code of their numbers.
const COUNTRY: &str = "+53";
/// The domain of their mailboxes.
const DOMAIN: &str = "refused.example.net";
const EVERY: Duration = Duration::from_millis(250);

/// The destination of the requests, and how the provider refuses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// A country whose numbers the gateway refuses with 403.
    Country,
    /// A domain that the relay refuses with this reply at RCPT.
    Domain(&'static str),
}

/// A task that sends requests until it is dropped.
pub struct Strangers(JoinHandle<()>);

impl Drop for Strangers {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Each request is for another recipient, so that no recipient limit applies.
static NEXT: AtomicU32 = AtomicU32::new(0);

impl Strangers {
    /// Makes the provider refuse `destination` and starts the requests.
    pub fn begin(stand: &mut Stand, destination: Destination) {
        match destination {
            Destination::Country => stand.gateway.refuse(Some(COUNTRY)),
            Destination::Domain(reply) => stand.relay.refuse(Some((DOMAIN, reply))),
        }
        let (target, others) = (stand.target(), stand.others.clone());
        let task = tokio::spawn(ask(target, destination, others));
        stand.strangers = Some(Self(task));
    }

    /// Ends both the refusals and the requests.
    pub fn end(stand: &mut Stand) {
        stand.strangers = None;
        stand.gateway.refuse(None);
        stand.relay.refuse(None);
    }
}

async fn ask(target: Target, destination: Destination, others: Arc<AtomicUsize>) {
    let http = Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(5))
        .build()
        .expect("a client");
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let (channel, to) = match destination {
            Destination::Country => ("sms", format!("{COUNTRY}51{:06}", number % 1_000_000)),
            Destination::Domain(_) => ("email", format!("stranger{number}@{DOMAIN}")),
        };
        // Count before the answer: a request whose answer is lost may have been accepted.
        others.fetch_add(1, Ordering::SeqCst);
        let url = format!("{}/v1/verifications", target.issuer);
        let body = json!({ "channel": channel, "to": to });
        let _ = http
            .post(url)
            .bearer_auth(&target.key)
            .json(&body)
            .send()
            .await;
    }
}
