//! Counters that many messages share, as one process counts them. A process counts a message by
//! itself and adds it to the store's counter together with others, an eighth of the limit at a
//! time, at most [`LARGEST_REPORT`]. One process alone never exceeds a limit; with N processes up
//! to N − 1 eighths more go out. The usual subject, client or block has one message an hour and
//! costs the store nothing.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::try_join_all;
use watchword_core::{SendLimits, Timestamp};
use watchword_storage::StorageError;

use super::tally::{Tally, is_live};
use super::{Counter, Permit, SendLimiter};

/// A report adds this part of a limit to the store's counter, and at most so many messages.
const REPORT_SHARE: u32 = 8;
const LARGEST_REPORT: u32 = 64;
/// A process that refuses asks the store again after this long: an operator may have unlocked the
/// subject.
const RECHECK_MS: u64 = 5_000;
/// A report without an answer by then was given up.
const REPORT_MS: u64 = 3_000;
/// Counters kept in each of two generations; when the younger one is full the older one is
/// dropped. A dropped counter forgets less than one report.
const KEPT: usize = 65_536;

/// Counts messages of this process.
pub struct Quota {
    limiter: Arc<dyn SendLimiter>,
    counts: Mutex<Counts>,
}

impl Quota {
    /// A quota whose reports go to `limiter`.
    pub fn new(limiter: Arc<dyn SendLimiter>) -> Self {
        Self {
            limiter,
            counts: Mutex::default(),
        }
    }

    /// Counts one message against each of `counters`, or against none and returns the refusal that
    /// lasts longest.
    pub async fn take(
        &self,
        counters: &[Counter],
        limits: &SendLimits,
        now: Timestamp,
    ) -> Result<Permit, StorageError> {
        let held = |counter: &&Counter| counter.most(limits) > 0;
        let due: Vec<_> = self.with(|counts| {
            let due = |counter| Some((counter, counts.due(counter, limits, now)?));
            counters.iter().filter(held).filter_map(due).collect()
        });
        let reports = due.into_iter().map(async |(counter, messages)| {
            let counted = self.limiter.count(counter, messages, now).await;
            self.with(|counts| counts.reported(counter, messages, counted.as_ref().ok()));
            counted
        });
        try_join_all(reports).await?;
        Ok(self.with(|counts| {
            let refusal = |counter: &Counter| {
                let until = counts.full_until(counter, limits, now)?;
                Some((until, counter.limit()))
            };
            let refusals = counters.iter().filter(held).filter_map(refusal);
            if let Some((until, limit)) = refusals.max_by_key(|(until, _)| *until) {
                return Permit::Refused { until, limit };
            }
            for counter in counters.iter().filter(held) {
                counts.add(counter, 1, now);
            }
            Permit::Granted
        }))
    }

    /// Takes back a message that [`Self::take`] counted: it is not sent, or was counted before.
    pub fn give_back(&self, counters: &[Counter], limits: &SendLimits, now: Timestamp) {
        self.with(|counts| {
            for counter in counters.iter().filter(|one| one.most(limits) > 0) {
                counts.add(counter, -1, now);
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Counts) -> T) -> T {
        act(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a process knows of one counter.
#[derive(Debug, Default)]
struct Count {
    /// Messages that the store does not have yet.
    unreported: i32,
    /// The part of the latest of them.
    part: i64,
    /// The store's counter, once the process has reported to it.
    stored: Option<Box<Stored>>,
}

#[derive(Debug)]
struct Stored {
    tally: Tally,
    asked_at: Timestamp,
    is_asking: bool,
}

impl Count {
    fn unreported(&self, now: i64) -> i32 {
        if is_live(self.part, now) {
            self.unreported
        } else {
            0
        }
    }

    fn full_until(&self, counter: &Counter, most: u32, now: Timestamp) -> Option<Timestamp> {
        let (span, part) = (counter.span(), counter.span().part(now));
        let tally = self.stored.as_ref().map(|stored| stored.tally);
        let unreported = self.unreported(part);
        tally
            .unwrap_or_default()
            .full_until(unreported, most, span, part)
    }
}

/// Counts by the hash of their counter, which this process alone knows how to make.
#[derive(Debug, Default)]
struct Counts {
    hasher: RandomState,
    young: HashMap<u64, Count>,
    old: HashMap<u64, Count>,
}

impl Counts {
    fn get(&self, counter: &Counter) -> Option<&Count> {
        let hash = self.hasher.hash_one(counter);
        self.young.get(&hash).or_else(|| self.old.get(&hash))
    }

    /// The count of `counter`, as one of the young.
    fn entry(&mut self, counter: &Counter) -> &mut Count {
        let hash = self.hasher.hash_one(counter);
        if self.young.len() >= KEPT && !self.young.contains_key(&hash) {
            self.old = std::mem::take(&mut self.young);
        }
        let old = &mut self.old;
        let young = self.young.entry(hash);
        young.or_insert_with(|| old.remove(&hash).unwrap_or_default())
    }

    /// How many messages to report before one more is decided about: enough are unreported, or the
    /// store's counter is full and was read a while ago.
    fn due(&mut self, counter: &Counter, limits: &SendLimits, now: Timestamp) -> Option<i32> {
        let most = counter.most(limits);
        let count = self.get(counter)?;
        let unreported = count.unreported(counter.span().part(now));
        let report = i32::try_from((most / REPORT_SHARE).clamp(1, LARGEST_REPORT)).ok()?;
        let is_full = count.full_until(counter, most, now).is_some();
        let since_ms = |stored: &Stored| {
            let elapsed = now.as_millis().abs_diff(stored.asked_at.as_millis());
            (elapsed, stored.is_asking)
        };
        let is_due = match count.stored.as_deref().map(since_ms) {
            Some((elapsed, true)) => elapsed >= REPORT_MS,
            Some((elapsed, false)) if is_full => elapsed >= RECHECK_MS,
            _ => unreported >= report,
        };
        if !is_due {
            return None;
        }
        let count = self.entry(counter);
        let stored = count.stored.get_or_insert_with(|| {
            Box::new(Stored {
                tally: Tally::default(),
                asked_at: now,
                is_asking: true,
            })
        });
        (stored.asked_at, stored.is_asking) = (now, true);
        Some(unreported)
    }

    /// Notes that the store has counted `messages` that were unreported, or did not answer.
    fn reported(&mut self, counter: &Counter, messages: i32, tally: Option<&Tally>) {
        let count = self.entry(counter);
        if let Some(stored) = &mut count.stored {
            stored.is_asking = false;
            if let Some(tally) = tally {
                stored.tally = *tally;
                count.unreported = count.unreported.saturating_sub(messages);
            }
        }
    }

    fn full_until(
        &self,
        counter: &Counter,
        limits: &SendLimits,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let count = self.get(counter)?;
        count.full_until(counter, counter.most(limits), now)
    }

    fn add(&mut self, counter: &Counter, messages: i32, now: Timestamp) {
        let part = counter.span().part(now);
        let count = self.entry(counter);
        count.unreported = count.unreported(part).saturating_add(messages);
        count.part = part;
    }
}
