//! Settling one message on the channel that delivered it. A message that moves to another queue is
//! acknowledged only after that queue confirmed it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use lapin::BasicProperties;
use tokio::time::{sleep, timeout};
use watchword_core::Rung;
use watchword_events::Lane;
use watchword_failpoint::{Point, reach};

use super::acks::Acks;
use super::batch::Parcel;
use super::publisher::{RabbitPublisher, for_late, for_parking, for_retry};
use crate::dead_letter::DeadLetterReason;
use crate::port::{Settle, SettleError};
use crate::telemetry::BrokerMetrics;

const DEADLINE: Duration = Duration::from_secs(5);
/// How long a message that cannot be moved is held before it returns to its queue.
const HOLD: Duration = Duration::from_secs(1);

pub(super) struct RabbitSettle {
    pub(super) lane: Lane,
    pub(super) tag: u64,
    pub(super) acks: Arc<Acks>,
    pub(super) publisher: Arc<RabbitPublisher>,
    pub(super) metrics: BrokerMetrics,
    /// Empty for a queue whose messages are not republished.
    pub(super) body: Bytes,
    pub(super) properties: BasicProperties,
    pub(super) retries: u32,
}

impl RabbitSettle {
    async fn acknowledge(&self, how: &'static str) -> Result<(), SettleError> {
        let is_acked = timeout(DEADLINE, self.acks.ack(self.tag)).await;
        self.settled(how, is_acked == Ok(true))
    }

    fn settled(&self, how: &'static str, is_settled: bool) -> Result<(), SettleError> {
        if !is_settled {
            return Err(SettleError);
        }
        self.metrics.settled(self.lane, how);
        Ok(())
    }

    /// Publishes the message to `queue`, waits for the confirm, then acknowledges it: a crash in
    /// between leaves two copies, never none. If the publish fails, holds the message for `hold`
    /// before returning it to its queue; otherwise it would be redelivered immediately and the
    /// delay lost.
    async fn move_to(
        &self,
        queue: String,
        properties: BasicProperties,
        how: &'static str,
        hold: Duration,
    ) -> Result<(), SettleError> {
        let parcel = Parcel {
            exchange: "",
            key: queue,
            mandatory: true,
            body: self.body.clone(),
            properties,
        };
        let put = self.publisher.put_aside(self.lane, parcel, DEADLINE);
        if put.await.is_err() {
            sleep(hold.min(DEADLINE)).await;
            self.hand_back().await?;
            return Err(SettleError);
        }
        reach(Point::BrokerMoved);
        self.acknowledge(how).await
    }

    /// Moves an expired order to the late queue.
    pub(super) async fn move_late(&self) -> Result<(), SettleError> {
        let Some(queue) = self.lane.late_queue() else {
            return Err(SettleError);
        };
        let properties = for_late(&self.properties);
        self.move_to(queue, properties, "late", HOLD).await
    }

    /// Fails for requests: a republished request would leave a recipient in clear on the broker.
    fn check_republished(&self) -> Result<(), SettleError> {
        if self.lane.is_republished() {
            Ok(())
        } else {
            Err(SettleError)
        }
    }

    async fn hand_back(&self) -> Result<(), SettleError> {
        let is_back = timeout(DEADLINE, self.acks.hand_back(self.tag)).await;
        self.settled("requeue", is_back == Ok(true))
    }
}

#[async_trait]
impl Settle for RabbitSettle {
    fn is_held(&self) -> bool {
        self.acks.is_connected()
    }

    async fn ack(self: Box<Self>) -> Result<(), SettleError> {
        self.acknowledge("ack").await
    }

    async fn retry(self: Box<Self>, rung: Rung) -> Result<(), SettleError> {
        self.check_republished()?;
        let (queue, properties) = for_retry(self.lane, rung, self.retries, &self.properties);
        let hold = Duration::from_millis(rung.delay_ms);
        self.move_to(queue, properties, "retry", hold).await
    }

    async fn dead_letter(self: Box<Self>, reason: DeadLetterReason) -> Result<(), SettleError> {
        self.check_republished()?;
        let (queue, properties) = for_parking(self.lane, reason, &self.properties);
        self.move_to(queue, properties, "park", HOLD).await
    }

    async fn requeue(self: Box<Self>) -> Result<(), SettleError> {
        self.hand_back().await
    }
}
