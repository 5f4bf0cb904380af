//! The circuits of one provider, and the rule that decides which of them an outcome affects.
//!
//! Users choose the destinations of codes, so an outcome at one destination does not open the
//! circuit of the whole provider. That circuit opens for refused credentials, for a call that
//! failed before the peer knew the recipient, or for the same failure at several destinations that
//! worked before, with no acceptance in between. For an answer that names our account, two
//! destinations are enough, and one if the provider never worked at another. A fault of our
//! account, or the provider's own request to wait, bars the provider; with any other open circuit
//! it remains the last resort.

use std::time::Duration;

use watchword_core::{AttemptClass, ReceiptState, Timestamp, millis};

use super::gauge::{Admission, Gauge, IN_A_ROW, Sign, WHOLE};
use super::region::{Region, Regions, Streak};
use super::{ByHand, Circuit, SLOW, Seen, Stopped};
use crate::provider::Scope;

/// How long half-open probes are reserved for regions that worked before.
const KEPT_MS: u64 = 5_000;
/// The longest wait that answers for a single region may ask for, in milliseconds.
const LONGEST_REGION_WAIT_MS: u64 = 60_000;

/// The longest operator override of a circuit: a day.
pub(crate) const LONGEST_BY_HAND_MS: u64 = 86_400_000;

/// The meaning of an outcome for the circuits.
enum Word {
    /// The provider accepted the message.
    Accepted,
    /// The provider refused the recipient or the text: neither a success nor a failure of the
    /// provider.
    Answered,
    /// The provider refused our account.
    Fault,
    /// The provider refused this destination.
    Refused,
    /// The call failed or timed out.
    Failed,
}

/// Health of a provider: one circuit for the whole provider and one for each region.
#[derive(Debug)]
pub(super) struct ProviderHealth {
    whole: Gauge,
    regions: Regions,
    /// Regions that started to report a fault of our account, since the last acceptance.
    faults: Streak,
    /// Regions that were refused, since the last acceptance.
    refusals: Streak,
    /// Regions with failed calls, since the last acceptance.
    failures: Streak,
    /// Regions with refused recipients or texts, since the last acceptance.
    answers: Streak,
    /// Regions for which the provider asked to wait, since the last acceptance.
    waits: Streak,
    /// When a region that never worked last used a probe.
    lent_at: Timestamp,
    /// The operator's override of the circuit.
    by_hand: Option<ByHand>,
}

impl ProviderHealth {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            whole: Gauge::new(now),
            regions: Regions::default(),
            faults: Streak::default(),
            refusals: Streak::default(),
            failures: Streak::default(),
            answers: Streak::default(),
            waits: Streak::default(),
            lent_at: Timestamp::from_millis(0),
            by_hand: None,
        }
    }

    /// Sets the operator's override; `None` returns the circuit to the outcomes of calls.
    pub(super) const fn hold(&mut self, by_hand: Option<ByHand>) {
        self.by_hand = by_hand;
    }

    /// Returns the operator's override at `now`. An end further away than the maximum was set
    /// before the clock was set back, and does not count.
    pub(super) fn by_hand(&self, now: Timestamp) -> Option<ByHand> {
        let left = |held: &ByHand| held.until.millis_since(now);
        self.by_hand
            .filter(|held| (1..=LONGEST_BY_HAND_MS).contains(&left(held)))
    }

    /// Returns the state of the whole provider's circuit.
    pub(super) fn circuit(&self, now: Timestamp) -> Circuit {
        match self.by_hand(now) {
            Some(held) if held.is_open => Circuit::Open,
            Some(_) => Circuit::Closed,
            None if !self.whole.is_open() => Circuit::Closed,
            None if self.whole.rests(now) => Circuit::Open,
            None => Circuit::HalfOpen,
        }
    }

    /// Returns why the provider gets no messages at any destination; `None` if it gets some.
    pub(super) fn stopped(&self, now: Timestamp) -> Option<Stopped> {
        match self.by_hand(now) {
            Some(held) => held.is_open.then_some(Stopped::ByHand(held.until)),
            None if self.whole.is_open() && self.whole.is_faulty() => Some(Stopped::Fault),
            None if self.whole.is_open() => Some(Stopped::Failures),
            None => self.whole.rests(now).then_some(Stopped::Waits),
        }
    }

    /// Returns the number of known destinations, and how many of them have an open circuit.
    pub(super) fn destinations(&self) -> (usize, usize) {
        let known = self.regions.iter();
        known.fold((0, 0), |(all, open), (_, region)| {
            (all + 1, open + usize::from(region.gauge.is_open()))
        })
    }

    /// Returns the share that the provider may get for `region`: the lower of the two circuits'
    /// admissions, unless an operator overrides it.
    pub(super) fn admission(&self, region: &Region, now: Timestamp) -> Admission {
        if let Some(held) = self.by_hand(now) {
            return if held.is_open {
                Admission::Barred
            } else {
                Admission::Share(WHOLE)
            };
        }
        let whole = match self.whole.admission(now) {
            Admission::Probe if !self.may_probe(region, now) => self.whole.refusal(),
            whole => whole,
        };
        let region = self.regions.get(region);
        let region = region.map(|region| region.gauge.admission(now));
        region.map_or(whole, |region| whole.min(region))
    }

    /// Returns whether a message to `region` may be the half-open probe. A destination that never
    /// worked is weak evidence, and users who choose it could use up every probe; it must wait.
    fn may_probe(&self, region: &Region, now: Timestamp) -> bool {
        let is_kept = self.whole.half_open_ms(now) < KEPT_MS
            || (self.lent_at <= now && now.millis_since(self.lent_at) < KEPT_MS);
        self.counts(region) || !is_kept
    }

    /// Returns whether an outcome at `region` is evidence about the provider: the provider accepted
    /// a message for the region before, or has not yet accepted any message at all.
    fn counts(&self, region: &Region) -> bool {
        let worked = self.regions.get(region).is_some_and(|it| it.has_worked);
        worked || !self.regions.any_worked()
    }

    pub(super) fn on_probe(&mut self, region: &Region, now: Timestamp) {
        if self.whole.is_open() {
            self.whole.on_probe(now);
        }
        if let Some(region) = self.regions.get_mut(region)
            && region.gauge.is_open()
        {
            region.gauge.on_probe(now);
        }
    }

    /// Makes room for the next probe: the probe for `region` was not sent, or its outcome is no
    /// evidence.
    pub(super) fn release(&mut self, region: &Region, now: Timestamp) {
        if self.whole.is_open() && !self.counts(region) {
            self.lent_at = now;
        }
        self.whole.release();
        if let Some(region) = self.regions.get_mut(region) {
            region.gauge.release();
        }
    }

    /// Makes room for the next half-open probe if this attempt was one. A probe of another message
    /// stays in flight.
    fn release_probe(&mut self, seen: &Seen<'_>) {
        if seen.is_probe {
            self.release(seen.region, seen.now);
        }
    }

    pub(super) fn see(&mut self, seen: &Seen<'_>) {
        // A wait of zero is no request to wait.
        let wait = seen.retry_after.filter(|wait| !wait.is_zero());
        match (word(seen.class, seen.scope), wait) {
            _ if seen.scope == Scope::NotCalled => self.release_probe(seen),
            (Word::Accepted, _) => self.accepted(seen),
            (Word::Answered, _) => self.answered(seen),
            (Word::Fault, _) => self.fault(seen),
            (Word::Refused | Word::Failed, Some(wait)) => self.asked_to_wait(seen, wait),
            (Word::Failed, None) if seen.scope == Scope::Provider => {
                self.release_probe(seen);
                self.whole.observe(Sign::Bad, seen.now);
            }
            (Word::Refused, None) => self.failed(seen, true),
            (Word::Failed, None) => self.failed(seen, false),
        }
    }

    fn accepted(&mut self, seen: &Seen<'_>) {
        for streak in [
            &mut self.faults,
            &mut self.refusals,
            &mut self.failures,
            &mut self.answers,
            &mut self.waits,
        ] {
            streak.clear();
        }
        let sign = if seen.took > SLOW {
            Sign::Slow
        } else {
            Sign::Good
        };
        let region = self.regions.entry(seen.region, seen.now);
        region.waits.clear();
        region.has_waited = false;
        region.gauge.observe(sign, seen.now);
        self.regions.mark_worked(seen.region);
        // Even a slow acceptance of a probe shows that the account works.
        if sign == Sign::Good || self.whole.is_open() {
            self.whole.observe(Sign::Good, seen.now);
        }
    }

    fn fault(&mut self, seen: &Seen<'_>) {
        self.release_probe(seen);
        let (counts, is_barred) = (self.counts(seen.region), self.whole.is_faulty());
        let is_alone = !self.regions.any_other_worked(seen.region);
        let region = self.regions.entry(seen.region, seen.now);
        // Messages to other regions kept or closed the whole provider's circuit, so this fault is
        // one of this region, for example a sender that only this country refuses.
        let is_known = region.gauge.is_faulty() && !is_barred;
        region.gauge.observe(Sign::Fault, seen.now);
        // The provider never worked at this destination but works elsewhere, so the destination is
        // the more likely cause.
        if !counts {
            return;
        }
        let witness = seen.region.witness();
        let is_seen_elsewhere = self.faults.has_other(witness);
        if !is_known {
            self.faults.add(witness);
        }
        let is_of_all = !is_known && (is_alone || seen.scope == Scope::Provider);
        if is_barred || is_seen_elsewhere || is_of_all {
            self.whole.observe(Sign::Fault, seen.now);
        }
    }

    /// Applies an answer that refuses the recipient or the text. It concerns the recipient, unless
    /// every recipient gets it: then the circuit opens and the route's next provider is tried
    /// first.
    fn answered(&mut self, seen: &Seen<'_>) {
        self.release_probe(seen);
        let worked = self.regions.get(seen.region);
        if !worked.is_some_and(|region| region.has_worked) {
            return;
        }
        let is_seen_widely = self.answers.add(seen.region.witness());
        if is_seen_widely && self.answers.length() >= IN_A_ROW && !self.whole.is_open() {
            self.whole.open(seen.now);
        }
    }

    fn asked_to_wait(&mut self, seen: &Seen<'_>, wait: Duration) {
        let wait_ms = millis(wait);
        self.release_probe(seen);
        let counts = self.counts(seen.region);
        let is_refusal = seen.class == AttemptClass::DestinationRefused;
        if counts && self.whole.is_open() && !(is_refusal && self.whole.is_faulty()) {
            // A request to wait must not lead to an earlier probe than any other failure.
            self.whole.observe(Sign::Bad, seen.now);
        }
        let region = self.regions.entry(seen.region, seen.now);
        // The provider failed again after the wait that it asked for.
        let waited_in_vain = region.has_waited && !region.gauge.rests(seen.now);
        if region.gauge.is_open() || waited_in_vain {
            region.gauge.observe(Sign::Bad, seen.now);
        }
        if region.waits.add(seen.recipient) {
            let wait_ms = wait_ms.min(LONGEST_REGION_WAIT_MS);
            region.gauge.rest(seen.now, wait_ms);
            region.has_waited = true;
        }
        if counts && self.waits.add(seen.region.witness()) {
            self.whole.rest(seen.now, wait_ms);
        }
    }

    fn failed(&mut self, seen: &Seen<'_>, is_refusal: bool) {
        let (now, counts) = (seen.now, self.counts(seen.region));
        let region = self.regions.entry(seen.region, now);
        region.gauge.observe(Sign::Bad, now);
        if self.whole.is_open() {
            // A refusal of one destination is no evidence about a fault of the account.
            if !counts || (is_refusal && self.whole.is_faulty()) {
                self.release_probe(seen);
            } else {
                self.whole.observe(Sign::Bad, now);
            }
            return;
        }
        if !counts {
            return;
        }
        let witness = seen.region.witness();
        let opens = if is_refusal {
            self.refusals.add(witness)
        } else {
            self.failures.add(witness) && self.failures.length() >= IN_A_ROW
        };
        if opens {
            self.whole.open(now);
        }
    }

    /// Applies a receipt. A receipt about an earlier message is no evidence while the circuit is
    /// open: only an attempt shows whether the provider works again.
    pub(super) fn receipt(&mut self, state: ReceiptState, now: Timestamp) {
        // A receipt does not name its region, and users choose the destinations. Failures at a
        // destination that never delivers must not shrink the share of all, so only `delivered`
        // counts.
        if state == ReceiptState::Delivered && !self.whole.is_open() {
            self.whole.observe(Sign::Good, now);
        }
    }

    /// Returns the health score of `region`.
    pub(super) fn region_level(&self, region: &Region, now: Timestamp) -> u8 {
        if let Some(held) = self.by_hand(now) {
            return held.level();
        }
        let region = self.regions.get(region);
        region.map_or(WHOLE, |region| region.gauge.level())
    }

    /// Returns the health score to display: the operator's override, else the lower of the whole
    /// provider's score and that of its best region, because one country or domain is no evidence
    /// about the others. Regions that never worked count only if no region ever worked.
    pub(super) fn level(&self, now: Timestamp) -> u8 {
        if let Some(held) = self.by_hand(now) {
            return held.level();
        }
        let mut best = None;
        for (_, region) in self.regions.iter() {
            if region.has_worked || !self.regions.any_worked() {
                best = best.max(Some(region.gauge.level()));
            }
            if best == Some(WHOLE) {
                // There can be a thousand regions, and no score is higher.
                break;
            }
        }
        self.whole.level().min(best.unwrap_or(WHOLE))
    }
}

fn word(class: AttemptClass, scope: Scope) -> Word {
    match class {
        AttemptClass::Accepted => Word::Accepted,
        AttemptClass::RecipientInvalid
        | AttemptClass::RecipientBlocked
        | AttemptClass::MessageRejected
        | AttemptClass::TextFault => Word::Answered,
        AttemptClass::ConfigFault if matches!(scope, Scope::Account | Scope::Provider) => {
            Word::Fault
        }
        AttemptClass::ConfigFault | AttemptClass::DestinationRefused => Word::Refused,
        AttemptClass::Transient | AttemptClass::UnknownOutcome => Word::Failed,
    }
}
