//! The loop of every role that takes messages: each in a task of its own, until told to stop, then
//! no more and those in work to their end. Refuses to bound how many: the consumer's prefetch does.

use tokio::task::JoinSet;

use crate::message::Received;
use crate::port::Consumer;

/// Gives every message of `consumer` to `work` until `stop`, then finishes those in work.
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
