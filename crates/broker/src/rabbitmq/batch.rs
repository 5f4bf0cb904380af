//! Publishing in batches. Each task has a channel, takes all waiting messages as one batch, and
//! answers when the whole batch is confirmed.
//!
//! The client library (lapin) attaches a returned message to whichever confirm completes next
//! (lapin issues 254 and 369), so a single confirm does not tell which message was returned. The
//! task therefore waits for the whole batch and matches returned messages by their id. Under low
//! load a batch is one message; under high load batches grow, and the broker confirms many messages
//! at once.
//!
//! A caller gets [`PublishError::Unconfirmed`] whenever its message may have been written.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::link::Link;
use super::supervisor::Supervisor;
use crate::port::{LinkState, PublishError};

/// Batches in flight at once: one is confirmed while the next is written.
const CHANNELS: usize = 2;
/// The most messages in one batch. Together the batches hold 100 to 250 messages; larger ones only
/// lengthened the queues in measurements.
const MOST: usize = 64;
/// How long a batch waits for confirms after the last caller's deadline.
const GRACE: Duration = Duration::from_millis(100);

/// How long a channel may get only nacks before it is replaced. If a channel first publishes while
/// the queue has no leader, the broker's side of that channel keeps refusing after a leader is
/// elected. Seen with `RabbitMQ` 3.10 after a cluster node was killed. A new channel works.
const REFUSED_AT_MOST: Duration = Duration::from_secs(1);

/// A message with its AMQP routing and properties.
pub(super) struct Parcel {
    pub(super) exchange: &'static str,
    pub(super) key: String,
    pub(super) mandatory: bool,
    pub(super) body: Bytes,
    pub(super) properties: BasicProperties,
}

struct Waiting {
    parcel: Parcel,
    until: Instant,
    /// Set by whichever comes first: the task that writes the message, or the caller that gives up.
    is_taken: Arc<AtomicBool>,
    answer: oneshot::Sender<Result<(), PublishError>>,
}

/// Publishes to one kind of destination, so that a queue that does not answer delays only its own
/// messages.
pub(super) struct Batches {
    sender: mpsc::Sender<Waiting>,
    supervisor: Arc<Supervisor>,
}

impl Batches {
    pub(super) fn start(supervisor: Arc<Supervisor>) -> Self {
        let (sender, waiting) = mpsc::channel(CHANNELS * MOST);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..CHANNELS {
            tokio::spawn(carry(waiting.clone(), supervisor.clone()));
        }
        Self { sender, supervisor }
    }

    /// Publishes `parcel` and waits for the confirm, at most `deadline`.
    pub(super) async fn send(
        &self,
        parcel: Parcel,
        deadline: Duration,
    ) -> Result<(), PublishError> {
        match self.supervisor.state() {
            LinkState::Up => {}
            LinkState::Blocked => return Err(PublishError::Blocked),
            LinkState::Down => return Err(PublishError::Unavailable),
        }
        let until = Instant::now() + deadline;
        let is_taken = Arc::new(AtomicBool::new(false));
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting {
            parcel,
            until,
            is_taken: is_taken.clone(),
            answer,
        };
        let published = async {
            if self.sender.send(waiting).await.is_err() {
                return Err(PublishError::Unavailable);
            }
            answered.await.unwrap_or(Err(PublishError::Unconfirmed))
        };
        // If the task already took the message, the broker may still accept it.
        let given_up = |otherwise| {
            let is_written = is_taken.swap(true, Ordering::AcqRel);
            Err(if is_written {
                PublishError::Unconfirmed
            } else {
                otherwise
            })
        };
        tokio::select! {
            published = timeout_at(until, published) => {
                published.unwrap_or_else(|_| given_up(PublishError::Unavailable))
            }
            () = self.supervisor.blocked() => given_up(PublishError::Blocked),
        }
    }
}

/// Publishes batches, on one channel after another, until every sender is dropped.
async fn carry(waiting: Arc<Mutex<mpsc::Receiver<Waiting>>>, supervisor: Arc<Supervisor>) {
    // Weak, because a lost link must end even while a channel of it is kept here.
    let mut kept: Option<(Weak<Link>, Channel)> = None;
    let mut refusals = Refusals::default();
    loop {
        let mut batch = Vec::new();
        // The tasks share the receiver: whichever is idle takes the next batch.
        if waiting.lock().await.recv_many(&mut batch, MOST).await == 0 {
            return;
        }
        let Some((link, channel)) = channel(kept.take(), &supervisor).await else {
            for message in batch {
                let _ = message.answer.send(Err(PublishError::Unavailable));
            }
            continue;
        };
        batch.retain(|message| !message.is_taken.swap(true, Ordering::AcqRel));
        let published = publish(&channel, batch, &supervisor).await;
        // A channel that is not kept closes when it is dropped.
        if refusals.is_fit(published, Instant::now()) {
            kept = Some((Arc::downgrade(&link), channel));
        }
    }
}

/// Returns the kept channel if it belongs to the current link and is open; otherwise a new channel.
async fn channel(
    kept: Option<(Weak<Link>, Channel)>,
    supervisor: &Supervisor,
) -> Option<(Arc<Link>, Channel)> {
    let link = supervisor.link()?;
    if let Some((of, channel)) = kept
        && of.as_ptr() == Arc::as_ptr(&link)
        && channel.status().connected()
    {
        return Some((link, channel));
    }
    let channel = link.publishing_channel().await.ok()?;
    Some((link, channel))
}

/// Since when a channel gets only nacks.
#[derive(Debug, Default)]
struct Refusals(Option<Instant>);

impl Refusals {
    /// Returns whether the channel may be used again after this batch.
    fn is_fit(&mut self, published: Published, now: Instant) -> bool {
        if published != Published::Refused {
            self.0 = None;
            // On a broken channel a confirm may still be outstanding.
            return published == Published::Whole;
        }
        let since = *self.0.get_or_insert(now);
        let is_fit = now.duration_since(since) < REFUSED_AT_MOST;
        if !is_fit {
            self.0 = None;
        }
        is_fit
    }
}

/// The result of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Published {
    /// Every confirm arrived.
    Whole,
    /// Every confirm arrived, and each was a nack.
    Refused,
    /// A confirm is missing: the channel cannot be used again.
    Broken,
}

async fn publish(channel: &Channel, batch: Vec<Waiting>, supervisor: &Supervisor) -> Published {
    let Some(until) = batch.iter().map(|message| message.until).max() else {
        return Published::Whole;
    };
    // Keep for each written message its waiting caller, its id and whether it is mandatory.
    let (told, parcels): (Vec<_>, Vec<_>) = batch
        .into_iter()
        .map(|message| {
            let id = message.parcel.properties.message_id().clone();
            (
                (message.answer, id, message.parcel.mandatory),
                message.parcel,
            )
        })
        .unzip();
    let all = join_all(parcels.into_iter().map(|parcel| write(channel, parcel)));
    // Dropping the answers reports `Unconfirmed` to the callers.
    let Ok(confirms) = timeout_at(until + GRACE, all).await else {
        return Published::Broken;
    };
    let mut returned = HashSet::new();
    let confirms: Vec<_> = confirms
        .into_iter()
        .map(|confirm| match confirm {
            Ok(Confirmation::Ack(back)) => {
                returned.extend(back.map(|back| back.properties.message_id().clone()));
                Ok(())
            }
            Ok(Confirmation::Nack(back)) => {
                returned.extend(back.map(|back| back.properties.message_id().clone()));
                Err(PublishError::Rejected)
            }
            // The channel is not in confirm mode, or it broke.
            Ok(Confirmation::NotRequested) | Err(_) => Err(PublishError::Unconfirmed),
        })
        .collect();
    if !returned.is_empty() {
        supervisor.undeclared();
    }
    let is_whole = !confirms.contains(&Err(PublishError::Unconfirmed));
    let are_refused = confirms
        .iter()
        .all(|one| *one == Err(PublishError::Rejected));
    for ((answer, id, mandatory), confirm) in told.into_iter().zip(confirms) {
        let came_back = returned.contains(&id);
        let published = match confirm {
            Ok(()) | Err(PublishError::Rejected) if came_back => Err(PublishError::Unroutable),
            // The message that was returned may be this one: the confirm that carried the return
            // was lost with the channel.
            Ok(()) if !is_whole && mandatory => Err(PublishError::Unconfirmed),
            confirm => confirm,
        };
        let _ = answer.send(published);
    }
    match (is_whole, are_refused) {
        (true, true) => Published::Refused,
        (true, false) => Published::Whole,
        (false, _) => Published::Broken,
    }
}

async fn write(channel: &Channel, parcel: Parcel) -> lapin::Result<Confirmation> {
    let options = BasicPublishOptions {
        mandatory: parcel.mandatory,
        ..BasicPublishOptions::default()
    };
    let confirm = channel.basic_publish(
        parcel.exchange.into(),
        ShortString::from(parcel.key),
        options,
        &parcel.body,
        parcel.properties,
    );
    confirm.await?.await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_that_only_refuses_is_opened_anew_each_second() {
        use Published::{Broken, Refused, Whole};
        let begun = Instant::now();
        let mut refusals = Refusals::default();
        for (at_ms, published, is_fit) in [
            (0, Refused, true),
            (900, Refused, true),
            (950, Whole, true),
            (1_000, Refused, true),
            (1_999, Refused, true),
            (2_000, Refused, false),
            (2_001, Refused, true),
            (3_000, Refused, true),
            (3_001, Refused, false),
            (3_002, Broken, false),
            (3_500, Refused, true),
        ] {
            let now = begun + Duration::from_millis(at_ms);
            assert_eq!(refusals.is_fit(published, now), is_fit, "{at_ms}");
        }
    }
}
