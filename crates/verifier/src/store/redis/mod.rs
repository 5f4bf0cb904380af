//! Code state on Redis: one script a decision, all keys of a subject in one slot. The scripts say
//! what core's state machine says; a shared suite holds them to it. Refuses to run a script
//! twice.
//!
//! | key | type | holds |
//! |---|---|---|
//! | `ww:{tag}:v:<own>` | hash | a verification, and `c:<check id>` for each answer given |
//! | `ww:{tag}:s:<slot>` | string | the own part of the slot's latest verification |
//! | `ww:{tag}:g` | hash | wrong guesses: `w` their times, `n` how many in a row |

mod reply;

use async_trait::async_trait;
use watchword_core::{GuessBudget, ResendCode, ServiceName, Timestamp, VerificationId};
use watchword_storage::{Redis, Script};

use super::model::{
    CheckCommand, Checked, OpenCommand, Opened, SealedCode, StoredVerification, TagKey,
};
use super::{AFTERLIFE_MS, StoreError, VerificationStore, fingerprints};

/// How long wrong guesses in a row are remembered after the last one: 90 days. A subject locked
/// for good comes back after that, and still has its hour and its day.
const GUESSES_KEPT_MS: u64 = 90 * 24 * 3_600_000;

/// A script with the part that all share in front of it.
macro_rules! script {
    ($name:literal) => {
        Script::new(
            concat!("verifier.", $name),
            concat!(
                include_str!("state.lua"),
                include_str!(concat!($name, ".lua"))
            ),
        )
    };
}

/// Code state on Redis.
#[derive(Debug)]
pub struct RedisVerifications {
    redis: Redis,
    open: Script,
    resend: Script,
    confirm: Script,
    check: Script,
    cancel: Script,
}

impl RedisVerifications {
    /// Code state over this link.
    pub fn new(redis: Redis) -> Self {
        Self {
            redis,
            open: script!("open"),
            resend: script!("resend"),
            confirm: script!("confirm"),
            check: script!("check"),
            cancel: script!("cancel"),
        }
    }
}

#[async_trait]
impl VerificationStore for RedisVerifications {
    async fn open(&self, command: OpenCommand) -> Result<Opened, StoreError> {
        let expires_at = command.now.plus_millis(command.policy.lifetime_ms);
        let keys = [
            verification_key(&command.id),
            slot_key(&command),
            guesses_key(command.id.tag()),
        ];
        let mut args = moment_and_budget(command.now, command.budget);
        args.extend([
            bytes(command.id.own()),
            millis(expires_at.plus_millis(AFTERLIFE_MS)),
            bytes(format!("ww:{{{}}}:v:", command.id.tag())),
        ]);
        args.extend(fields(&command, expires_at));
        let reply = self.redis.script(&self.open, &keys, args).await?;
        reply::opened(reply, &command.id, command.now)?.ok_or(StoreError::Corrupt)
    }

    async fn resend(
        &self,
        id: &VerificationId,
        service: &ServiceName,
        next: Option<SealedCode>,
        budget: GuessBudget,
        now: Timestamp,
    ) -> Result<Option<Opened>, StoreError> {
        let mut args = moment_and_budget(now, budget);
        args.push(bytes(service.as_str()));
        if let Some(code) = next {
            args.extend(
                [
                    code.digest.key_id,
                    code.digest.hex,
                    code.sealing_key_id,
                    code.sealed,
                ]
                .map(bytes),
            );
        }
        let keys = [verification_key(id), guesses_key(id.tag())];
        reply::opened(self.redis.script(&self.resend, &keys, args).await?, id, now)
    }

    async fn confirm(&self, id: &VerificationId, send: u8) -> Result<(), StoreError> {
        self.redis
            .script(
                &self.confirm,
                &[verification_key(id)],
                vec![bytes(send.to_string())],
            )
            .await?;
        Ok(())
    }

    async fn check(
        &self,
        command: CheckCommand,
        budget: GuessBudget,
    ) -> Result<Checked, StoreError> {
        let mut args = moment_and_budget(command.now, budget);
        args.extend([
            bytes(command.service.as_str()),
            bytes(
                command
                    .purpose
                    .as_ref()
                    .map_or("", |purpose| purpose.as_str()),
            ),
            bytes(command.check_id.as_str()),
            millis(command.now.plus_millis(GUESSES_KEPT_MS)),
            bytes(fingerprints(&command.candidates).join(",")),
        ]);
        args.extend(
            command
                .candidates
                .iter()
                .flat_map(|digest| [bytes(&*digest.key_id), bytes(&*digest.hex)]),
        );
        let keys = [verification_key(&command.id), guesses_key(command.id.tag())];
        reply::checked(&self.redis.script(&self.check, &keys, args).await?)
    }

    async fn cancel(
        &self,
        id: &VerificationId,
        service: &ServiceName,
        now: Timestamp,
    ) -> Result<Option<StoredVerification>, StoreError> {
        let args = vec![millis(now), bytes(service.as_str())];
        reply::found(
            self.redis
                .script(&self.cancel, &[verification_key(id)], args)
                .await?,
            id,
            now,
        )
    }

    async fn get(
        &self,
        id: &VerificationId,
        service: &ServiceName,
        now: Timestamp,
    ) -> Result<Option<StoredVerification>, StoreError> {
        let mut command = watchword_storage::redis::cmd("HMGET");
        command.arg(verification_key(id)).arg(&reply::FIELDS[..]);
        let stored = reply::fields(self.redis.command(&command).await?, id, now)?;
        Ok(stored
            .map(|(verification, _)| verification)
            .filter(|verification| verification.service == *service))
    }

    async fn forget_guesses(&self, tag: TagKey) -> Result<(), StoreError> {
        let mut command = watchword_storage::redis::cmd("DEL");
        command.arg(guesses_key(&tag.to_string()));
        self.redis.command(&command).await?;
        Ok(())
    }
}

fn verification_key(id: &VerificationId) -> String {
    format!("ww:{{{}}}:v:{}", id.tag(), id.own())
}

fn slot_key(command: &OpenCommand) -> String {
    format!("ww:{{{}}}:s:{}", command.id.tag(), command.slot.0)
}

fn guesses_key(tag: &str) -> String {
    format!("ww:{{{tag}}}:g")
}

fn bytes(text: impl Into<String>) -> Vec<u8> {
    text.into().into_bytes()
}

fn millis(moment: Timestamp) -> Vec<u8> {
    bytes(moment.as_millis().to_string())
}

fn moment_and_budget(now: Timestamp, budget: GuessBudget) -> Vec<Vec<u8>> {
    let limits = [budget.per_hour, budget.per_day, budget.in_a_row];
    std::iter::once(millis(now))
        .chain(limits.map(|limit| bytes(limit.to_string())))
        .collect()
}

/// The fields of a new verification as name and value.
fn fields(command: &OpenCommand, expires_at: Timestamp) -> Vec<Vec<u8>> {
    let policy = command.policy;
    let code = &command.code;
    let pairs = [
        ("sv", command.service.to_string()),
        ("st", "pending".to_owned()),
        ("ch", command.channel.to_string()),
        ("pu", command.purpose.to_string()),
        ("mt", command.masked_to.clone()),
        ("oa", command.now.as_millis().to_string()),
        ("ex", expires_at.as_millis().to_string()),
        (
            "ra",
            command
                .now
                .plus_millis(policy.cooldown_ms)
                .as_millis()
                .to_string(),
        ),
        ("sn", "1".to_owned()),
        ("cl", policy.max_checks.to_string()),
        ("cf", "0".to_owned()),
        ("ms", policy.max_sends.to_string()),
        ("cd", policy.cooldown_ms.to_string()),
        (
            "ro",
            u8::from(policy.resend == ResendCode::Rotate).to_string(),
        ),
        ("ck", code.sealing_key_id.clone()),
        ("cs", code.sealed.clone()),
        ("ok", command.sealing_key_id.clone()),
        ("os", command.sealed_order.clone()),
        ("dk", code.digest.key_id.clone()),
        ("dg", code.digest.hex.clone()),
    ];
    pairs
        .into_iter()
        .flat_map(|(name, value)| [bytes(name), bytes(value)])
        .collect()
}
