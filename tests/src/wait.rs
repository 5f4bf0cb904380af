//! Helpers that wait for a condition and pick free ports.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::TcpListener;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Polls `condition` every 20 ms until it returns a value. Panics with `what` after `seconds`.
pub async fn until<T, F, C>(seconds: u64, what: &str, mut condition: C) -> T
where
    F: Future<Output = Option<T>>,
    C: FnMut() -> F,
{
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {seconds} s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A range from which the kernel takes no ports for outgoing connections. A test has hundreds of
/// them, and one on a server's port would keep the server from starting (again).
const PORTS: std::ops::Range<u16> = 11_000..32_000;

/// Returns a port that nothing listens on and that this process has not returned before. A second
/// server on the same port would fail to start, and its URL would lead to the first one.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().expect("no panic holds the lock");
    let is_free =
        |port: &u16| !given.contains(port) && TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = std::iter::repeat_with(|| fastrand::u16(PORTS))
        .take(1_000)
        .find(is_free)
        .expect("a free port");
    given.insert(port);
    port
}
