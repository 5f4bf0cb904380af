//! The places of a listener: who has one, and who gives way when they are taken.
//! Refuses to close a connection whose request is in work.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Patience;
use super::connection::Connection;

/// All connections of a listener.
#[derive(Debug)]
pub struct Places {
    most: usize,
    taken: Mutex<HashMap<u64, Arc<Connection>>>,
    next: AtomicU64,
    freed: Notify,
}

/// One connection's place; free again when dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    number: u64,
    connection: Arc<Connection>,
}

impl Places {
    /// As many places as `most`, all free.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            taken: Mutex::default(),
            next: AtomicU64::default(),
            freed: Notify::new(),
        }
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<u64, Arc<Connection>>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a new connection.
    pub fn take(self: &Arc<Self>) -> Place {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection::new());
        self.taken().insert(number, connection.clone());
        Place {
            places: self.clone(),
            number,
            connection,
        }
    }

    /// Keeps a place free for whoever comes next. `false` if all are in work.
    pub fn make_room(&self) -> bool {
        self.taken().len() < self.most || self.close_idlest()
    }

    /// Closes the connection that has waited longest for its caller.
    pub fn close_idlest(&self) -> bool {
        let mut taken = self.taken();
        let waiting = taken
            .iter()
            .filter_map(|(number, one)| Some((one.waits_since()?, *number)));
        let idlest = waiting.min().and_then(|(_, number)| taken.remove(&number));
        if let Some(connection) = &idlest {
            connection.close();
        }
        idlest.is_some()
    }

    /// Closes every connection that has kept us waiting for longer than `patience`.
    pub fn close_overdue(&self, patience: Patience) {
        self.taken().retain(|_, connection| {
            let overdue = connection.is_overdue(patience);
            if overdue {
                connection.close();
            }
            !overdue
        });
    }

    /// Ends every connection once it is done with its request.
    pub fn finish(&self) {
        self.taken().values().for_each(|one| one.finish());
    }

    /// Waits until a connection has ended.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }
}

impl Place {
    /// The connection that has it.
    pub const fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().remove(&self.number);
        self.places.freed.notify_one();
    }
}
