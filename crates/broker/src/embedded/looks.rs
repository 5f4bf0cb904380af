//! How many messages of each lane the table holds, counted by its indexes every few seconds. Refuses
//! to keep a broker alive that nobody uses.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::time::sleep;
use watchword_events::Lane;

use super::{Shared, table};
use crate::queues::{LOOK_EVERY, Queues, set};

/// Looks until the broker is closed or gone.
pub(super) async fn look_on(shared: Weak<Shared>) {
    let mut queues = Queues::default();
    while let Some(shared) = shared.upgrade() {
        if shared.is_closed.load(Ordering::Relaxed) {
            return;
        }
        for lane in Lane::ALL {
            look(&shared, lane, &mut queues).await;
        }
        drop(shared);
        sleep(LOOK_EVERY).await;
    }
}

async fn look(shared: &Shared, lane: Lane, queues: &mut Queues) {
    let now_ms = shared.now().as_millis();
    let counted = shared
        .sqlite
        .read(move |connection| table::count(connection, lane.as_str(), now_ms));
    // Failing, the store's own series say so.
    let Ok((ready, parked)) = counted.await else {
        return;
    };
    let metrics = &shared.metrics;
    queues.ready(lane, ready, metrics, Instant::now());
    set(&metrics.lane(lane).parked, parked);
    let length = shared.lengths.get(&lane);
    let length = length.map_or(0, |length| length.load(Ordering::Relaxed));
    let length = u64::try_from(length).unwrap_or_default();
    set(&metrics.lane(lane).waiting, length.saturating_sub(ready));
}
