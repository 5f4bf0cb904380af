//! The ledger on Redis: one string a delivery, in the slot of its verification, with a time to
//! live. Each call is one script or one `MGET` a slot. Refuses to decide: the scripts do.

use async_trait::async_trait;
use watchword_core::DeliveryId;
use watchword_storage::redis::{Cmd, Value};
use watchword_storage::{Redis, Script};

use crate::codec::{channel_number, decode, encode_attempt, outcome_number};
use crate::record::DeliveryRecord;
use crate::settings::LedgerSettings;
use crate::state::{Delivery, bounded, bounded_moment};
use crate::store::{Claim, ClaimRequest, LedgerError, LedgerStore, Settlement};

const CLAIM: &str = concat!(
    include_str!("lua/record.lua"),
    include_str!("lua/claim.lua")
);
const SETTLE: &str = concat!(
    include_str!("lua/record.lua"),
    include_str!("lua/settle.lua")
);

/// The ledger on Redis.
#[derive(Debug)]
pub struct RedisLedger {
    redis: Redis,
    settings: LedgerSettings,
    claim: Script,
    settle: Script,
}

impl RedisLedger {
    /// A ledger over this connection.
    pub fn new(redis: Redis, settings: LedgerSettings) -> Self {
        Self {
            redis,
            settings,
            claim: Script::new("ledger.claim", CLAIM),
            settle: Script::new("ledger.settle", SETTLE),
        }
    }

    /// Redis refuses a time to live of nothing, and one beyond its clock.
    fn retention(&self) -> Vec<u8> {
        text(self.settings.retention_ms.clamp(1, 1 << 48))
    }

    async fn run(
        &self,
        script: &Script,
        id: &DeliveryId,
        args: Vec<Vec<u8>>,
    ) -> Result<(Verdict, Delivery), LedgerError> {
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
            b"fence_lost" => return Err(LedgerError::FenceLost),
            _ => return Err(LedgerError::Corrupt),
        };
        let stored = parts.get(1).and_then(bytes).ok_or(LedgerError::Corrupt)?;
        Ok((verdict, decode(id.clone(), stored)?))
    }
}

/// What a script decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Yours { after_crash: bool },
    Held,
    Ended,
    Settled,
}

#[expect(clippy::needless_pass_by_value, reason = "numbers are copied")]
fn text(number: impl ToString) -> Vec<u8> {
    number.to_string().into_bytes()
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

/// The key of a delivery: its verification's hash tag puts both in one slot (R53).
fn key(id: &DeliveryId) -> String {
    let verification = id.verification();
    format!(
        "ww:{{{}}}:d:{}-{}",
        verification.tag(),
        verification.own(),
        id.send()
    )
}

#[async_trait]
impl LedgerStore for RedisLedger {
    async fn claim(&self, request: ClaimRequest) -> Result<Claim, LedgerError> {
        let args = vec![
            text(bounded_moment(request.now).as_millis()),
            self.retention(),
            text(channel_number(request.channel)),
            text(request.lease_ms),
        ];
        let (verdict, delivery) = self.run(&self.claim, &request.id, args).await?;
        match verdict {
            Verdict::Yours { after_crash } => Ok(Claim::Yours {
                fence: delivery.fence,
                attempt_count: delivery.record.attempt_count,
                after_crash,
            }),
            Verdict::Held => Ok(Claim::Held {
                until: delivery.lease_until,
            }),
            Verdict::Ended => Ok(Claim::Ended(delivery.record)),
            Verdict::Settled => Err(LedgerError::Corrupt),
        }
    }

    async fn settle(&self, settlement: Settlement) -> Result<DeliveryRecord, LedgerError> {
        let settlement = bounded(settlement);
        let args = vec![
            text(settlement.now.as_millis()),
            self.retention(),
            text(channel_number(settlement.channel)),
            text(outcome_number(settlement.outcome)),
            settlement
                .fence
                .map(|fence| text(fence.0))
                .unwrap_or_default(),
            settlement
                .attempt
                .as_ref()
                .map(encode_attempt)
                .unwrap_or_default(),
        ];
        let (_, delivery) = self.run(&self.settle, &settlement.id, args).await?;
        Ok(delivery.record)
    }

    async fn get(&self, ids: &[DeliveryId]) -> Result<Vec<DeliveryRecord>, LedgerError> {
        let mut records = Vec::new();
        // One verification's deliveries share a slot, and so one command.
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
