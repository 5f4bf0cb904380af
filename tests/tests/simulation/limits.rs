//! The send limits over maps: the crate's own rule decides.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use watchword_core::{DeliveryId, SendLimits, ServiceName, SubjectTag, Timestamp};
use watchword_issuer::limits::tally::Tally;
use watchword_issuer::limits::window::{self, Minute};
use watchword_issuer::limits::{Counter, Permit, Reservation, SendLimiter};
use watchword_storage::StorageError;

use crate::history::Peer;
use crate::ledger::failed;
use crate::world::{STORE_PATIENCE, Seat, State};

/// The counted messages.
#[derive(Default)]
pub struct LimitState {
    sent: HashMap<SubjectTag, Vec<(Timestamp, DeliveryId)>>,
    minutes: HashMap<ServiceName, Minute>,
    counts: HashMap<Counter, BTreeMap<i64, i64>>,
}

pub struct SimLimiter(pub Seat);

fn reserve(state: &mut State, reservation: Reservation) -> Permit {
    let sent = state.limits.sent.entry(reservation.recipient).or_default();
    let now = reservation.now;
    sent.retain(|(at, _)| window::is_live(*at, now));
    if sent.iter().any(|(_, other)| *other == reservation.delivery) {
        return Permit::Repeated;
    }
    let moments: Vec<_> = sent.iter().map(|(at, _)| *at).collect();
    let permit = window::reserve(&moments, &reservation);
    if permit == Permit::Granted {
        sent.push((now, reservation.delivery));
        sent.sort_by_key(|(at, _)| *at);
    }
    permit
}

#[async_trait]
impl SendLimiter for SimLimiter {
    async fn admit(
        &self,
        service: &ServiceName,
        limits: SendLimits,
        now: Timestamp,
    ) -> Result<Permit, StorageError> {
        let admitted = self.0.call(Peer::Limits, STORE_PATIENCE, |state| {
            let stored = state.limits.minutes.get(service).copied();
            match window::admit(stored, limits.service_per_minute, now) {
                Err(refused) => refused,
                Ok(minute) => {
                    state.limits.minutes.insert(service.clone(), minute);
                    Permit::Granted
                }
            }
        });
        admitted.await.map_err(failed)
    }

    async fn reserve(&self, reservation: Reservation) -> Result<Permit, StorageError> {
        let reserved = self.0.call(Peer::Limits, STORE_PATIENCE, |state| {
            reserve(state, reservation)
        });
        reserved.await.map_err(failed)
    }

    async fn is_reserved(
        &self,
        recipient: SubjectTag,
        delivery: &DeliveryId,
        now: Timestamp,
    ) -> Result<bool, StorageError> {
        let reserved = self.0.call(Peer::Limits, STORE_PATIENCE, |state| {
            let sent = state.limits.sent.get(&recipient);
            sent.is_some_and(|sent| {
                sent.iter()
                    .any(|(at, other)| other == delivery && window::is_live(*at, now))
            })
        });
        reserved.await.map_err(failed)
    }

    async fn forget_recipient(&self, recipient: SubjectTag) -> Result<bool, StorageError> {
        let forgotten = self.0.call(Peer::Limits, STORE_PATIENCE, |state| {
            state.limits.sent.remove(&recipient).is_some()
        });
        forgotten.await.map_err(failed)
    }

    async fn count(
        &self,
        counter: &Counter,
        messages: i32,
        now: Timestamp,
    ) -> Result<Tally, StorageError> {
        let part = counter.span().part(now);
        let counted = self.0.call(Peer::Limits, STORE_PATIENCE, |state| {
            let parts = state.limits.counts.entry(counter.clone()).or_default();
            *parts.entry(part).or_default() += i64::from(messages);
            Tally::read(parts.iter().map(|(part, sum)| (*part, *sum)), part)
        });
        counted.await.map_err(failed)
    }

    async fn forget(&self, counter: &Counter) -> Result<bool, StorageError> {
        let forgotten = self.0.call(Peer::Limits, STORE_PATIENCE, |state| {
            state.limits.counts.remove(counter).is_some()
        });
        forgotten.await.map_err(failed)
    }
}
