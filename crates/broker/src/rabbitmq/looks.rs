//! Queue depths from the broker, sampled every few seconds with passive declarations, which take no
//! message. A channel of its own keeps the samples from delaying consumers.

use std::time::{Duration, Instant};

use lapin::Channel;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use watchword_core::Ladder;
use watchword_events::Lane;
use watchword_events::names::request_queue;

use super::link::Link;
use super::supervisor::Objects;
use crate::queues::{LOOK_EVERY, Queues, set};
use crate::telemetry::BrokerMetrics;

const DEADLINE: Duration = Duration::from_secs(3);
/// Wait, late, dead-letter and service queues are many, so they are sampled only in every sixth
/// round.
const ASIDE_EVERY: u32 = 6;

/// Samples the queues for as long as it is polled.
pub(super) async fn look_on(
    link: &Link,
    objects: watch::Receiver<Objects>,
    queues: &mut Queues,
    metrics: &BrokerMetrics,
) {
    loop {
        if let Ok(channel) = link.consuming_channel().await {
            // A missing queue closes the channel and ends the call.
            let looked = look(&channel, &objects, queues, metrics).await;
            if looked.is_none() {
                tracing::debug!("cannot read the queue depths");
            }
            let _ = timeout(DEADLINE, channel.close(200, "looked".into())).await;
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn look(
    channel: &Channel,
    objects: &watch::Receiver<Objects>,
    queues: &mut Queues,
    metrics: &BrokerMetrics,
) -> Option<()> {
    let mut of_services = 0;
    for round in 0_u32.. {
        for lane in Lane::ALL {
            let (mut ready, consumers) = messages(channel, lane.queue()).await?;
            if lane == Lane::Requests {
                if round.is_multiple_of(ASIDE_EVERY) {
                    let services = objects.borrow().request_services.clone();
                    of_services = 0;
                    for service in &services {
                        of_services += messages(channel, request_queue(service)).await?.0;
                    }
                }
                ready += of_services;
            }
            queues.ready(lane, ready, metrics, Instant::now());
            set(&metrics.lane(lane).consumers, consumers);
            if !round.is_multiple_of(ASIDE_EVERY) {
                continue;
            }
            let mut waiting = 0;
            if lane.is_republished() {
                for rung in Ladder::STANDARD.rungs() {
                    waiting += messages(channel, lane.retry_queue(*rung)).await?.0;
                }
            }
            if let Some(late) = lane.late_queue() {
                waiting += messages(channel, late).await?.0;
            }
            set(&metrics.lane(lane).waiting, waiting);
            let (parked, _) = messages(channel, lane.parked_queue()).await?;
            set(&metrics.lane(lane).parked, parked);
        }
        sleep(LOOK_EVERY).await;
    }
    Some(())
}

/// Returns the number of ready messages in `queue` and its number of consumers.
async fn messages(channel: &Channel, queue: String) -> Option<(u64, u64)> {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
    let queue = timeout(DEADLINE, declared).await.ok()?.ok()?;
    Some((queue.message_count().into(), queue.consumer_count().into()))
}
