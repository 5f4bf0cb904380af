//! Queue depths of the embedded engine, counted through the table's indexes every few seconds. The
//! task holds only a weak reference, so that it does not keep an unused broker alive.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::time::sleep;
use watchword_events::Lane;

use super::{Shared, table};
use crate::queues::{LOOK_EVERY, Queues, set};

/// Samples all queues until the broker is closed or dropped.
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

/// Counts one queue, and corrects its cached length: a publish or settlement whose caller gave up
/// can commit later without changing that length.
async fn look(shared: &Shared, lane: Lane, queues: &mut Queues) {
    let now_ms = shared.now().as_millis();
    let words = (lane.as_str(), lane.late());
    let counted = shared
        .sqlite
        .read(move |connection| table::count(connection, words, now_ms));
    // On failure, keep the last values; the store's own metrics show the fault.
    let Ok(counts) = counted.await else {
        return;
    };
    shared.set_length(lane, counts.length);
    let metrics = &shared.metrics;
    queues.ready(lane, counts.ready, metrics, Instant::now());
    set(&metrics.lane(lane).parked, counts.parked);
    let waiting = counts.length.saturating_sub(counts.ready);
    set(&metrics.lane(lane).waiting, waiting);
}
