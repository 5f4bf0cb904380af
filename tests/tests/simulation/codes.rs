//! Code state over the reference model of the stores' conformance suite. Counts comparisons,
//! approvals and guesses separately, and compares every check with these counts.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use watchword_core::{
    CheckVerdict, DeliveryId, GuessBudget, ServiceName, SubjectTag, Timestamp, VerificationId,
    VerificationStatus,
};
use watchword_verifier::store::{
    CheckCommand, Checked, Inspected, OpenCommand, Opened, SealedCode, Sends, StepOf, StoreError,
    StoredVerification, VerificationStore,
};

use crate::history::{Node, Peer};
use crate::ledger::failed;
use crate::model::Model;
use crate::world::{STORE_PATIENCE, Seat, State};

const HOUR_MS: u64 = 3_600_000;

/// The code state, and independent counts.
#[derive(Default)]
pub struct CodeState {
    model: Model,
    /// The time until which each message may be handed over.
    pub deadlines: HashMap<DeliveryId, Timestamp>,
    /// Messages that a fallback step requested.
    pub by_step: HashSet<DeliveryId>,
    pub tallies: HashMap<VerificationId, Tally>,
    /// Wrong guesses of each subject.
    wrong_at: HashMap<String, Vec<Timestamp>>,
}

/// The checks of one verification.
#[derive(Debug, Default)]
pub struct Tally {
    pub max_checks: u8,
    pub compared: u32,
    approved: u32,
    canceled: bool,
    /// True time from which on no code may be right.
    ends_at: Option<Timestamp>,
}

pub struct SimCodes(pub Seat);

impl SimCodes {
    async fn call<T: Send>(
        &self,
        effect: impl FnOnce(&mut State, Node) -> T + Send,
    ) -> Result<T, StoreError> {
        let node = self.0.node;
        let called = self.0.call(Peer::Codes, STORE_PATIENCE, |state| {
            // The clock of the store is right.
            state.codes.model.server = Some(state.now());
            effect(state, node)
        });
        Ok(called.await.map_err(failed)?)
    }
}

/// Records a message that is to be sent.
fn sent(state: &mut State, node: Node, opened: &Opened, by_step: bool) {
    if let Opened::Send(sent) = opened {
        let id = DeliveryId::new(sent.verification.id.clone(), sent.verification.sends);
        let name = state.name_of(&id);
        state.say(node, || format!("is to send {name}"));
        let codes = &mut state.codes;
        codes
            .deadlines
            .insert(id.clone(), sent.verification.expires_at);
        if by_step {
            codes.by_step.insert(id);
        }
    }
}

fn check(state: &mut State, node: Node, command: CheckCommand, budget: GuessBudget) -> Checked {
    let (id, now) = (command.id.clone(), command.now.max(state.now()));
    let checked = state.codes.model.check(command, budget);
    let checked = checked.expect("one ring of keys for all");
    let name = state.name(&id);
    let (verdict, repeated) = (checked.verdict, checked.repeated);
    state.say(node, || {
        let again = if repeated { ", again" } else { "" };
        format!("checks {name}: {verdict:?}{again}")
    });
    if repeated || verdict == CheckVerdict::Refused {
        return checked;
    }
    let wrong_at = state.codes.wrong_at.entry(id.tag().to_owned()).or_default();
    let recent = wrong_at.iter().filter(|at| at.plus_millis(HOUR_MS) > now);
    let is_locked = recent.count() >= budget.per_hour as usize;
    // An approval gives no guess back.
    if verdict != CheckVerdict::Approved {
        wrong_at.push(now);
    }
    let true_now = state.now();
    let tally = state.codes.tallies.entry(id).or_default();
    tally.compared += 1;
    tally.approved += u32::from(verdict == CheckVerdict::Approved);
    let (too_many, twice) = (
        tally.compared > u32::from(tally.max_checks),
        tally.approved > 1,
    );
    let withdrawn = tally.canceled;
    let late = tally.ends_at.is_some_and(|end| true_now >= end);
    if is_locked {
        state.broken(format!(
            "{name} compares nothing while its subject may not guess"
        ));
    }
    if too_many {
        state.broken(format!(
            "{name} compares at most as many codes as its policy allows"
        ));
    }
    if twice {
        state.broken(format!("{name} is approved once"));
    }
    if withdrawn {
        state.broken(format!("{name} was withdrawn and compares nothing"));
    }
    if late {
        state.broken(format!(
            "{name} compares nothing past its life in true time, whatever clocks say"
        ));
    }
    checked
}

#[async_trait]
impl VerificationStore for SimCodes {
    async fn open(&self, command: OpenCommand) -> Result<Opened, StoreError> {
        self.call(|state, node| {
            let (id, max_checks) = (command.id.clone(), command.policy.max_checks);
            let (over, lifetime_ms) = (command.over.clone(), command.policy.lifetime_ms);
            let opened = state.codes.model.open(command);
            if let Opened::Send(new) = &opened
                && new.is_new
            {
                let tally = Tally {
                    max_checks,
                    ends_at: Some(state.now().plus_millis(lifetime_ms)),
                    ..Tally::default()
                };
                if let (true, Some(over)) = (new.withdrew, over) {
                    let name = state.name(&over);
                    state.say(node, || format!("withdraws {name} for other content"));
                    state.codes.tallies.entry(over).or_default().canceled = true;
                }
                state.codes.tallies.insert(id, tally);
            }
            sent(state, node, &opened, false);
            opened
        })
        .await
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
        self.call(|state, node| {
            let opened = state
                .codes
                .model
                .resend(id, service, next, steps, budget, now);
            if let Some(opened) = &opened {
                sent(state, node, opened, false);
            }
            opened
        })
        .await
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
        self.call(|state, node| {
            let model = &mut state.codes.model;
            let opened = model.step(id, service, step, next, budget, now);
            if let Some(opened) = &opened {
                sent(state, node, opened, true);
            }
            opened
        })
        .await
    }

    async fn confirm(&self, id: &VerificationId, send: u8) -> Result<bool, StoreError> {
        self.call(|state, _| state.codes.model.confirm(id, send))
            .await
    }

    async fn refuse(&self, _id: &VerificationId, _: u8, _: &str) -> Result<(), StoreError> {
        self.call(|_, _| ()).await
    }

    async fn check(
        &self,
        command: CheckCommand,
        budget: GuessBudget,
    ) -> Result<Checked, StoreError> {
        self.call(|state, node| check(state, node, command, budget))
            .await
    }

    async fn cancel(
        &self,
        id: &VerificationId,
        service: &ServiceName,
        now: Timestamp,
    ) -> Result<Option<StoredVerification>, StoreError> {
        self.call(|state, _| {
            let canceled = state.codes.model.cancel(id, service, now);
            let status = canceled.as_ref().map(|canceled| canceled.status);
            if status == Some(VerificationStatus::Canceled) {
                state.codes.tallies.entry(id.clone()).or_default().canceled = true;
            }
            canceled
        })
        .await
    }

    async fn get(
        &self,
        id: &VerificationId,
        service: &ServiceName,
        now: Timestamp,
    ) -> Result<Option<StoredVerification>, StoreError> {
        self.call(|state, _| state.codes.model.get(id, service, now))
            .await
    }

    async fn sends(
        &self,
        _cursor: Option<String>,
        _limit: usize,
    ) -> Result<(Vec<Sends>, Option<String>), StoreError> {
        Ok((Vec::new(), None))
    }

    async fn inspect(
        &self,
        _id: &VerificationId,
        _now: Timestamp,
    ) -> Result<Option<Inspected>, StoreError> {
        Ok(None)
    }

    async fn list(
        &self,
        _subject: Option<SubjectTag>,
        _cursor: Option<String>,
        _limit: usize,
        _now: Timestamp,
    ) -> Result<(Vec<Inspected>, Option<String>), StoreError> {
        Ok((Vec::new(), None))
    }

    async fn locked_until(
        &self,
        _tag: SubjectTag,
        _budget: GuessBudget,
        _now: Timestamp,
    ) -> Result<Option<Timestamp>, StoreError> {
        Ok(None)
    }

    async fn forget_guesses(&self, tag: SubjectTag) -> Result<bool, StoreError> {
        self.call(|state, _| {
            state.codes.wrong_at.remove(&tag.to_string());
            state.codes.model.forget_guesses(&tag.to_string())
        })
        .await
    }
}
