//! A few connections that are kept between mails. Whoever holds a connection owns it: a call that
//! is cancelled or fails drops it, so that no reply can ever be read by another mail (facts M2).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::link::Link;

/// Relays close idle connections after minutes; half a minute is far below.
const LONGEST_IDLE: Duration = Duration::from_secs(30);

pub(super) struct Pool {
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<(Link, Instant)>>>,
}

/// The right to one connection.
pub(super) struct Slot {
    idle: Arc<Mutex<Vec<(Link, Instant)>>>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(super) fn new(max_connections: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(max_connections)),
            idle: Arc::default(),
        }
    }

    /// Waits for a free connection; the caller's deadline bounds the wait.
    pub(super) async fn slot(&self) -> Option<Slot> {
        let permit = self.permits.clone().acquire_owned().await.ok()?;
        Some(Slot {
            idle: self.idle.clone(),
            _permit: permit,
        })
    }
}

impl Slot {
    /// The connection used last that has not rested too long.
    pub(super) fn take(&self) -> Option<Link> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since)| since.elapsed() < LONGEST_IDLE);
        idle.pop().map(|(link, _)| link)
    }

    /// Keeps a connection that ended its mail cleanly.
    pub(super) fn put_back(&self, link: Link) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((link, Instant::now()));
    }
}
