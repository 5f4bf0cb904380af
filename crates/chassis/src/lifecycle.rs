//! Process lifecycle: named tasks, one stop signal, and a drain with a deadline.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Time that tasks have to finish after the stop signal. Longer than the longest provider attempt
/// ([`LONGEST_ATTEMPT`]), shorter than the 30 s after which orchestrators kill the process.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(25);

/// Maximum duration of one provider attempt, so that an attempt in flight ends within the drain.
pub const LONGEST_ATTEMPT: Duration = Duration::from_secs(20);

/// Reason for which the process ends with an error.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LifecycleError {
    /// A task ended before the stop signal.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
    /// A task panicked.
    #[error("a task panicked")]
    Panicked,
    /// Some tasks did not end within the drain deadline.
    #[error("{0} tasks did not finish within the drain deadline")]
    Overdue(usize),
    /// No handler for SIGTERM or SIGINT could be installed.
    #[error("the process cannot receive signals")]
    Signals,
}

/// Tasks of the process and the signal that stops them.
#[derive(Debug, Default)]
pub struct Lifecycle {
    stop: CancellationToken,
    tasks: JoinSet<&'static str>,
}

/// Waits for SIGTERM or SIGINT.
pub async fn stop_signal() -> Result<(), LifecycleError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|_| LifecycleError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|_| LifecycleError::Signals)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

impl Lifecycle {
    /// Returns the token that is cancelled when tasks should finish.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Spawns `task` under `name`. It should end soon after [`Lifecycle::stop`] is cancelled.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            task.await;
            name
        });
    }

    /// Waits for SIGTERM, SIGINT, the stop signal or the end of any task, then stops all tasks and
    /// waits at most [`DRAIN_DEADLINE`] for them.
    ///
    /// # Errors
    ///
    /// Fails if a task ended before the stop signal, panicked, or did not finish in time.
    pub async fn run_until_stopped(mut self) -> Result<(), LifecycleError> {
        let early = tokio::select! {
            signalled = stop_signal() => {
                signalled?;
                None
            }
            () = self.stop.cancelled() => None,
            ended = self.tasks.join_next() => ended,
        };
        tracing::info!("stopping");
        crate::telemetry::silence_amqp_client();
        self.stop.cancel();
        let drained = timeout(DRAIN_DEADLINE, async {
            let mut panicked = false;
            while let Some(ended) = self.tasks.join_next().await {
                panicked |= ended.is_err();
            }
            panicked
        })
        .await;
        match (early, drained) {
            (Some(Ok(name)), _) => Err(LifecycleError::Ended(name)),
            (Some(Err(_)), _) | (None, Ok(true)) => Err(LifecycleError::Panicked),
            (None, Err(_)) => Err(LifecycleError::Overdue(self.tasks.len())),
            (None, Ok(false)) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stopping_waits_for_the_tasks() {
        let mut lifecycle = Lifecycle::default();
        let (stop, done) = (lifecycle.stop(), CancellationToken::new());
        let (stopped, finished) = (stop.clone(), done.clone());
        lifecycle.spawn("worker", async move {
            stopped.cancelled().await;
            finished.cancel();
        });
        stop.cancel();
        assert_eq!(lifecycle.run_until_stopped().await, Ok(()));
        assert!(done.is_cancelled());
    }

    #[tokio::test]
    async fn a_task_that_ends_by_itself_ends_the_process_with_an_error() {
        let mut lifecycle = Lifecycle::default();
        lifecycle.spawn("consumer", async {});
        assert_eq!(
            lifecycle.run_until_stopped().await,
            Err(LifecycleError::Ended("consumer"))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_hangs_is_overdue() {
        let mut lifecycle = Lifecycle::default();
        lifecycle.spawn("hung", std::future::pending());
        lifecycle.stop().cancel();
        assert_eq!(
            lifecycle.run_until_stopped().await,
            Err(LifecycleError::Overdue(1))
        );
    }
}
