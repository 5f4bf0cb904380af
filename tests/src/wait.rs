//! Waiting for a condition: the only place that sleeps.

use std::future::Future;
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// Asks `condition` until it gives a value, at most `seconds`; panics with `what` then.
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

/// Where the kernel takes no ports for outgoing connections, of which a test has hundreds: one of
/// them on a server's port, and the server does not start (again).
const PORTS: std::ops::Range<u16> = 11_000..32_000;

/// A port that was free a moment ago. Processes that run at the same time draw theirs apart.
pub fn free_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| fastrand::u16(PORTS))
        .take(1_000)
        .find(is_free)
        .expect("a free port")
}
