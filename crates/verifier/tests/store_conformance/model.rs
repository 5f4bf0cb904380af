//! The reference model: core's state machine on plain maps. The simulation uses it as well, so keep
//! it simple.

use std::collections::HashMap;

use watchword_core::{
    CheckId, CheckVerdict, GuessBudget, GuessLog, Pending, Sending, ServiceName, SteadyTime,
    Timestamp, VerificationId, VerificationStatus as Status,
};
use watchword_verifier::store::{
    Approval, CheckCommand, Checked, Digest, Expected, OpenCommand, Opened, SealedCode, Sent,
    SlotKey, StepOf, StoredVerification,
};

/// How long an ended verification is known past its deadline.
const AFTERLIFE_MS: u64 = 3_600_000;

/// The expected code state.
#[derive(Default)]
pub struct Model {
    verifications: HashMap<VerificationId, Entry>,
    slots: HashMap<SlotKey, VerificationId>,
    guesses: HashMap<String, GuessLog>,
    /// The steady clock of a store that has one, and the machine's time since boot.
    pub steady: Option<(SteadyTime, Timestamp)>,
    /// The epoch at whose start guess times were limited.
    limited_in: u32,
    /// The time of the store's own clock, if it has one that the model's caller knows.
    pub server: Option<Timestamp>,
}

struct Entry {
    order: OpenCommand,
    pending: Pending,
    status: Status,
    last_step: u8,
    /// The epoch in which it was opened, and the current one.
    epochs: (u32, u32),
    /// The time of opening by the store's own clock, and that clock's current time.
    server: Option<(Timestamp, Timestamp)>,
    answers: Vec<(CheckId, Expected, Vec<Digest>, CheckVerdict)>,
}

const REFUSED: Checked = Checked {
    verdict: CheckVerdict::Refused,
    repeated: false,
    approval: None,
};

impl Entry {
    fn status_at(&self, now: Timestamp) -> Status {
        match self.status {
            Status::Pending
                if !self.is_live(now) || self.has_lived() || self.epochs.0 < self.epochs.1 =>
            {
                Status::Expired
            }
            status => status,
        }
    }

    /// A store with its own clock uses only that one to decide whether the clock was corrected
    /// since.
    fn is_live(&self, now: Timestamp) -> bool {
        let Some((begun, server)) = self.server else {
            return self.pending.is_live(now);
        };
        let opened = Pending {
            opened_at: begun,
            ..self.pending
        };
        opened.is_live(server) && now < self.pending.expires_at
    }

    /// Returns whether the lifetime is over by the store's own clock, whatever the issuer's clock
    /// said.
    fn has_lived(&self) -> bool {
        let lifetime_ms = self.order.policy.lifetime_ms;
        (self.server).is_some_and(|(begun, now)| now >= begun.plus_millis(lifetime_ms))
    }

    fn seen(&self, now: Timestamp) -> StoredVerification {
        StoredVerification {
            id: self.order.id.clone(),
            service: self.order.service.clone(),
            status: self.status_at(now),
            channel: self.order.channel,
            purpose: self.order.purpose.clone(),
            masked_to: self.order.masked_to.clone(),
            opened_at: self.order.now,
            expires_at: self.pending.expires_at,
            resend_after: self.pending.resend_after(now),
            sends: self.pending.sends,
            checks_left: self.pending.checks_left,
            awaits_step: self.pending.sends < self.last_step,
        }
    }

    fn sent(&self, now: Timestamp, is_new: bool, follows_approval: bool) -> Sent {
        Sent {
            verification: self.seen(now),
            is_new,
            withdrew: false,
            follows_approval,
            sealed_code: self.order.code.sealed.clone(),
            code_key_id: self.order.code.sealing_key_id.clone(),
            sealed_order: self.order.sealed_order.clone(),
            order_key_id: self.order.sealing_key_id.clone(),
        }
    }

    /// A request for a message, which starts a fallback of `steps`.
    fn send(&mut self, next: Option<SealedCode>, now: Timestamp, steps: u8) -> Opened {
        let asked = self.pending.send(now);
        let before = self.pending.sends;
        let opened = (self.sending(asked, next, now))
            .unwrap_or_else(|| unreachable!("only steps are superseded"));
        if self.pending.sends == before {
            return opened;
        }
        self.plan(steps);
        Opened::Send(self.sent(now, false, false))
    }

    fn plan(&mut self, steps: u8) {
        self.last_step = (self.pending.sends + steps).min(self.order.policy.max_sends);
    }

    fn fits(&self, expected: &Expected) -> bool {
        let (order, id) = (&self.order, &self.order.id);
        (expected.purpose.as_ref()).is_none_or(|one| *one == order.purpose)
            && expected.channel.is_none_or(|one| one == order.channel)
            && expected.recipient.is_none_or(|one| one == order.recipient)
            && expected.variables.is_none_or(|one| one == order.variables)
            && (expected.subject).is_none_or(|one| one.to_string() == id.tag())
    }

    fn approval(&self) -> Approval {
        Approval {
            channel: self.order.channel,
            purpose: self.order.purpose.clone(),
            masked_to: self.order.masked_to.clone(),
        }
    }

    fn sending(
        &mut self,
        (pending, sending): (Pending, Sending),
        next: Option<SealedCode>,
        now: Timestamp,
    ) -> Option<Opened> {
        match (sending, next) {
            (Sending::Repeat | Sending::Further { rotate: false }, _) => {}
            (Sending::Cooling, _) => return Some(Opened::Cooling(self.seen(now))),
            (Sending::Exhausted, _) => return Some(Opened::Exhausted(self.seen(now))),
            (Sending::Further { rotate: true }, None) => {
                return Some(Opened::NeedsCode(self.sent(now, false, false)));
            }
            (Sending::Further { rotate: true }, Some(code)) => self.order.code = code,
            (Sending::Superseded, _) => return None,
        }
        self.pending = pending;
        Some(Opened::Send(self.sent(now, false, false)))
    }
}

impl Model {
    fn locked(
        &self,
        id: &VerificationId,
        budget: GuessBudget,
        now: Timestamp,
    ) -> Option<Timestamp> {
        self.guesses.get(id.tag())?.locked_until(budget, now)
    }

    fn find(
        &mut self,
        id: &VerificationId,
        service: &ServiceName,
        now: Timestamp,
    ) -> Option<&mut Entry> {
        let epoch = self.epoch();
        let entry = self.verifications.get_mut(id)?;
        entry.epochs.1 = epoch;
        if let (Some((_, seen)), Some(server)) = (&mut entry.server, self.server) {
            *seen = server;
        }
        let known = now < entry.pending.expires_at.plus_millis(AFTERLIFE_MS);
        (known && entry.order.service == *service).then_some(entry)
    }

    fn epoch(&self) -> u32 {
        self.steady.map_or(0, |(steady, _)| steady.epoch)
    }

    fn read_at(&mut self, now: Timestamp) -> Timestamp {
        let now = self.server.map_or(now, |server| server.max(now));
        let Some((steady, uptime)) = &mut self.steady else {
            return now;
        };
        // The callers' clock is the machine's wall clock.
        *steady = steady.next(now, *uptime);
        steady.now
    }

    fn write_at(&mut self, now: Timestamp) -> Timestamp {
        let now = self.read_at(now);
        if self.limited_in < self.epoch() {
            self.limited_in = self.epoch();
            let times = self.guesses.values_mut().flat_map(|log| &mut log.wrong_at);
            times.for_each(|at| *at = now.min(*at));
        }
        now
    }

    pub fn open(&mut self, mut order: OpenCommand) -> Opened {
        let now = self.write_at(order.now);
        order.now = now;
        if let Some(until) = self.locked(&order.id, order.budget, now) {
            return Opened::Locked(until);
        }
        let latest = self.slots.get(&order.slot).cloned();
        let is_named = latest.is_some() && order.over == latest;
        let latest = latest.and_then(|id| self.find(&id, &order.service, now));
        let (mut follows, mut withdrew) = (false, false);
        if let Some(entry) = latest {
            let status = entry.status_at(now);
            follows = status == Status::Approved;
            if status == Status::Pending {
                if entry.order.variables != order.variables {
                    if !is_named {
                        return Opened::OtherContent(entry.seen(now));
                    }
                    entry.status = Status::Canceled;
                    withdrew = true;
                } else if entry.order.details == order.details {
                    return entry.send(None, now, 0);
                } else if is_named {
                    entry.order.details = order.details;
                    entry.order.sealed_order = order.sealed_order;
                    entry.order.sealing_key_id = order.sealing_key_id;
                    entry.plan(order.steps);
                    return entry.send(None, now, order.steps);
                } else {
                    return Opened::OtherDetails(entry.seen(now));
                }
            }
        }
        let entry = Entry {
            pending: Pending::open(order.policy, now),
            status: Status::Pending,
            last_step: (order.steps + 1).min(order.policy.max_sends),
            epochs: (self.epoch(), self.epoch()),
            server: self.server.map(|server| (server, server)),
            answers: Vec::new(),
            order,
        };
        let opened = Opened::Send(Sent {
            withdrew,
            ..entry.sent(now, true, follows)
        });
        let id = entry.order.id.clone();
        self.slots.insert(entry.order.slot.clone(), id.clone());
        self.verifications.insert(id, entry);
        opened
    }

    pub fn resend(
        &mut self,
        id: &VerificationId,
        service: &ServiceName,
        next: Option<SealedCode>,
        steps: u8,
        budget: GuessBudget,
        now: Timestamp,
    ) -> Option<Opened> {
        let now = self.write_at(now);
        let locked = self.locked(id, budget, now);
        let entry = self.find(id, service, now)?;
        if entry.status_at(now) != Status::Pending {
            return None;
        }
        Some(locked.map_or_else(|| entry.send(next, now, steps), Opened::Locked))
    }

    pub fn step(
        &mut self,
        id: &VerificationId,
        service: &ServiceName,
        step: StepOf,
        next: Option<SealedCode>,
        budget: GuessBudget,
        now: Timestamp,
    ) -> Option<Opened> {
        let now = self.write_at(now);
        let locked = self.locked(id, budget, now);
        let entry = self.find(id, service, now)?;
        let is_replaced = step.details.is_some() && step.details != entry.order.details;
        if is_replaced || entry.status_at(now) != Status::Pending {
            return None;
        }
        if let Some(until) = locked {
            return Some(Opened::Locked(until));
        }
        let asked = entry.pending.step(step.after, now);
        entry.sending(asked, next, now)
    }

    pub fn confirm(&mut self, id: &VerificationId, send: u8) -> bool {
        let Some(entry) = self.verifications.get_mut(id) else {
            return false;
        };
        let after = entry.pending.confirm(send);
        let counts = matches!(entry.status, Status::Pending | Status::Approved);
        let is_new = counts && after != entry.pending;
        if is_new {
            entry.pending = after;
        }
        is_new
    }

    /// Returns `None` if the code is stored under a key that is not among those of the check.
    pub fn check(&mut self, command: CheckCommand, budget: GuessBudget) -> Option<Checked> {
        let now = self.write_at(command.now);
        let locked = self.locked(&command.id, budget, now).is_some();
        let Some(entry) = self.find(&command.id, &command.service, now) else {
            return Some(REFUSED);
        };
        let earlier = entry
            .answers
            .iter()
            .find(|answer| answer.0 == command.check_id);
        if let Some((_, expected, candidates, verdict)) = earlier {
            let same = candidates
                .iter()
                .any(|typed| command.candidates.contains(typed));
            if !same || *expected != command.expected {
                return Some(REFUSED);
            }
            return Some(Checked {
                verdict: *verdict,
                repeated: true,
                approval: (*verdict == CheckVerdict::Approved).then(|| entry.approval()),
            });
        }
        if locked || entry.status_at(now) != Status::Pending {
            return Some(REFUSED);
        }
        let stored = &entry.order.code.digest;
        if command
            .candidates
            .iter()
            .all(|typed| typed.key_id != stored.key_id)
        {
            return None;
        }
        let fits = entry.fits(&command.expected);
        let matched = fits && command.candidates.contains(&entry.order.code.digest);
        // It is live, whatever the caller's clock says.
        let now_or_later = now.max(entry.pending.opened_at);
        let verdict = match entry.pending.check(matched, now_or_later) {
            Ok(next) => {
                entry.pending = next;
                CheckVerdict::Wrong
            }
            Err(Status::Approved) => {
                entry.status = Status::Approved;
                CheckVerdict::Approved
            }
            Err(status) => {
                entry.status = status;
                entry.pending.checks_left = 0;
                CheckVerdict::LastWrong
            }
        };
        entry.answers.push((
            command.check_id,
            command.expected,
            command.candidates,
            verdict,
        ));
        let (recipient, is_right) = (entry.order.recipient, verdict == CheckVerdict::Approved);
        let approval = is_right.then(|| entry.approval());
        let log = self.guesses.remove(command.id.tag()).unwrap_or_default();
        let log = if is_right {
            log.with_right(recipient, now)
        } else {
            log.with_wrong(recipient, now)
        };
        self.guesses.insert(command.id.tag().to_owned(), log);
        Some(Checked {
            verdict,
            repeated: false,
            approval,
        })
    }

    pub fn cancel(
        &mut self,
        id: &VerificationId,
        service: &ServiceName,
        now: Timestamp,
    ) -> Option<StoredVerification> {
        let now = self.write_at(now);
        let entry = self.find(id, service, now)?;
        if entry.status_at(now) == Status::Pending {
            entry.status = Status::Canceled;
        }
        Some(entry.seen(now))
    }

    pub fn get(
        &mut self,
        id: &VerificationId,
        service: &ServiceName,
        now: Timestamp,
    ) -> Option<StoredVerification> {
        let now = self.read_at(now);
        self.find(id, service, now).map(|entry| entry.seen(now))
    }

    pub fn forget_guesses(&mut self, tag: &str) -> bool {
        self.guesses.remove(tag).is_some()
    }
}
