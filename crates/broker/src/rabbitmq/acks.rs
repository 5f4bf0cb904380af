//! Acknowledgements of one channel. Acknowledgements that wait together are written together, and
//! as a single frame (`multiple`) when every earlier message is settled, because each frame costs
//! the broker work. A frame never covers a message that is not settled; a property test enforces
//! it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Delivery tag: the broker's number of a message on its channel, in order of delivery.
type Tag = u64;

/// Deadline for writing the frames of one batch.
const DEADLINE: Duration = Duration::from_secs(5);
/// The most acknowledgements in one batch.
const MOST: usize = 256;

struct Done {
    tag: Tag,
    answer: oneshot::Sender<bool>,
}

/// The acknowledgements of one channel. The channel stays open as long as one of its messages is
/// unsettled.
pub(super) struct Acks {
    channel: Channel,
    open: Mutex<Open>,
    /// Unbounded, but never longer than the prefetch: each message is acknowledged once.
    done: mpsc::UnboundedSender<Done>,
}

impl Acks {
    pub(super) fn start(channel: Channel) -> Arc<Self> {
        let (done, waiting) = mpsc::unbounded_channel();
        let acks = Arc::new(Self {
            channel,
            open: Mutex::default(),
            done,
        });
        // The task ends with the last message, because the sender is then dropped.
        tokio::spawn(write(waiting, Arc::downgrade(&acks)));
        acks
    }

    /// Records that `tag` was delivered. Until it is settled, no later acknowledgement covers it.
    pub(super) fn handed_out(&self, tag: Tag) {
        self.open().0.insert(tag);
    }

    /// Acknowledges `tag`. Returns whether the frame was written to an open channel; the broker
    /// sends no reply to it.
    pub(super) async fn ack(&self, tag: Tag) -> bool {
        let (answer, answered) = oneshot::channel();
        let is_sent = self.is_connected() && self.done.send(Done { tag, answer }).is_ok();
        is_sent && answered.await.unwrap_or(false)
    }

    /// Returns `tag` to its queue (`basic.nack` with requeue). If that fails, the tag stays open,
    /// and later messages are acknowledged one by one.
    pub(super) async fn hand_back(&self, tag: Tag) -> bool {
        let options = BasicNackOptions {
            requeue: true,
            multiple: false,
        };
        let is_back = self.is_connected() && self.channel.basic_nack(tag, options).await.is_ok();
        if is_back {
            self.open().0.remove(&tag);
        }
        is_back
    }

    /// Returns whether the channel is open, so that its messages can be settled.
    pub(super) fn is_connected(&self) -> bool {
        self.channel.status().connected()
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tags that were delivered and are not settled.
#[derive(Default)]
struct Open(BTreeSet<Tag>);

impl Open {
    /// Settles `tags` and returns the frames to write: the tag up to which all messages are
    /// acknowledged, and the remaining single tags.
    fn settle(&mut self, tags: &[Tag]) -> (Option<Tag>, Vec<Tag>) {
        for tag in tags {
            self.0.remove(tag);
        }
        let first = self.0.first().copied().unwrap_or(Tag::MAX);
        let (covered, others): (Vec<Tag>, Vec<Tag>) = tags.iter().partition(|tag| **tag < first);
        (covered.into_iter().max(), others)
    }
}

async fn write(mut waiting: mpsc::UnboundedReceiver<Done>, acks: Weak<Acks>) {
    let mut batch = Vec::with_capacity(MOST);
    while waiting.recv_many(&mut batch, MOST).await > 0 {
        // A caller that waits for an answer holds a reference; without one there is no answer to
        // give.
        let Some(acks) = acks.upgrade() else { return };
        let tags: Vec<_> = batch.iter().map(|done| done.tag).collect();
        let (all_up_to, others) = acks.open().settle(&tags);
        let multiple = all_up_to.map(|tag| (tag, true));
        let frames = multiple
            .into_iter()
            .chain(others.into_iter().map(|tag| (tag, false)));
        let written = join_all(frames.map(async |(tag, multiple)| {
            let options = BasicAckOptions { multiple };
            acks.channel.basic_ack(tag, options).await.is_ok()
        }));
        // After a timeout it is unknown which frames were written: report all as failed, and the
        // broker redelivers what it still holds.
        let written = timeout(DEADLINE, written).await.unwrap_or(vec![false]);
        let is_written = written.into_iter().all(|is_written| is_written) && acks.is_connected();
        for done in batch.drain(..) {
            let _ = done.answer.send(is_written);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_done_is_not_covered() {
        let mut open = Open((1..=6).collect());
        assert_eq!(open.settle(&[3, 2]), (None, vec![3, 2]));
        assert_eq!(open.settle(&[1, 5]), (Some(1), vec![5]));
        assert_eq!(open.settle(&[4]), (Some(4), vec![]));
        assert_eq!(open.settle(&[6]), (Some(6), vec![]));
    }

    proptest! {
        #[test]
        fn each_is_acknowledged_once_it_is_done_and_no_sooner(
            order in Just((1..=40_u64).collect::<Vec<_>>()).prop_shuffle(),
            size in 1..9_usize,
        ) {
            let mut open = Open(order.iter().copied().collect());
            let mut done = BTreeSet::new();
            let mut acknowledged = BTreeSet::new();
            for batch in order.chunks(size) {
                done.extend(batch);
                let (all_up_to, others) = open.settle(batch);
                acknowledged.extend(1..=all_up_to.unwrap_or(0));
                acknowledged.extend(others);
                prop_assert_eq!(&acknowledged, &done);
            }
        }
    }
}
