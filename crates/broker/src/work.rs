//! The receive loop that every role uses. Each message runs in a task of its own; the consumer's
//! prefetch bounds how many run at once.

use tokio::task::JoinSet;

use crate::message::Received;
use crate::port::Consumer;

/// Runs `work` for every message of `consumer` until `stop` resolves, then waits for the messages
/// that are still in flight.
pub async fn work_until<Work, Done>(
    mut consumer: Box<dyn Consumer>,
    stop: impl Future<Output = ()> + Send,
    work: Work,
) where
    Work: Fn(Received) -> Done + Send,
    Done: Future<Output = ()> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            received = consumer.receive() => match received {
                Some(received) => {
                    tasks.spawn(work(received));
                }
                None => break,
            },
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
        }
    }
    consumer.stop().await;
    while tasks.join_next().await.is_some() {}
}
