//! Pool of idle SMTP connections. A caller owns its connection. A call that fails or is cancelled
//! drops the connection, because a reply still in flight would be read as the reply to the next
//! mail.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::link::Link;

/// Maximum idle time, far below the minutes after which relays close connections.
const LONGEST_IDLE: Duration = Duration::from_secs(30);

pub(super) struct Pool {
    permits: Arc<Semaphore>,
    /// Domains with a mail that uses or waits for a connection.
    domains: Arc<Mutex<HashMap<Box<str>, Arc<Semaphore>>>>,
    most_per_domain: usize,
    idle: Arc<Mutex<Vec<(Link, Instant)>>>,
}

/// Permit for one connection.
pub(super) struct Slot {
    idle: Arc<Mutex<Vec<(Link, Instant)>>>,
    _permit: OwnedSemaphorePermit,
    _share: Share,
}

/// Permit of a domain for one connection. The pool forgets a domain after its last mail, so that
/// the map has at most one entry per attempt.
struct Share {
    domains: Arc<Mutex<HashMap<Box<str>, Arc<Semaphore>>>>,
    domain: Box<str>,
    permits: Option<Arc<Semaphore>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut domains = self.domains.lock().unwrap_or_else(PoisonError::into_inner);
        self.permit = None;
        self.permits = None;
        if let Some(permits) = domains.get(&self.domain)
            && Arc::strong_count(permits) == 1
        {
            domains.remove(&self.domain);
        }
    }
}

impl Pool {
    pub(super) fn new(max_connections: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(max_connections)),
            domains: Arc::default(),
            most_per_domain: (max_connections / 4).max(1),
            idle: Arc::default(),
        }
    }

    /// Waits for a free connection; the caller limits the wait. Mails to one domain get at most a
    /// quarter of the connections: some relays ask the recipient's server before they reply, and
    /// one slow domain must not hold up all others.
    pub(super) async fn slot(&self, domain: &str) -> Option<Slot> {
        let mut share = self.share(domain);
        let permits = share.permits.clone()?;
        share.permit = Some(permits.acquire_owned().await.ok()?);
        let permit = self.permits.clone().acquire_owned().await.ok()?;
        Some(Slot {
            idle: self.idle.clone(),
            _permit: permit,
            _share: share,
        })
    }

    fn share(&self, domain: &str) -> Share {
        let domain: Box<str> = domain.to_ascii_lowercase().into();
        let mut domains = self.domains.lock().unwrap_or_else(PoisonError::into_inner);
        let permits = domains
            .entry(domain.clone())
            .or_insert_with(|| Arc::new(Semaphore::new(self.most_per_domain)))
            .clone();
        drop(domains);
        Share {
            domains: self.domains.clone(),
            domain,
            permits: Some(permits),
            permit: None,
        }
    }
}

impl Slot {
    /// Returns the most recently used idle connection that is not too old.
    pub(super) fn take(&self) -> Option<Link> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since)| since.elapsed() < LONGEST_IDLE);
        idle.pop().map(|(link, _)| link)
    }

    /// Returns a connection to the pool after a mail that ended cleanly.
    pub(super) fn put_back(&self, link: Link) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((link, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_domain_gets_a_quarter_of_the_connections() {
        let pool = Pool::new(8);
        let soon = Duration::from_millis(20);
        let first = pool.slot("slow.example").await.unwrap();
        let second = pool.slot("SLOW.example").await.unwrap();
        let third = tokio::time::timeout(soon, pool.slot("slow.example")).await;
        assert!(third.is_err());
        let other = tokio::time::timeout(soon, pool.slot("example.org")).await;
        assert!(other.is_ok());
        drop((first, other));
        assert!(pool.slot("slow.example").await.is_some());
        drop(second);
        assert!(pool.domains.lock().unwrap().is_empty());
        // A pool of one connection serves every domain.
        assert!(Pool::new(1).slot("example.org").await.is_some());
    }
}
