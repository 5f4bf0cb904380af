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

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}
