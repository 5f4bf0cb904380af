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

/// The table is right where the lengths are not: a publish or a settlement whose caller gave up is
/// committed later and changes no length.
async fn look(shared: &Shared, lane: Lane, queues: &mut Queues) {
    let now_ms = shared.now().as_millis();
    let words = (lane.as_str(), lane.late());
    let counted = shared
        .sqlite
        .read(move |connection| table::count(connection, words, now_ms));
    // Failing, the store's own series say so.
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
