//! The dead-letter queue of a queue kind. Listing takes messages without settling them, so they
//! return when the connection closes. It uses a connection of its own and disturbs no consumer.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::AMQPValue;
use lapin::{Acker, BasicProperties, Channel, Confirmation, Connection};
use tokio::time::timeout;
use watchword_events::Lane;

use super::RabbitMqSettings;
use super::consumer::retries;
use super::dial::Address;
use super::publisher::{REASON_HEADER, replayed};
use crate::dead_letter::DeadLetterReason;
use crate::parked::{ParkedError, ParkedLook, ParkedMessage};

const DEADLINE: Duration = Duration::from_secs(5);

pub(super) struct RabbitLook {
    lane: Lane,
    connection: Connection,
    channel: Channel,
    messages: Vec<ParkedMessage>,
    held: Vec<Option<(Acker, BasicProperties)>>,
}

/// Reads up to `limit` messages from the dead-letter queue of `lane`.
pub(super) async fn look(
    settings: &RabbitMqSettings,
    lane: Lane,
    limit: usize,
) -> Result<RabbitLook, ParkedError> {
    let address = Address::parse(settings).map_err(|_| ParkedError("the URL is invalid"))?;
    let connection = address
        .connect("parked")
        .await
        .map_err(|_| ParkedError("no connection"))?;
    let channel = within(connection.create_channel(), "no channel").await?;
    within(
        channel.confirm_select(ConfirmSelectOptions::default()),
        "no confirms",
    )
    .await?;
    let mut look = RabbitLook {
        lane,
        connection,
        channel,
        messages: Vec::new(),
        held: Vec::new(),
    };
    let queue = lane.parked_queue();
    while look.messages.len() < limit {
        let got = look
            .channel
            .basic_get(queue.as_str().into(), BasicGetOptions::default());
        let Some(got) = within(got, "the queue cannot be read").await? else {
            break;
        };
        let (properties, data, acker) = (
            got.delivery.properties,
            got.delivery.data,
            got.delivery.acker,
        );
        look.messages.push(ParkedMessage {
            place: look.messages.len(),
            id: properties.message_id().as_ref().map(ToString::to_string),
            kind: properties.kind().as_ref().map(ToString::to_string),
            reason: reason(&properties),
            parked_at_ms: None,
            retries: retries(&properties),
            body: Bytes::from(data),
        });
        look.held.push(Some((acker, properties)));
    }
    Ok(look)
}

/// Returns the reason of this crate's header, or `delivery_limit` if the broker itself
/// dead-lettered the message. The header is untrusted and is filtered for display.
fn reason(properties: &BasicProperties) -> String {
    let header = |name: &str| properties.headers().as_ref()?.inner().get(name);
    match header(REASON_HEADER) {
        Some(AMQPValue::LongString(text)) => String::from_utf8_lossy(text.as_bytes())
            .chars()
            .filter(|c| c.is_ascii_lowercase() || *c == '_')
            .take(32)
            .collect(),
        _ => DeadLetterReason::DeliveryLimit.as_str().to_owned(),
    }
}

impl RabbitLook {
    fn take(&mut self, place: usize) -> Result<(Acker, BasicProperties), ParkedError> {
        let held = self.held.get_mut(place).and_then(Option::take);
        held.ok_or(ParkedError("no such message in this listing"))
    }
}

#[async_trait]
impl ParkedLook for RabbitLook {
    fn messages(&self) -> &[ParkedMessage] {
        &self.messages
    }

    async fn replay(&mut self, place: usize) -> Result<(), ParkedError> {
        let (acker, properties) = self.take(place)?;
        let body = self.messages[place].body.clone();
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let published = self.channel.basic_publish(
            self.lane.exchange().into(),
            self.lane.as_str().into(),
            options,
            &body,
            replayed(&properties),
        );
        let confirm = within(published, "the message could not be published").await?;
        match within(confirm, "the publish was not confirmed").await? {
            Confirmation::Ack(None) => {}
            _ => return Err(ParkedError("the queue rejected the message")),
        }
        within(
            acker.ack(BasicAckOptions::default()),
            "the message could not be removed",
        )
        .await?;
        Ok(())
    }

    async fn discard(&mut self, place: usize) -> Result<(), ParkedError> {
        let (acker, _) = self.take(place)?;
        within(
            acker.ack(BasicAckOptions::default()),
            "the message could not be removed",
        )
        .await?;
        Ok(())
    }

    async fn close(self: Box<Self>) -> Result<(), ParkedError> {
        // Unsettled messages return to the queue when the connection closes.
        within(self.connection.close(200, "done".into()), "not closed").await
    }
}

async fn within<T>(
    call: impl Future<Output = lapin::Result<T>>,
    what: &'static str,
) -> Result<T, ParkedError> {
    match timeout(DEADLINE, call).await {
        Ok(Ok(value)) => Ok(value),
        _ => Err(ParkedError(what)),
    }
}
