//! Code state on Redis: one script for each decision, and all keys of a subject in one slot. The
//! scripts implement core's state machine; a suite that both stores share checks that. No script is
//! repeated automatically, because an attempt would be counted twice.
//!
//! | key | holds |
//! |---|---|
//! | `ww:{tag}:v:<own>` | a verification with the answers to its checks (see `state.lua`) |
//! | `ww:{tag}:s:<slot>` | the own part of the slot's latest verification |
//! | `ww:{tag}:r:<own>` | the send limit that refused a message of a verification, and the message's number |
//! | `ww:{tag}:g` | wrong guesses: how many in a row and at which recipients, and the times of the last day's |
//!
//! All values are strings. Sealed and random values are stored as bytes, not as base64 or
//! hexadecimal: a live verification takes less than 450 bytes, including its slot.

mod arguments;
mod reply;

use async_trait::async_trait;
use watchword_core::{
    CheckVerdict, GuessBudget, ServiceName, Timestamp, VerificationId, VerificationStatus,
};
use watchword_storage::{Arg, Redis, Script, StorageError};

use super::model::{
    CheckCommand, Checked, Inspected, OpenCommand, Opened, SealedCode, Sends, Sent, StepOf,
    StoredVerification, TagKey,
};
use super::{AFTERLIFE_MS, StoreError, VerificationStore};
use arguments::{
    CheckArguments, CodeArguments, millis, new_verification, now_and_budget, tag_bytes,
};

/// A refusal is kept as long as the longest life of a code and the time that it is remembered.
const REFUSAL_KEPT_MS: u64 = 600_000 + AFTERLIFE_MS;

/// Maximum rounds of an `open` while the slot's latest verification changes. It usually changes
/// once per lifetime.
const OPEN_ROUNDS: u32 = 4;

/// Builds a script from its header, the clock, an optional fast path, the shared functions and its
/// own code. The fast path comes before the shared functions, because loading them costs more than
/// most decisions.
macro_rules! script {
    // These scripts use neither the clock nor the shared part.
    (alone $name:literal) => {
        Script::new(
            concat!("verifier.", $name),
            concat!("#!lua\n", include_str!(concat!($name, ".lua"))),
        )
    };
    ($header:literal, $name:literal $(, $before:literal)?) => {
        Script::new(
            concat!("verifier.", $name),
            concat!(
                $header,
                "\n",
                include_str!("clock.lua"),
                $(include_str!($before),)?
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
    step: Script,
    confirm: Script,
    refuse: Script,
    check: Script,
    cancel: Script,
    get: Script,
    sends: Script,
    inspect: Script,
    locked: Script,
}

impl RedisVerifications {
    /// Creates the store on this link.
    pub fn new(redis: Redis) -> Self {
        Self {
            redis,
            open: script!("#!lua", "open", "open_first.lua"),
            resend: script!("#!lua", "resend"),
            step: script!("#!lua", "step"),
            confirm: script!(alone "confirm"),
            refuse: script!(alone "refuse"),
            check: script!("#!lua", "check", "check_first.lua"),
            cancel: script!("#!lua", "cancel"),
            get: script!("#!lua flags=no-writes", "get"),
            sends: script!("#!lua flags=no-writes", "sends"),
            inspect: script!("#!lua flags=no-writes", "inspect"),
            locked: script!("#!lua flags=no-writes", "locked"),
        }
    }
}

#[async_trait]
impl VerificationStore for RedisVerifications {
    async fn open(&self, command: OpenCommand) -> Result<Opened, StoreError> {
        let verification = new_verification(&command)?;
        let kept_ms = command.policy.lifetime_ms.saturating_add(AFTERLIFE_MS);
        let mut latest = command.over.clone();
        // Every key that a script touches must be declared. The first round may not know the slot's
        // latest verification; if there is one, the script writes nothing and returns its id.
        for _ in 0..OPEN_ROUNDS {
            let mut keys = vec![
                verification_key(&command.id),
                slot_key(&command),
                guesses_key(command.id.tag()),
            ];
            keys.extend(latest.as_ref().map(verification_key));
            let [now, per_hour, per_day, in_a_row] = now_and_budget(command.now, command.budget);
            let args = [
                now,
                per_hour,
                per_day,
                in_a_row,
                command.id.own().into(),
                kept_ms.into(),
                latest.as_ref().map_or("", VerificationId::own).into(),
                verification[..].into(),
                u8::from(latest.is_some() && latest == command.over).into(),
            ];
            let reply = self.redis.script(&self.open, &keys, &args).await?;
            match reply::opening(reply, &command.id)? {
                reply::Opening::New(new) => return Ok(Opened::Send(sent(command, &new))),
                reply::Opening::Decided(opened) => return Ok(*opened),
                reply::Opening::Latest(id) => latest = Some(id),
            }
        }
        Err(StorageError::Unavailable("the slot changes too often").into())
    }

    async fn resend(
        &self,
        id: &VerificationId,
        service: &ServiceName,
        next: Option<SealedCode>,
        steps: u8,
        budget: GuessBudget,
        now: Timestamp,
    ) -> Result<Option<Opened>, StoreError> {
        let code = next.as_ref().map(CodeArguments::of).transpose()?;
        let mut args = now_and_budget(now, budget).to_vec();
        args.extend([Arg::from(service.as_str()), steps.into()]);
        args.extend(code.iter().flat_map(CodeArguments::list));
        let keys = [verification_key(id), guesses_key(id.tag())];
        let reply = self.redis.script(&self.resend, &keys, &args).await?;
        reply::resent(reply, id)
    }

    async fn step(
        &self,
        id: &VerificationId,
        service: &ServiceName,
        step: StepOf,
        next: Option<SealedCode>,
        budget: GuessBudget,
        now: Timestamp,
    ) -> Result<Option<Opened>, StoreError> {
        let code = next.as_ref().map(CodeArguments::of).transpose()?;
        let mut args = now_and_budget(now, budget).to_vec();
        args.extend([
            Arg::from(service.as_str()),
            step.after.into(),
            tag_bytes(step.details.as_ref()).into(),
        ]);
        args.extend(code.iter().flat_map(CodeArguments::list));
        let keys = [verification_key(id), guesses_key(id.tag())];
        let reply = self.redis.script(&self.step, &keys, &args).await?;
        reply::resent(reply, id)
    }

    async fn confirm(&self, id: &VerificationId, send: u8) -> Result<bool, StoreError> {
        let reply = self
            .redis
            .script(&self.confirm, &[verification_key(id)], &[send.into()])
            .await?;
        reply::confirmed(reply)
    }

    async fn refuse(&self, id: &VerificationId, send: u8, limit: &str) -> Result<(), StoreError> {
        let keys = [verification_key(id), refusal_key(id)];
        let refusal = format!("{send}:{limit}");
        let args = [
            send.into(),
            Arg::from(refusal.as_str()),
            REFUSAL_KEPT_MS.into(),
        ];
        self.redis.script(&self.refuse, &keys, &args).await?;
        Ok(())
    }

    async fn check(
        &self,
        command: CheckCommand,
        budget: GuessBudget,
    ) -> Result<Checked, StoreError> {
        let keys = [verification_key(&command.id), guesses_key(command.id.tag())];
        let check = CheckArguments::of(&command)?;
        let link = self.redis.pinned()?;
        let reply = link.script(&self.check, &keys, &check.list(budget)).await?;
        let checked = reply::checked(reply)?;
        if checked.verdict == CheckVerdict::Approved {
            // Do not report an approval that a failover could lose, because the code would then be
            // valid again. The caller can repeat the check under its id.
            link.replicated().await?;
        }
        Ok(checked)
    }

    async fn cancel(
        &self,
        id: &VerificationId,
        service: &ServiceName,
        now: Timestamp,
    ) -> Result<Option<StoredVerification>, StoreError> {
        let args = [millis(now), service.as_str().into()];
        let reply = self
            .redis
            .script(&self.cancel, &[verification_key(id)], &args)
            .await?;
        reply::found(reply, id)
    }

    async fn get(
        &self,
        id: &VerificationId,
        service: &ServiceName,
        now: Timestamp,
    ) -> Result<Option<StoredVerification>, StoreError> {
        let args = [millis(now), service.as_str().into()];
        let reply = self
            .redis
            .script(&self.get, &[verification_key(id)], &args)
            .await?;
        reply::found(reply, id)
    }

    async fn sends(
        &self,
        cursor: Option<String>,
        limit: usize,
    ) -> Result<(Vec<Sends>, Option<String>), StoreError> {
        let scanned = self.redis.scan(cursor.as_deref(), "ww:{*}:v:*", limit);
        let (keys, next) = scanned.await?;
        let mut page = Vec::new();
        for id in keys.iter().filter_map(|key| id_of_key(key)) {
            let keys = [verification_key(&id)];
            let reply = self.redis.script(&self.sends, &keys, &[]).await?;
            page.extend(reply::sends(reply, id)?);
        }
        Ok((page, next))
    }

    async fn inspect(
        &self,
        id: &VerificationId,
        now: Timestamp,
    ) -> Result<Option<Inspected>, StoreError> {
        let keys = [verification_key(id), refusal_key(id)];
        let reply = self
            .redis
            .script(&self.inspect, &keys, &[millis(now)])
            .await?;
        reply::inspected(reply, id)
    }

    async fn list(
        &self,
        subject: Option<TagKey>,
        cursor: Option<String>,
        limit: usize,
        now: Timestamp,
    ) -> Result<(Vec<Inspected>, Option<String>), StoreError> {
        let tag = subject.map_or_else(|| "*".to_owned(), |tag| tag.to_string());
        let pattern = format!("ww:{{{tag}}}:v:*");
        let (keys, next) = self.redis.scan(cursor.as_deref(), &pattern, limit).await?;
        let mut page = Vec::new();
        for id in keys.iter().filter_map(|key| id_of_key(key)) {
            match self.inspect(&id, now).await {
                Ok(found) => page.extend(found),
                Err(StoreError::Corrupt) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((page, next))
    }

    async fn locked_until(
        &self,
        tag: TagKey,
        budget: GuessBudget,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        let keys = [guesses_key(&tag.to_string())];
        let args = now_and_budget(now, budget);
        let reply = self.redis.script(&self.locked, &keys, &args).await?;
        reply::locked(reply)
    }

    async fn forget_guesses(&self, tag: TagKey) -> Result<bool, StoreError> {
        let mut command = watchword_storage::redis::cmd("DEL");
        command.arg(guesses_key(&tag.to_string()));
        let deleted = self.redis.command(&command).await?;
        Ok(matches!(deleted, watchword_storage::redis::Value::Int(1..)))
    }
}

fn verification_key(id: &VerificationId) -> String {
    format!("ww:{{{}}}:v:{}", id.tag(), id.own())
}

fn refusal_key(id: &VerificationId) -> String {
    format!("ww:{{{}}}:r:{}", id.tag(), id.own())
}

/// Parses a key in the form of [`verification_key`].
fn id_of_key(key: &str) -> Option<VerificationId> {
    let (tag, own) = key.strip_prefix("ww:{")?.split_once("}:v:")?;
    format!("{tag}{own}").parse().ok()
}

/// Uses the first 80 bits of the slot's hash, which suffice to distinguish the slots of one
/// subject.
fn slot_key(command: &OpenCommand) -> String {
    let slot = command.slot.0.get(..20).unwrap_or(&command.slot.0);
    format!("ww:{{{}}}:s:{slot}", command.id.tag())
}

fn guesses_key(tag: &str) -> String {
    format!("ww:{{{tag}}}:g")
}

/// Returns the first message of the verification that `command` opened.
fn sent(command: OpenCommand, new: &reply::New) -> Sent {
    let policy = command.policy;
    Sent {
        verification: StoredVerification {
            id: command.id,
            service: command.service,
            status: VerificationStatus::Pending,
            channel: command.channel,
            purpose: command.purpose,
            masked_to: command.masked_to,
            opened_at: new.opened_at,
            expires_at: new.opened_at.plus_millis(policy.lifetime_ms),
            resend_after: new.opened_at.plus_millis(policy.cooldown_ms),
            sends: 1,
            checks_left: policy.max_checks,
            awaits_step: command.steps > 0 && policy.max_sends > 1,
        },
        is_new: true,
        withdrew: new.withdrew,
        follows_approval: new.follows_approval,
        sealed_code: command.code.sealed,
        code_key_id: command.code.sealing_key_id,
        sealed_order: command.sealed_order,
        order_key_id: command.sealing_key_id,
    }
}
