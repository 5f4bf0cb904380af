//! Shared counters as one process sees them. A process counts messages locally and reports them to
//! the store's counter in batches of an eighth of the limit, at most [`LARGEST_REPORT`]. A single
//! process does not exceed a limit; each further process, and each restart, may let up to an eighth
//! more through. The usual subject, client or block has one message an hour and costs no call to
//! the store.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use watchword_core::{SendLimits, Timestamp};
use watchword_storage::StorageError;

use super::tally::{Tally, is_live};
use super::{Counter, Permit, SendLimiter};

/// A report holds this fraction of a limit, at most [`LARGEST_REPORT`] messages.
const REPORT_SHARE: u32 = 8;
const LARGEST_REPORT: u32 = 64;
/// A process that refuses asks the store again after this time, because an operator may have
/// unlocked the subject.
const RECHECK_MS: u64 = 5_000;
/// A report without an answer counts as abandoned after this time.
const REPORT_MS: u64 = 3_000;
/// Counters in each of two generations. When the young one is full, the old one is dropped. A
/// dropped counter loses less than one report.
const KEPT: usize = 65_536;

/// Counts the messages of this process.
pub struct Quota {
    limiter: Arc<dyn SendLimiter>,
    counts: Mutex<Counts>,
}

impl Quota {
    /// Creates a quota that reports to `limiter`.
    pub fn new(limiter: Arc<dyn SendLimiter>) -> Self {
        Self {
            limiter,
            counts: Mutex::default(),
        }
    }

    /// Counts one message against each of `counters`, or against none, and returns the refusal that
    /// lasts longest.
    pub async fn take(
        &self,
        counters: &[Counter],
        limits: &SendLimits,
        names_subject: bool,
        now: Timestamp,
    ) -> Result<Permit, StorageError> {
        let held: Vec<_> = counters
            .iter()
            .map(|counter| (counter, counter.share(limits, names_subject)))
            .filter(|(_, most)| *most > 0)
            .collect();
        let due: Vec<_> = self.with(|counts| {
            let due = |&(counter, most)| Some((counter, counts.due(counter, most, now)?));
            held.iter().filter_map(due).collect()
        });
        let reports = due.into_iter().map(async |(counter, messages)| {
            let counted = self.limiter.count(counter, messages, now).await;
            self.with(|counts| counts.reported(counter, messages, &counted, now));
            counted
        });
        // Await all reports: a dropped one may have run, and its result would not be recorded.
        for counted in join_all(reports).await {
            counted?;
        }
        Ok(self.with(|counts| {
            let refusal = |&(counter, most): &(&Counter, u32)| {
                let until = counts.get(counter)?.full_until(counter, most, now)?;
                Some((until, counter.limit()))
            };
            let refusals = held.iter().filter_map(refusal);
            if let Some((until, limit)) = refusals.max_by_key(|(until, _)| *until) {
                return Permit::Refused { until, limit };
            }
            for (counter, _) in held {
                counts.add(counter, 1, now);
            }
            Permit::Granted
        }))
    }

    /// Uncounts a message that [`Self::take`] counted, because it is not sent or was counted
    /// before.
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

/// The local state of one counter.
#[derive(Debug, Default)]
struct Count {
    /// Messages not yet reported to the store.
    unreported: i32,
    /// The part of the newest unreported message.
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

/// Counters by hash. The hasher's keys are random per process, so that callers cannot provoke
/// collisions.
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

    /// Returns the count of `counter` and moves it into the young generation.
    fn entry(&mut self, counter: &Counter) -> &mut Count {
        let hash = self.hasher.hash_one(counter);
        if self.young.len() >= KEPT && !self.young.contains_key(&hash) {
            self.old = std::mem::take(&mut self.young);
        }
        let old = &mut self.old;
        let young = self.young.entry(hash);
        young.or_insert_with(|| old.remove(&hash).unwrap_or_default())
    }

    /// Returns the messages to report before one more is decided about, or `None` if no report is
    /// due. A report is due if enough messages are unreported, or if the store's counter is full
    /// and was read a while ago.
    ///
    /// The messages count as reported from now on. The caller may be dropped before the store
    /// answers, and a report without an answer may have run: reporting messages twice would fill
    /// the counter for everyone.
    fn due(&mut self, counter: &Counter, most: u32, now: Timestamp) -> Option<i32> {
        let part = counter.span().part(now);
        let count = self.get(counter)?;
        let unreported = count.unreported(part);
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
        stored.tally = stored.tally.plus(unreported, part);
        count.unreported = 0;
        Some(unreported)
    }

    /// Records the store's answer to a report of `messages`.
    fn reported(
        &mut self,
        counter: &Counter,
        messages: i32,
        counted: &Result<Tally, StorageError>,
        now: Timestamp,
    ) {
        let part = counter.span().part(now);
        let stored = self.entry(counter).stored.as_deref_mut();
        if let Some(stored) = stored {
            stored.is_asking = false;
            match counted {
                Ok(tally) => stored.tally = *tally,
                // The report may have run: its messages stay counted.
                Err(StorageError::Timeout) => {}
                Err(_) => stored.tally = stored.tally.plus(-messages, part),
            }
        }
        // The store did not run the report, so the messages become unreported again.
        if !matches!(counted, Ok(_) | Err(StorageError::Timeout)) {
            self.add(counter, messages, now);
        }
    }

    fn add(&mut self, counter: &Counter, messages: i32, now: Timestamp) {
        let part = counter.span().part(now);
        let count = self.entry(counter);
        count.unreported = count.unreported(part).saturating_add(messages);
        count.part = part;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use async_trait::async_trait;
    use watchword_core::{DeliveryId, ServiceName, SubjectTag};

    use super::*;
    use crate::limits::{Limit, Reservation};

    const T0: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    /// A store that sums up counters and counts its calls.
    #[derive(Default)]
    struct Store {
        calls: AtomicU32,
        sums: Mutex<HashMap<Counter, i64>>,
        /// The error to return, and whether the store counts nevertheless.
        error: Mutex<Option<(StorageError, bool)>>,
    }

    #[async_trait]
    impl SendLimiter for Store {
        async fn admit(
            &self,
            _: &ServiceName,
            _: SendLimits,
            _: Timestamp,
        ) -> Result<Permit, StorageError> {
            Ok(Permit::Granted)
        }

        async fn reserve(&self, _: Reservation) -> Result<Permit, StorageError> {
            Ok(Permit::Granted)
        }

        async fn is_reserved(
            &self,
            _: SubjectTag,
            _: &DeliveryId,
            _: Timestamp,
        ) -> Result<bool, StorageError> {
            Ok(false)
        }

        async fn forget_recipient(&self, _: SubjectTag) -> Result<bool, StorageError> {
            Ok(false)
        }

        async fn count(
            &self,
            counter: &Counter,
            messages: i32,
            now: Timestamp,
        ) -> Result<Tally, StorageError> {
            self.calls.fetch_add(1, Ordering::Relaxed);
            let failure = self.error.lock().unwrap().clone();
            if let Some((error, false)) = failure {
                return Err(error);
            }
            let mut sums = self.sums.lock().unwrap();
            let sum = sums.entry(counter.clone()).or_default();
            *sum += i64::from(messages);
            if let Some((error, _)) = failure {
                return Err(error);
            }
            let part = counter.span().part(now);
            Ok(Tally::read([(part, *sum)], part))
        }

        async fn forget(&self, _: &Counter) -> Result<bool, StorageError> {
            Ok(false)
        }
    }

    fn counter(number: u8) -> [Counter; 1] {
        [Counter::Subject(SubjectTag::new([number; 10]))]
    }

    fn limits(subject_per_hour: u32) -> SendLimits {
        SendLimits {
            subject_per_hour,
            ..SendLimits::default()
        }
    }

    fn is_granted(permit: Result<Permit, StorageError>) -> bool {
        permit.unwrap() == Permit::Granted
    }

    #[tokio::test]
    async fn the_usual_message_costs_no_call_and_many_cost_few() {
        let store = Arc::new(Store::default());
        let quota = Quota::new(store.clone());
        for number in 0..200 {
            assert!(is_granted(
                quota.take(&counter(number), &limits(10), true, T0).await
            ));
        }
        assert_eq!(store.calls.load(Ordering::Relaxed), 0);
        let many = limits(100_000);
        for _ in 0..6_400 {
            assert!(is_granted(quota.take(&counter(201), &many, true, T0).await));
        }
        let calls = store.calls.load(Ordering::Relaxed);
        assert!((95..=100).contains(&calls), "{calls}");
    }

    #[tokio::test]
    async fn one_refusal_counts_nothing_and_what_is_given_back_fits_again() {
        let quota = Quota::new(Arc::new(Store::default()));
        let both = [counter(1), counter(2)].concat();
        for _ in 0..3 {
            assert!(is_granted(
                quota.take(&counter(1), &limits(3), true, T0).await
            ));
        }
        let refused = quota.take(&both, &limits(3), true, T0).await.unwrap();
        let Permit::Refused { until, limit } = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(limit, Limit::Subject);
        assert!(until > T0);
        quota.give_back(&counter(1), &limits(3), T0);
        assert!(is_granted(quota.take(&both, &limits(3), true, T0).await));
        assert!(!is_granted(quota.take(&both, &limits(3), true, T0).await));
        for _ in 0..2 {
            assert!(is_granted(
                quota.take(&counter(2), &limits(3), true, T0).await
            ));
        }
        // 0 means no limit, and counts nothing.
        assert!(is_granted(quota.take(&both, &limits(0), true, T0).await));
    }

    /// Without answers from the store, a process grants no more than it may keep unreported.
    #[tokio::test]
    async fn a_store_that_is_away_grants_nothing_beyond_a_report() {
        let store = Store {
            error: Mutex::new(Some((StorageError::Timeout, false))),
            ..Store::default()
        };
        let quota = Quota::new(Arc::new(store));
        assert!(is_granted(
            quota.take(&counter(1), &limits(10), true, T0).await
        ));
        let away = quota.take(&counter(1), &limits(10), true, T0).await;
        assert_eq!(away, Err(StorageError::Timeout));
    }

    /// A report without an answer may have run: it is not repeated, and the process counts its
    /// messages. A report that the store rejected is repeated.
    #[tokio::test]
    async fn a_slow_store_is_told_of_each_message_once() {
        for (error, is_repeated) in [
            (StorageError::Timeout, false),
            (StorageError::Unavailable("loading"), true),
        ] {
            let store = Arc::new(Store::default());
            let quota = Quota::new(store.clone());
            *store.error.lock().unwrap() = Some((error.clone(), true));
            for _ in 0..2 {
                assert!(is_granted(
                    quota.take(&counter(1), &limits(16), true, T0).await
                ));
            }
            let failed = quota.take(&counter(1), &limits(16), true, T0).await;
            assert_eq!(failed, Err(error));
            *store.error.lock().unwrap() = None;
            let mut granted = 2;
            while is_granted(quota.take(&counter(1), &limits(16), true, T0).await) {
                granted += 1;
            }
            assert_eq!(granted, 16 - 2 * u32::from(is_repeated));
        }
    }

    /// A caller that is dropped while the store is asked leaves nothing to report again.
    #[tokio::test]
    async fn a_report_that_is_dropped_is_not_made_again() {
        let mut counts = Counts::default();
        let [counter] = counter(1);
        for _ in 0..2 {
            counts.add(&counter, 1, T0);
        }
        assert_eq!(counts.due(&counter, 16, T0), Some(2));
        let later = T0.plus_millis(REPORT_MS);
        assert_eq!(counts.due(&counter, 16, later), Some(0));
        let full = |most| counts.get(&counter)?.full_until(&counter, most, later);
        assert!(full(2).is_some() && full(3).is_none());
    }

    /// A quarter of a block of numbers and of a country is reserved for requests with a subject.
    #[tokio::test]
    async fn a_page_without_a_login_cannot_use_up_a_block() {
        let quota = Quota::new(Arc::new(Store::default()));
        let block = [Counter::NumberBlock(SubjectTag::new([1; 10]))];
        let limits = SendLimits {
            number_block_per_hour: 8,
            ..SendLimits::default()
        };
        let mut granted = [0, 0];
        for (count, names_subject) in granted.iter_mut().zip([false, true]) {
            while is_granted(quota.take(&block, &limits, names_subject, T0).await) {
                *count += 1;
            }
        }
        assert_eq!(granted, [6, 2]);
    }

    #[test]
    fn counts_are_bounded_and_the_busy_ones_stay() {
        let mut counts = Counts::default();
        let busy = counter(1);
        for number in 0..3 * KEPT {
            let tag = u64::try_from(number).unwrap().to_be_bytes();
            let mut bytes = [0xff; 10];
            bytes[..8].copy_from_slice(&tag);
            counts.add(&Counter::Client(SubjectTag::new(bytes)), 1, T0);
            counts.add(&busy[0], i32::from(number == 0), T0);
        }
        assert!(counts.young.len() + counts.old.len() <= 2 * KEPT);
        assert!(
            counts
                .get(&busy[0])
                .is_some_and(|count| count.full_until(&busy[0], 1, T0).is_some())
        );
    }
}
