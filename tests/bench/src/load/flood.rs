//! Load that leaves codes behind: verifications that stay open, and a backlog.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::oneshot::Receiver;

use super::{COUNTRIES, Target, User};
use crate::provider::{Arrival, Provider};

/// Opens `count` verifications without checking them.
pub async fn fill(target: &Target, provider: &Arc<Provider>, count: usize) -> anyhow::Result<()> {
    const USERS: usize = 64;
    let mut tasks = Vec::new();
    for _ in 0..USERS {
        let mut user = User::connect(target).await?;
        let (target, provider) = (target.clone(), provider.clone());
        tasks.push(tokio::spawn(async move {
            for _ in 0..count / USERS {
                user.ask(&target, &provider, Instant::now()).await?;
            }
            anyhow::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// Requests `count` codes over `users` connections without waiting for them, and returns how many
/// were accepted. A connection stops at the first refusal, which means that the queue is full.
pub async fn flood(target: &Target, count: u64, users: usize) -> anyhow::Result<u64> {
    let left = Arc::new(AtomicU64::new(count));
    let mut tasks = Vec::with_capacity(users);
    for _ in 0..users {
        let mut user = User::connect(target).await?;
        let (target, left) = (target.clone(), left.clone());
        tasks.push(tokio::spawn(async move {
            let next = |left: u64| left.checked_sub(1);
            let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
            let mut accepted = 0;
            while take().is_ok() {
                if user.open(&target, &target.recipient()).await.is_err() {
                    break;
                }
                accepted += 1;
            }
            accepted
        }));
    }
    let mut accepted = 0;
    for task in tasks {
        accepted += task.await?;
    }
    Ok(accepted)
}

/// Requests one code over a separate connection, for a number of the first country. Returns a
/// receiver for its arrival.
pub async fn single(target: &Target, provider: &Provider) -> anyhow::Result<Receiver<Arrival>> {
    let mut user = User::connect(target).await?;
    let mut to = target.recipient();
    while !to.starts_with(COUNTRIES[0]) {
        to = target.recipient();
    }
    let arrival = provider.expect(&to);
    user.open(target, &to).await?;
    Ok(arrival)
}
