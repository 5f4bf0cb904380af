//! Consumer of the embedded engine: takes messages from the table under a lease and settles them. A
//! background task reads ahead of the caller, so that cancelling `receive` loses nothing. An idle
//! task sleeps until the next message is due or one arrives.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use watchword_core::{Rung, TraceParent};
use watchword_events::Lane;

use super::Shared;
use super::table::{self, Fate, Taken};
use crate::dead_letter::DeadLetterReason;
use crate::message::{Late, Received};
use crate::port::{Consumer, LinkState, Settle, SettleError};

/// The longest sleep between two looks at the table. It bounds the delay after a clock step.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// The most messages taken in one transaction.
const BATCH: usize = 64;
/// Expired messages held beside the others. Few, because no user waits for them.
const LATE_PREFETCH: usize = 32;

/// Consumer of one queue.
pub(super) struct EmbeddedConsumer {
    shared: Arc<Shared>,
    taken: mpsc::Receiver<(Taken, Holding)>,
    stop: CancellationToken,
    pumps: Vec<JoinHandle<()>>,
}

/// A message leased to this process.
struct Holding {
    shared: Arc<Shared>,
    lane: Lane,
    word: &'static str,
    late: Option<Late>,
    row: i64,
    token: i64,
    /// Counts against the prefetch until the message is settled or dropped.
    _permit: OwnedSemaphorePermit,
}

impl EmbeddedConsumer {
    pub(super) fn new(shared: Arc<Shared>, lane: Lane, prefetch: u16) -> Self {
        let prefetch = usize::from(prefetch.max(1));
        let (sender, taken) = mpsc::channel(prefetch);
        let stop = CancellationToken::new();
        let pump = |word, late, prefetch| {
            let pump = Pump {
                shared: shared.clone(),
                lane,
                word,
                late,
                permits: Arc::new(Semaphore::new(prefetch)),
                sender: sender.clone(),
                stop: stop.clone(),
            };
            tokio::spawn(pump.run())
        };
        let mut pumps = vec![pump(lane.as_str(), lane.late(), prefetch)];
        pumps.extend(lane.late().map(|late| pump(late, None, LATE_PREFETCH)));
        Self {
            shared,
            taken,
            stop,
            pumps,
        }
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[async_trait]
impl Consumer for EmbeddedConsumer {
    async fn receive(&mut self) -> Option<Received> {
        let (taken, holding) = self.taken.recv().await?;
        let redelivered = taken.handed_out > 1;
        self.shared.metrics.received(holding.lane, redelivered);
        Some(Received {
            id: taken.message_id,
            body: Bytes::from(taken.body),
            retries: taken.retries,
            redelivered,
            late: holding.late,
            service: None,
            user: None,
            traceparent: taken.traceparent.as_deref().and_then(TraceParent::parse),
            settle: Box::new(holding),
        })
    }

    async fn stop(&mut self) {
        self.stop.cancel();
        for pump in self.pumps.drain(..) {
            // A task that panicked has nothing to return; its leases expire.
            let _ = pump.await;
        }
        while let Ok((_, holding)) = self.taken.try_recv() {
            holding.give_back().await;
        }
    }

    fn state(&self) -> LinkState {
        self.shared.state()
    }
}

/// Moves due messages from the table to the consumer.
struct Pump {
    shared: Arc<Shared>,
    lane: Lane,
    /// The value of the table's `lane` column that this task reads, and the one that its expired
    /// messages get.
    word: &'static str,
    late: Option<&'static str>,
    permits: Arc<Semaphore>,
    sender: mpsc::Sender<(Taken, Holding)>,
    stop: CancellationToken,
}

impl Pump {
    async fn run(self) {
        let mut closed = self.shared.closed.subscribe();
        loop {
            let permits = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                _ = closed.wait_for(|closed| *closed) => return,
                permits = self.permits() => permits,
            };
            // Do not cancel this halfway: messages that were taken must reach the consumer.
            let wait = match self.take(permits).await {
                Ok(0) => self.until_due().await,
                Ok(_) => continue,
                Err(()) => LONGEST_SLEEP,
            };
            let Some(arrival) = self.shared.arrivals.get(self.word) else {
                return;
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = closed.wait_for(|closed| *closed) => return,
                () = arrival.notified() => {}
                () = sleep(wait) => {}
            }
        }
    }

    /// Waits for one permit and takes as many more as are free, up to a batch.
    async fn permits(&self) -> Vec<OwnedSemaphorePermit> {
        let mut permits = Vec::new();
        // Fails only if the semaphore was closed, which never happens.
        permits.extend(self.permits.clone().acquire_owned().await.ok());
        while permits.len() < BATCH
            && let Ok(permit) = self.permits.clone().try_acquire_owned()
        {
            permits.push(permit);
        }
        permits
    }

    fn is_late(&self) -> bool {
        self.word != self.lane.as_str()
    }

    async fn take(&self, permits: Vec<OwnedSemaphorePermit>) -> Result<usize, ()> {
        let token = self.shared.token();
        let (lane, late, now) = (self.word, self.late, self.shared.now());
        let lease_until_ms = now.plus_millis(self.shared.settings.lease_ms).as_millis();
        let limit = u16::try_from(permits.len()).unwrap_or(u16::MAX);
        let found = self
            .shared
            .sqlite
            .write(move |connection| {
                table::take(
                    connection,
                    (lane, late),
                    now.as_millis(),
                    limit,
                    token,
                    lease_until_ms,
                )
            })
            .await
            .map_err(|error| tracing::warn!(%error, "queued messages cannot be read"))?;
        let count = found.taken.len() + found.late;
        if let Some(late) = late.filter(|_| found.late > 0) {
            self.shared.arrived(late);
        }
        for (message, permit) in found.taken.into_iter().zip(permits) {
            let is_over_limit = message.handed_out > self.shared.settings.delivery_limit;
            let late = if is_over_limit {
                Some(Late::DeliveryLimit)
            } else {
                self.is_late().then_some(Late::Expired)
            };
            let holding = Holding {
                shared: self.shared.clone(),
                lane: self.lane,
                word: self.word,
                late,
                row: message.row,
                token,
                _permit: permit,
            };
            if is_over_limit && self.lane.is_republished() {
                tracing::error!(
                    lane,
                    "a message reached its delivery limit and is dead-lettered"
                );
                // If this fails, the lease expires and the message is dead-lettered when it is
                // taken again.
                let reason = DeadLetterReason::DeliveryLimit;
                let _ = Box::new(holding).dead_letter(reason).await;
                continue;
            }
            tokio::select! {
                biased;
                place = self.sender.reserve() => match place {
                    Ok(place) => place.send((message, holding)),
                    Err(_) => break,
                },
                // A consumer that stops reads no more.
                () = self.stop.cancelled() => holding.give_back().await,
            }
        }
        Ok(count)
    }

    async fn until_due(&self) -> Duration {
        let lane = self.word;
        let next = self
            .shared
            .sqlite
            .read(move |connection| table::next_due(connection, lane))
            .await;
        let due = next
            .ok()
            .flatten()
            .map(watchword_core::Timestamp::from_millis);
        due.map_or(LONGEST_SLEEP, |due| {
            due.since(self.shared.now())
                .clamp(Duration::from_millis(1), LONGEST_SLEEP)
        })
    }
}

impl Holding {
    /// Returns the message to its queue as if it had not been taken. If this fails, the lease
    /// expires.
    async fn give_back(&self) {
        let fate = Fate::Due {
            at_ms: 0,
            retried: false,
            returned: true,
        };
        let _ = self.settle(fate, "requeue").await;
    }

    async fn settle(&self, fate: Fate, how: &'static str) -> Result<(), SettleError> {
        if self.shared.state() != LinkState::Up {
            return Err(SettleError);
        }
        let (row, token) = (self.row, self.token);
        let leaves = matches!(fate, Fate::Done | Fate::Parked { .. });
        let settled = self
            .shared
            .sqlite
            .write(move |connection| table::settle(connection, row, token, &fate))
            .await;
        if settled != Ok(true) {
            return Err(SettleError);
        }
        if leaves {
            self.shared.count(self.lane, -1);
        } else {
            self.shared.arrived(self.word);
        }
        self.shared.metrics.settled(self.lane, how);
        Ok(())
    }
}

#[async_trait]
impl Settle for Holding {
    async fn ack(self: Box<Self>) -> Result<(), SettleError> {
        self.settle(Fate::Done, "ack").await
    }

    async fn retry(self: Box<Self>, rung: Rung) -> Result<(), SettleError> {
        if !self.lane.is_republished() {
            return Err(SettleError);
        }
        let at_ms = self.shared.now().plus_millis(rung.delay_ms).as_millis();
        self.settle(
            Fate::Due {
                at_ms,
                retried: true,
                returned: false,
            },
            "retry",
        )
        .await
    }

    async fn dead_letter(self: Box<Self>, reason: DeadLetterReason) -> Result<(), SettleError> {
        if !self.lane.is_republished() {
            return Err(SettleError);
        }
        let at_ms = self.shared.now().as_millis();
        let lane = self.lane.as_str();
        self.settle(
            Fate::Parked {
                lane,
                reason,
                at_ms,
            },
            "park",
        )
        .await
    }

    async fn requeue(self: Box<Self>) -> Result<(), SettleError> {
        let at_ms = self.shared.now().as_millis();
        self.settle(
            Fate::Due {
                at_ms,
                retried: false,
                returned: false,
            },
            "requeue",
        )
        .await
    }
}
