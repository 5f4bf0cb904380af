//! The pair of connections of this process and the channels on them. If one connection is lost, the
//! pair is replaced.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::ConfirmSelectOptions;
use lapin::{Channel, Connection, Event};
use tokio::sync::Notify;
use tokio::time::{interval, timeout};

use super::dial::{Address, LinkError};
use super::topology::Topology;

const CHANNEL_DEADLINE: Duration = Duration::from_secs(3);
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
/// Interval of checking the connections' status, in addition to their events.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Link {
    publishing: Connection,
    consuming: Connection,
    /// Signals that opening a channel failed.
    broken: Notify,
}

/// An event of a link.
pub(super) enum Happening {
    /// The broker started (`true`) or stopped refusing publishes.
    Blocked(bool),
    /// A connection was lost.
    Lost,
}

impl Link {
    /// Opens both connections and declares the topology.
    pub(super) async fn open(address: &Address, topology: &Topology) -> Result<Self, LinkError> {
        let publishing = address.connect_to_publish("publishing").await?;
        let consuming = address.connect("consuming").await?;
        let link = Self {
            publishing,
            consuming,
            broken: Notify::new(),
        };
        let declaring = link.channel(&link.consuming).await?;
        topology.declare(&declaring).await?;
        // The declarations are done. If closing fails, the connection reports it.
        let _ = timeout(CHANNEL_DEADLINE, declaring.close(200, "declared".into())).await;
        Ok(link)
    }

    /// Declares the topology again, after a message was unroutable.
    pub(super) async fn declare(&self, topology: &Topology) -> Result<(), LinkError> {
        let channel = self.channel(&self.consuming).await?;
        topology.declare(&channel).await
    }

    /// Opens a channel in confirm mode.
    pub(super) async fn publishing_channel(&self) -> Result<Channel, LinkError> {
        let channel = self.channel(&self.publishing).await?;
        match timeout(
            CHANNEL_DEADLINE,
            channel.confirm_select(ConfirmSelectOptions::default()),
        )
        .await
        {
            Ok(Ok(())) => Ok(channel),
            Ok(Err(_)) => Err(LinkError::Refused("confirms")),
            Err(_) => Err(LinkError::Timeout),
        }
    }

    /// Opens a channel for a consumer.
    pub(super) async fn consuming_channel(&self) -> Result<Channel, LinkError> {
        self.channel(&self.consuming).await
    }

    async fn channel(&self, connection: &Connection) -> Result<Channel, LinkError> {
        match timeout(CHANNEL_DEADLINE, connection.create_channel()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(_)) => {
                self.broken.notify_one();
                Err(LinkError::Refused("channel"))
            }
            Err(_) => Err(LinkError::Timeout),
        }
    }

    /// Reports the events of the link until it is lost.
    pub(super) async fn watch(&self, mut tell: impl FnMut(Happening)) {
        let mut publishing = std::pin::pin!(self.publishing.events_listener());
        let mut consuming = std::pin::pin!(self.consuming.events_listener());
        let mut look = interval(LOOK_EVERY);
        loop {
            let event = tokio::select! {
                event = publishing.next() => event,
                // Only an error matters on the consuming connection: blocking concerns publishing.
                event = consuming.next() => event.filter(|event| matches!(event, Event::Error(_))).or(Some(Event::Connected)),
                () = self.broken.notified() => None,
                _ = look.tick() => self.is_alive().then_some(Event::Connected),
            };
            match event {
                Some(Event::ConnectionBlocked(_)) => tell(Happening::Blocked(true)),
                Some(Event::ConnectionUnblocked) => tell(Happening::Blocked(false)),
                Some(Event::Error(_)) | None if !self.is_alive() => return tell(Happening::Lost),
                Some(_) | None => {}
            }
        }
    }

    fn is_alive(&self) -> bool {
        self.publishing.status().connected() && self.consuming.status().connected()
    }

    /// Closes both connections. The deadline keeps a peer that hangs from delaying the caller.
    pub(super) async fn close(&self) {
        let both = async {
            tokio::join!(
                self.publishing.close(200, "done".into()),
                self.consuming.close(200, "done".into())
            )
        };
        let _ = timeout(CLOSE_DEADLINE, both).await;
    }
}
