//! Delivery receipts: JSON to the message's callback URL, signed with HMAC-SHA-256 over
//! `<timestamp>.<body>`, with scripted faults. They go to loopback only, unless the configuration
//! allows other hosts.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;
use tokio::time::sleep;
use url::{Host, Url};

use crate::world::{SimulatedMessage, World};

/// Retries of a receipt that the receiver did not accept, and the delay before the first one.
const TRIES: u32 = 3;
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// Sends the receipts of `message` as scripted. At most 1,024 messages have pending receipts.
/// Pending receipts outlive a simulator that is dropped, until their delay is over.
pub(crate) fn follow(world: &World, message: SimulatedMessage) {
    if message.callback.is_none() {
        return;
    }
    let Ok(permit) = world.receipts.clone().try_acquire_owned() else {
        world.count("receipts_skipped");
        return;
    };
    let world = world.clone();
    tokio::spawn(async move {
        let behaviour = world.sms().receipts;
        if world.happens(behaviour.lost) {
            world.count("receipts_lost");
            return;
        }
        sleep(Duration::from_millis(behaviour.delay_ms)).await;
        if world.happens(behaviour.late) {
            sleep(Duration::from_millis(behaviour.late_ms)).await;
        }
        let (last, opposite) = if world.happens(behaviour.failed) {
            ("failed", "delivered")
        } else {
            ("delivered", "failed")
        };
        if world.happens(behaviour.forged) {
            send(&world, &message, opposite, true).await;
        }
        let order = if world.happens(behaviour.reordered) {
            [last, "sent"]
        } else {
            ["sent", last]
        };
        for status in order {
            send(&world, &message, status, false).await;
        }
        if world.happens(behaviour.duplicate) {
            send(&world, &message, last, false).await;
        }
        drop(permit);
    });
}

#[expect(
    clippy::disallowed_methods,
    reason = "a peer of the pipeline, with a clock of its own"
)]
fn unix_seconds() -> Option<u64> {
    Some(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// Sends one receipt and returns the response status, or `None` without a response.
pub(crate) async fn send(
    world: &World,
    message: &SimulatedMessage,
    status: &str,
    forged: bool,
) -> Option<u16> {
    let behaviour = world.sms();
    let callback = message.callback.as_deref()?;
    let is_loopback = match Url::parse(callback).ok()?.host()? {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    };
    if !is_loopback && !behaviour.allow_remote_callbacks {
        world.count("receipts_refused");
        return None;
    }
    let now = unix_seconds()?;
    let error = (status == "failed").then_some("E17");
    let body = json!({
        "id": message.id, "reference": message.reference, "status": status, "error": error, "to": message.to,
    })
    .to_string();
    let key = if forged {
        "not-the-secret"
    } else {
        &behaviour.secret
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).ok()?;
    mac.update(format!("{now}.{body}").as_bytes());
    let signature = HEXLOWER.encode(&mac.finalize().into_bytes());
    let mut wait = FIRST_WAIT;
    for _ in 0..=TRIES {
        let request = world
            .client
            .post(callback)
            .header("content-type", "application/json")
            .header("x-simulator-timestamp", now)
            .header("x-simulator-signature", &signature)
            .body(body.clone());
        let answer = request.send().await.map(|answer| answer.status().as_u16());
        match answer {
            Ok(status) if status != 429 && status < 500 => {
                world.count(if forged {
                    "receipts_forged"
                } else {
                    "receipts_sent"
                });
                return Some(status);
            }
            _ => sleep(wait).await,
        }
        wait *= 2;
    }
    world.count("receipts_given_up");
    None
}
