//! Publisher of the embedded engine. A confirm means that the message is on disk.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::time::timeout;
use watchword_events::Lane;
use watchword_storage::StorageError;

use super::Shared;
use super::table::{self, New};
use crate::message::{Outbound, Route};
use crate::port::{LinkState, PublishError, Publisher};

pub(super) struct EmbeddedPublisher {
    shared: Arc<Shared>,
}

impl EmbeddedPublisher {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    async fn insert(&self, message: Outbound) -> Result<(), PublishError> {
        let shared = &self.shared;
        if shared.state() != LinkState::Up {
            return Err(PublishError::Unavailable);
        }
        let now_ms = shared.now().as_millis();
        let (lane, parked) = match message.route {
            Route::Event(_) => return Ok(()),
            Route::Lane(lane) => (lane, None),
            Route::Parked(lane, reason) => (lane, Some((reason, now_ms))),
        };
        if parked.is_none() && self.is_full(lane) {
            return Err(PublishError::Rejected);
        }
        let is_parked = parked.is_some();
        let new = New {
            lane: lane.as_str(),
            message_id: message.id,
            kind: message.kind,
            body: message.body.to_vec(),
            traceparent: message.traceparent.map(|trace| trace.to_string()),
            due_ms: (!is_parked).then_some(now_ms),
            expires_ms: message.ttl.map(|ttl| {
                now_ms.saturating_add(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX))
            }),
            parked,
        };
        shared
            .sqlite
            .write(move |connection| table::insert(connection, &new))
            .await
            .map_err(|error| match error {
                StorageError::Timeout => PublishError::Unconfirmed,
                _ => PublishError::Unavailable,
            })?;
        if !is_parked {
            shared.count(lane, 1);
            shared.arrived(lane.as_str());
        }
        Ok(())
    }

    fn is_full(&self, lane: Lane) -> bool {
        let length = self
            .shared
            .lengths
            .get(&lane)
            .map_or(0, |length| length.load(Ordering::Relaxed));
        u64::try_from(length).is_ok_and(|length| length >= self.shared.settings.max_length)
    }
}

#[async_trait]
impl Publisher for EmbeddedPublisher {
    async fn publish(&self, message: Outbound, deadline: Duration) -> Result<(), PublishError> {
        let begun = Instant::now();
        let route = message.route.clone();
        let published = timeout(deadline, self.insert(message))
            .await
            .unwrap_or(Err(PublishError::Unconfirmed));
        self.shared
            .metrics
            .published(&route, &published, begun.elapsed());
        published
    }

    fn state(&self) -> LinkState {
        self.shared.state()
    }
}
