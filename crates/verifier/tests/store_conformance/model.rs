//! The reference: core's state machine over plain maps. The simulation of the whole runs on it too.
//! Refuses to be clever.

use std::collections::HashMap;

use watchword_core::{
    CheckId, CheckVerdict, GuessBudget, GuessLog, Pending, Sending, ServiceName, Timestamp,
    VerificationId, VerificationStatus as Status,
};
use watchword_verifier::store::{
    CheckCommand, Checked, Digest, OpenCommand, Opened, SealedCode, Sent, SlotKey,
    StoredVerification,
};

/// How long an ended verification is known past its deadline.
const AFTERLIFE_MS: u64 = 3_600_000;

/// Code state as it should be.
#[derive(Default)]
pub struct Model {
    verifications: HashMap<VerificationId, Entry>,
    slots: HashMap<SlotKey, VerificationId>,
    guesses: HashMap<String, GuessLog>,
}

struct Entry {
    order: OpenCommand,
    pending: Pending,
    status: Status,
    answers: Vec<(CheckId, Vec<Digest>, CheckVerdict)>,
}

const REFUSED: Checked = Checked {
    verdict: CheckVerdict::Refused,
    repeated: false,
    channel: None,
};

impl Entry {
    fn status_at(&self, now: Timestamp) -> Status {
        match self.status {
            Status::Pending if !self.pending.is_live(now) => Status::Expired,
            status => status,
        }
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
            resend_after: self.pending.resend_after,
            sends: self.pending.sends,
            checks_left: self.pending.checks_left,
        }
    }

    fn sent(&self, now: Timestamp, is_new: bool, follows_approval: bool) -> Sent {
        Sent {
            verification: self.seen(now),
            is_new,
            follows_approval,
            sealed_code: self.order.code.sealed.clone(),
            code_key_id: self.order.code.sealing_key_id.clone(),
            sealed_order: self.order.sealed_order.clone(),
            order_key_id: self.order.sealing_key_id.clone(),
        }
    }

    fn send(&mut self, next: Option<SealedCode>, now: Timestamp) -> Opened {
        let asked = self.pending.send(now);
        self.sending(asked, next, now)
            .unwrap_or_else(|| unreachable!("only steps are superseded"))
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
        let entry = self.verifications.get_mut(id)?;
        let known = now < entry.pending.expires_at.plus_millis(AFTERLIFE_MS);
        (known && entry.order.service == *service).then_some(entry)
    }

    pub fn open(&mut self, order: OpenCommand) -> Opened {
        let now = order.now;
        if let Some(until) = self.locked(&order.id, order.budget, now) {
            return Opened::Locked(until);
        }
        let latest = self.slots.get(&order.slot).cloned();
        let latest = latest.and_then(|id| self.find(&id, &order.service, now));
        let follows = match latest.map(|entry| (entry.status_at(now), entry)) {
            Some((Status::Pending, entry)) => return entry.send(None, now),
            Some((status, _)) => status == Status::Approved,
            None => false,
        };
        let entry = Entry {
            pending: Pending::open(order.policy, now),
            status: Status::Pending,
            answers: Vec::new(),
            order,
        };
        let opened = Opened::Send(entry.sent(now, true, follows));
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
        budget: GuessBudget,
        now: Timestamp,
    ) -> Option<Opened> {
        let locked = self.locked(id, budget, now);
        let entry = self.find(id, service, now)?;
        if entry.status_at(now) != Status::Pending {
            return None;
        }
        Some(locked.map_or_else(|| entry.send(next, now), Opened::Locked))
    }

    pub fn step(
        &mut self,
        id: &VerificationId,
        service: &ServiceName,
        after: u8,
        next: Option<SealedCode>,
        budget: GuessBudget,
        now: Timestamp,
    ) -> Option<Opened> {
        let locked = self.locked(id, budget, now);
        let entry = self.find(id, service, now)?;
        if entry.status_at(now) != Status::Pending {
            return None;
        }
        if let Some(until) = locked {
            return Some(Opened::Locked(until));
        }
        let asked = entry.pending.step(after, now);
        entry.sending(asked, next, now)
    }

    pub fn confirm(&mut self, id: &VerificationId, send: u8) {
        if let Some(entry) = self.verifications.get_mut(id) {
            entry.pending = entry.pending.confirm(send);
        }
    }

    /// `None`: it stands there under a key that is not among those of the check.
    pub fn check(&mut self, command: CheckCommand, budget: GuessBudget) -> Option<Checked> {
        let now = command.now;
        let locked = self.locked(&command.id, budget, now).is_some();
        let Some(entry) = self.find(&command.id, &command.service, now) else {
            return Some(REFUSED);
        };
        let purpose = command.purpose.as_ref();
        let fits = purpose.is_none_or(|purpose| *purpose == entry.order.purpose);
        let earlier = entry
            .answers
            .iter()
            .find(|answer| answer.0 == command.check_id);
        if let Some((_, candidates, verdict)) = earlier {
            let same = candidates
                .iter()
                .any(|typed| command.candidates.contains(typed));
            if !same || (*verdict == CheckVerdict::Approved && !fits) {
                return Some(REFUSED);
            }
            return Some(Checked {
                verdict: *verdict,
                repeated: true,
                channel: None,
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
        let matched = fits && command.candidates.contains(&entry.order.code.digest);
        let verdict = match entry.pending.check(matched, now) {
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
        entry
            .answers
            .push((command.check_id, command.candidates, verdict));
        let log = self.guesses.remove(command.id.tag()).unwrap_or_default();
        if verdict != CheckVerdict::Approved {
            self.guesses
                .insert(command.id.tag().to_owned(), log.with_wrong(now));
        }
        let approved = (verdict == CheckVerdict::Approved).then_some(command.id);
        let channel = approved.and_then(|id| self.verifications.get(&id));
        Some(Checked {
            verdict,
            repeated: false,
            channel: channel.map(|entry| entry.order.channel),
        })
    }

    pub fn cancel(
        &mut self,
        id: &VerificationId,
        service: &ServiceName,
        now: Timestamp,
    ) -> Option<StoredVerification> {
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
        self.find(id, service, now).map(|entry| entry.seen(now))
    }

    pub fn forget_guesses(&mut self, tag: &str) {
        self.guesses.remove(tag);
    }
}
