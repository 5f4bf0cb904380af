//! Connection places of a listener and its memory for arriving bodies: which connections have a
//! place, and which one is closed when places or memory run out. A connection whose request is
//! being handled is never closed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Patience;
use super::connection::Connection;

/// Maximum memory for bodies that are still arriving, for each listener.
const MAX_HELD_BYTES: usize = 16 * 1024 * 1024;

/// All connections of a listener.
#[derive(Debug)]
pub struct Places {
    most: usize,
    taken: Mutex<Taken>,
    next: AtomicU64,
    freed: Notify,
}

/// Place of one connection; dropping it frees the place.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    number: u64,
    connection: Arc<Connection>,
}

/// The connections and the memory that their bodies take.
#[derive(Debug, Default)]
struct Taken {
    connections: HashMap<u64, Entry>,
    held_bytes: usize,
}

#[derive(Debug)]
struct Entry {
    connection: Arc<Connection>,
    held_bytes: usize,
}

impl Taken {
    /// Removes connection `number` and frees its place and memory.
    fn remove(&mut self, number: u64) -> Option<Arc<Connection>> {
        let entry = self.connections.remove(&number)?;
        self.held_bytes -= entry.held_bytes;
        Some(entry.connection)
    }

    /// Closes the connection with the earliest time of `since`. Returns false if `since` is `None`
    /// for all.
    fn close_first(&mut self, since: impl Fn(&Entry) -> Option<Instant>) -> bool {
        let waiting = self
            .connections
            .iter()
            .filter_map(|(number, entry)| Some((since(entry)?, *number)));
        let first = waiting.min().and_then(|(_, number)| self.remove(number));
        if let Some(connection) = &first {
            connection.close();
        }
        first.is_some()
    }
}

impl Places {
    /// Creates `most` free places.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            taken: Mutex::default(),
            next: AtomicU64::default(),
            freed: Notify::new(),
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a new connection.
    pub fn take(self: &Arc<Self>) -> Place {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection::new());
        let entry = Entry {
            connection: connection.clone(),
            held_bytes: 0,
        };
        self.taken().connections.insert(number, entry);
        Place {
            places: self.clone(),
            number,
            connection,
        }
    }

    /// Makes a place free for the next connection, if necessary by closing an idle one. Returns
    /// false if every connection has a request in progress.
    pub fn make_room(&self) -> bool {
        self.taken().connections.len() < self.most || self.close_idlest()
    }

    /// Closes the connection that has waited longest for its client.
    pub fn close_idlest(&self) -> bool {
        self.taken()
            .close_first(|entry| entry.connection.waits_since())
    }

    /// Closes every connection whose client has exceeded `patience`.
    pub fn close_overdue(&self, patience: Patience) {
        let mut taken = self.taken();
        let overdue: Vec<_> = taken
            .connections
            .iter()
            .filter(|(_, entry)| entry.connection.is_overdue(patience))
            .map(|(number, _)| *number)
            .collect();
        for connection in overdue
            .into_iter()
            .filter_map(|number| taken.remove(number))
        {
            connection.close();
        }
    }

    /// Ends every connection after its current request.
    pub fn finish(&self) {
        let taken = self.taken();
        taken
            .connections
            .values()
            .for_each(|entry| entry.connection.finish());
    }

    /// Waits until a connection has ended.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }
}

impl Place {
    /// Returns the connection that holds this place.
    pub const fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Counts `bytes` more of an arriving body. If they exceed the memory for bodies, closes the
    /// connections whose bodies have been arriving longest.
    pub fn hold(&self, bytes: usize) {
        let mut taken = self.places.taken();
        // A connection that was already closed holds no memory.
        let Some(entry) = taken.connections.get_mut(&self.number) else {
            return;
        };
        entry.held_bytes += bytes;
        taken.held_bytes += bytes;
        let receiving = |entry: &Entry| {
            let since = entry.connection.receives_since();
            since.filter(|_| entry.held_bytes > 0)
        };
        while taken.held_bytes > MAX_HELD_BYTES && taken.close_first(receiving) {}
    }

    /// Frees the memory of the body: it has arrived, or the listener has given up on it.
    pub fn release(&self) {
        let mut taken = self.places.taken();
        if let Some(entry) = taken.connections.get_mut(&self.number) {
            let held = std::mem::take(&mut entry.held_bytes);
            taken.held_bytes -= held;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().remove(self.number);
        self.places.freed.notify_one();
    }
}
