//! Values shared by the operations. None is random, so that each run does the same work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use watchword_core::{
    Channel, DeliveryId, Entropy, EntropyError, Key, KeyRing, Recipient, Sealer, ServiceName,
    Timestamp, Variables, VerificationId,
};
use watchword_delivery::{Dispatch, Sender};
use watchword_events::Order;

pub const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
pub const DEADLINE: Timestamp = NOW.plus_millis(300_000);

/// Weak random generator with a fixed seed (`SplitMix64`).
#[derive(Debug)]
pub struct Seeded(AtomicU64);

impl Seeded {
    pub const fn new() -> Self {
        Self(AtomicU64::new(1))
    }
}

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        for chunk in bytes.chunks_mut(8) {
            let mut z = self.0.fetch_add(STEP, Ordering::Relaxed);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

/// Returns two keys, as during a rotation.
pub fn keys() -> anyhow::Result<KeyRing> {
    let keys = vec![
        Key::new("k2".parse()?, [2; 32]),
        Key::new("k1".parse()?, [1; 32]),
    ];
    Ok(KeyRing::new(keys)?)
}

pub fn sealer() -> anyhow::Result<Sealer> {
    Ok(Sealer::new(keys()?, Arc::new(Seeded::new())))
}

pub fn service() -> anyhow::Result<ServiceName> {
    Ok("jira".parse()?)
}

pub fn verification_id() -> anyhow::Result<VerificationId> {
    Ok("mfzwkytbmjrgg3dfon2gs3thmvxgk4tb".parse()?)
}

pub fn delivery_id() -> anyhow::Result<DeliveryId> {
    Ok(DeliveryId::new(verification_id()?, 1))
}

pub fn recipient(channel: Channel) -> anyhow::Result<Recipient> {
    let text = match channel {
        Channel::Sms => "+4915112345678",
        Channel::Email => "jane.doe+login@mail.example.org",
    };
    Ok(Recipient::parse(channel, text)?)
}

pub fn order(channel: Channel) -> anyhow::Result<Order> {
    Ok(Order {
        delivery_id: delivery_id()?,
        service: service()?,
        recipient: recipient(channel)?,
        code: "012345".parse()?,
        deadline: DEADLINE,
        locale: Some("de-AT".parse()?),
        variables: variables()?,
        next_step: None,
        details: None,
    })
}

pub fn dispatch(channel: Channel) -> anyhow::Result<Dispatch> {
    let order = order(channel)?;
    Ok(Dispatch {
        delivery_id: order.delivery_id,
        recipient: order.recipient,
        code: order.code,
        sender: Sender {
            app: "Example Jira".to_owned(),
            host: Some("jira.example.org".to_owned()),
        },
        locale: order.locale,
        variables: order.variables,
        remaining: Duration::from_secs(299),
    })
}

fn variables() -> anyhow::Result<Variables> {
    let values = BTreeMap::from([("amount".to_owned(), "12,50 €".to_owned())]);
    Ok(Variables::new(values)?)
}
