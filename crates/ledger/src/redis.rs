//! The ledger on Redis: one string per delivery, in the slot of its verification, with a
//! time-to-live. Each call is one script, or one `MGET` per slot.
//!
//! The usual path skips the scripts: the first claim of a delivery is a `SET NX`, and the
//! settlement replaces the string if it is unchanged since the claim.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use watchword_core::{DeliveryId, ProviderName, Timestamp};
use watchword_storage::redis::{Cmd, Value};
use watchword_storage::{Arg, Redis, Script};

use crate::codec::{
    channel_number, decode, encode, encode_attempt, outcome_number, receipt_number, trace_bytes,
};
use crate::record::DeliveryRecord;
use crate::settings::LedgerSettings;
use crate::state::{self, Delivery, Step, bounded, bounded_moment};
use crate::store::{Claim, ClaimRequest, Heard, LedgerError, LedgerStore, ReceiptNote, Settlement};

const CLAIM: &str = concat!(
    include_str!("lua/record.lua"),
    include_str!("lua/claim.lua")
);
const SETTLE: &str = concat!(
    include_str!("lua/record.lua"),
    include_str!("lua/settle.lua")
);

const RECEIPT: &str = concat!(
    include_str!("lua/record.lua"),
    include_str!("lua/receipt.lua")
);
const REOPEN: &str = concat!(
    include_str!("lua/record.lua"),
    include_str!("lua/reopen.lua")
);

/// Most claims that are remembered. Beyond it all are forgotten, and their settlements use the
/// script.
const MOST_CLAIMED: usize = 4_096;

/// The ledger on Redis.
#[derive(Debug)]
pub struct RedisLedger {
    redis: Redis,
    settings: LedgerSettings,
    /// Deliveries as this process wrote them when it claimed them.
    claimed: Mutex<HashMap<DeliveryId, Delivery>>,
    claim: Script,
    settle: Script,
    receipt: Script,
    reopen: Script,
}

impl RedisLedger {
    /// Creates a ledger over `redis`.
    pub fn new(redis: Redis, settings: LedgerSettings) -> Self {
        Self {
            redis,
            settings,
            claimed: Mutex::default(),
            claim: Script::new("ledger.claim", CLAIM),
            settle: Script::new("ledger.settle", SETTLE),
            receipt: Script::new("ledger.receipt", RECEIPT),
            reopen: Script::new("ledger.reopen", REOPEN),
        }
    }

    /// Bounds the retention: Redis rejects a time-to-live of 0, and values that overflow its clock.
    fn retention(&self) -> u64 {
        self.settings.retention_ms.clamp(1, 1 << 48)
    }

    fn claimed(&self) -> MutexGuard<'_, HashMap<DeliveryId, Delivery>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims a delivery that has no record. Returns `None` if it has one.
    async fn claim_first(&self, request: ClaimRequest) -> Result<Option<Claim>, LedgerError> {
        let id = request.id.clone();
        let Step { answer, write } = state::claim(None, request);
        let Some(delivery) = write else {
            return Ok(None);
        };
        let (key, first) = (key(&id), encode(&delivery));
        let retention_ms = self.settings.retention_ms;
        let stored = self.redis.insert(&key, &first, retention_ms).await?;
        if stored.is_some() {
            return Ok(None);
        }
        let mut claimed = self.claimed();
        if claimed.len() >= MOST_CLAIMED {
            claimed.clear();
        }
        claimed.insert(id, delivery);
        Ok(Some(answer))
    }

    /// Settles a delivery that is unchanged since this process claimed it. Returns `None` if it may
    /// have changed.
    async fn settle_claimed(
        &self,
        settlement: &Settlement,
    ) -> Result<Option<DeliveryRecord>, LedgerError> {
        let Some(held) = self.claimed().remove(&settlement.id) else {
            return Ok(None);
        };
        let before = encode(&held);
        let Some(Step {
            answer,
            write: Some(delivery),
        }) = state::settle(Some(held), settlement.clone())
        else {
            return Ok(None);
        };
        let after = encode(&delivery);
        let swapped = self.redis.swap(
            key(&settlement.id),
            &before,
            &after,
            Some(self.settings.retention_ms),
        );
        Ok(swapped.await?.then_some(answer))
    }

    async fn run(
        &self,
        script: &Script,
        id: &DeliveryId,
        args: &[Arg<'_>],
    ) -> Result<(Verdict, Delivery), LedgerError> {
        match self.ask(script, id, args).await? {
            (verdict, Some(delivery)) => Ok((verdict, delivery)),
            (_, None) => Err(LedgerError::Corrupt),
        }
    }

    async fn ask(
        &self,
        script: &Script,
        id: &DeliveryId,
        args: &[Arg<'_>],
    ) -> Result<(Verdict, Option<Delivery>), LedgerError> {
        let answer = self.redis.script(script, &[key(id)], args).await?;
        let Value::Array(parts) = answer else {
            return Err(LedgerError::Corrupt);
        };
        let word = parts.first().and_then(bytes).ok_or(LedgerError::Corrupt)?;
        let verdict = match word {
            b"yours" => Verdict::Yours { after_crash: false },
            b"yours_after_crash" => Verdict::Yours { after_crash: true },
            b"held" => Verdict::Held,
            b"ended" => Verdict::Ended,
            b"settled" => Verdict::Settled,
            b"counted" => Verdict::Counted,
            b"repeated" => Verdict::Repeated,
            b"early" => Verdict::Early,
            b"unknown" => Verdict::Unknown,
            b"fence_lost" => return Err(LedgerError::FenceLost),
            _ => return Err(LedgerError::Corrupt),
        };
        let stored = parts.get(1).and_then(bytes);
        let delivery = stored
            .map(|stored| decode(id.clone(), stored))
            .transpose()?;
        Ok((verdict, delivery))
    }
}

/// The verdict of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Yours { after_crash: bool },
    Held,
    Ended,
    Settled,
    Counted,
    Repeated,
    Early,
    Unknown,
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

/// Returns the key of a delivery. Its hash tag is that of the verification, which puts both in one
/// slot.
fn key(id: &DeliveryId) -> String {
    let verification = id.verification();
    format!(
        "ww:{{{}}}:d:{}-{}",
        verification.tag(),
        verification.own(),
        id.send()
    )
}

/// Returns the key that maps a provider's message id to its delivery. It has its own slot.
fn name_key(provider: &ProviderName, message_id: &str) -> String {
    format!("ww:m:{provider}:{message_id}")
}

#[async_trait]
impl LedgerStore for RedisLedger {
    async fn claim(&self, request: ClaimRequest) -> Result<Claim, LedgerError> {
        if let Some(claim) = self.claim_first(request.clone()).await? {
            return Ok(claim);
        }
        let trace = trace_bytes(request.trace_id);
        let args = [
            bounded_moment(request.now).as_millis().into(),
            self.retention().into(),
            channel_number(request.channel).into(),
            request.lease_ms.into(),
            trace[..].into(),
            request.service.as_str().into(),
        ];
        let (verdict, delivery) = self.run(&self.claim, &request.id, &args).await?;
        match verdict {
            Verdict::Yours { after_crash } => Ok(Claim::Yours {
                fence: delivery.fence,
                record: delivery.record,
                after_crash,
            }),
            Verdict::Held => Ok(Claim::Held {
                until: delivery.lease_until,
            }),
            Verdict::Ended => Ok(Claim::Ended(delivery.record)),
            _ => Err(LedgerError::Corrupt),
        }
    }

    async fn settle(&self, settlement: Settlement) -> Result<DeliveryRecord, LedgerError> {
        let settlement = bounded(settlement);
        if let Some(record) = self.settle_claimed(&settlement).await? {
            return Ok(record);
        }
        let attempt = settlement.attempt.as_ref().map(encode_attempt);
        let args = [
            settlement.now.as_millis().into(),
            self.retention().into(),
            channel_number(settlement.channel).into(),
            outcome_number(settlement.outcome).into(),
            settlement
                .fence
                .map_or(Arg::Bytes(b""), |fence| fence.0.into()),
            attempt.as_deref().unwrap_or_default().into(),
        ];
        let (_, delivery) = self.run(&self.settle, &settlement.id, &args).await?;
        Ok(delivery.record)
    }

    async fn receipt(&self, note: ReceiptNote) -> Result<Heard, LedgerError> {
        let args = [
            bounded_moment(note.now).as_millis().into(),
            self.retention().into(),
            receipt_number(note.state).into(),
            note.provider.as_str().into(),
            note.message_id.as_deref().unwrap_or_default().into(),
        ];
        match self.ask(&self.receipt, &note.id, &args).await? {
            (Verdict::Counted, Some(delivery)) => Ok(Heard::Counted(delivery.record)),
            (Verdict::Repeated, _) => Ok(Heard::Repeated),
            (Verdict::Early, _) => Ok(Heard::Early),
            (Verdict::Unknown, _) => Ok(Heard::Unknown),
            _ => Err(LedgerError::Corrupt),
        }
    }

    async fn reopen(&self, id: &DeliveryId, now: Timestamp) -> Result<bool, LedgerError> {
        let args = [
            bounded_moment(now).as_millis().into(),
            self.retention().into(),
        ];
        match self.ask(&self.reopen, id, &args).await? {
            (Verdict::Counted, _) => Ok(true),
            (Verdict::Unknown, _) => Ok(false),
            _ => Err(LedgerError::Corrupt),
        }
    }

    async fn name(
        &self,
        provider: &ProviderName,
        message_id: &str,
        id: &DeliveryId,
        _: Timestamp,
    ) -> Result<(), LedgerError> {
        let mut command = Cmd::new();
        command
            .arg("SET")
            .arg(name_key(provider, message_id))
            .arg(id.to_string())
            .arg("PX")
            .arg(self.retention());
        self.redis.command(&command).await?;
        Ok(())
    }

    async fn named(
        &self,
        provider: &ProviderName,
        message_id: &str,
    ) -> Result<Option<DeliveryId>, LedgerError> {
        let mut command = Cmd::new();
        command.arg("GET").arg(name_key(provider, message_id));
        let value = self.redis.command(&command).await?;
        let id = bytes(&value).map(|stored| {
            let text = std::str::from_utf8(stored).map_err(|_| LedgerError::Corrupt)?;
            text.parse().map_err(|_| LedgerError::Corrupt)
        });
        id.transpose()
    }

    async fn get(&self, ids: &[DeliveryId]) -> Result<Vec<DeliveryRecord>, LedgerError> {
        let mut records = Vec::new();
        // The deliveries of one subject share a slot, and so one command.
        for slot in ids.chunk_by(|one, next| one.verification().tag() == next.verification().tag())
        {
            let mut command = Cmd::new();
            command.arg("MGET");
            for id in slot {
                command.arg(key(id));
            }
            let Value::Array(values) = self.redis.command(&command).await? else {
                return Err(LedgerError::Corrupt);
            };
            for (id, value) in slot.iter().zip(&values) {
                if let Some(stored) = bytes(value) {
                    records.push(decode(id.clone(), stored)?.record);
                }
            }
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_carries_the_tag_of_the_verification() {
        let id = format!("{}{}-7", "a".repeat(16), "b".repeat(16));
        assert_eq!(
            key(&id.parse().unwrap()),
            "ww:{aaaaaaaaaaaaaaaa}:d:bbbbbbbbbbbbbbbb-7"
        );
    }
}
