//! Examines the broker for an operator (`watchword doctor`): login, queues and their arguments,
//! depth, consumers, and whether it accepts publishes. It declares no missing object.

use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection};
use tokio::time::{sleep, timeout};

use super::RabbitMqSettings;
use super::dial::{Address, LinkError};
use super::topology::{Queue, is_mismatch};

/// Deadline for the broker's confirm.
const CONFIRM_WITHIN: Duration = Duration::from_secs(2);
/// Time to wait for `connection.blocked` after a confirm.
const BLOCKED_WITHIN: Duration = Duration::from_millis(500);
/// The name of a queue that does not exist.
const NOWHERE: &str = "watchword.nowhere";
const STEP_DEADLINE: Duration = Duration::from_secs(5);

/// The findings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examined {
    /// The queues that exist with the expected arguments.
    pub queues: Vec<QueueState>,
    /// Queues that do not exist. A role declares them when it connects.
    pub missing: Vec<String>,
    /// Queues that exist with other arguments.
    pub mismatched: Vec<String>,
    /// Whether the broker accepts publishes.
    pub publishing: Publishing,
}

/// Whether a broker accepts publishes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Publishing {
    /// It confirms them.
    #[default]
    Taken,
    /// A memory or disk alarm blocks publishers.
    Blocked,
    /// The user lacks the permission to publish.
    Forbidden,
}

/// A queue and its load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueState {
    /// The queue's name.
    pub name: String,
    /// Messages ready for delivery.
    pub messages: u32,
    /// Number of consumers.
    pub consumers: u32,
}

/// An error of the examination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExamineError {
    /// The URL is not usable.
    #[error(transparent)]
    Url(#[from] super::UrlError),
    /// The broker cannot be reached, or does not answer.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// Connects to the broker of `settings`, checks every queue and test-publishes one message that is
/// bound to no queue.
pub async fn examine(settings: &RabbitMqSettings) -> Result<Examined, ExamineError> {
    let address = Address::parse(settings)?;
    let connection = address.connect("doctor").await?;
    let mut examined = Examined::default();
    for queue in &settings.topology.queues {
        match look(&connection, queue).await? {
            Look::Stands(state) => examined.queues.push(state),
            Look::Missing => examined.missing.push(queue.name.clone()),
            Look::Mismatched => examined.mismatched.push(queue.name.clone()),
        }
    }
    examined.publishing = publishing(&connection).await?;
    // Everything is known, so an error while closing the connection does not matter.
    let _ = timeout(STEP_DEADLINE, connection.close(200, "done".into())).await;
    Ok(examined)
}

enum Look {
    Stands(QueueState),
    Missing,
    Mismatched,
}

/// Checks one queue. Each check opens its own channel, because an error reply closes the channel.
async fn look(connection: &Connection, queue: &Queue) -> Result<Look, LinkError> {
    let channel = step(connection.create_channel(), "channel").await?;
    let passive = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let name = || queue.name.as_str().into();
    let there = timeout(
        STEP_DEADLINE,
        channel.queue_declare(name(), passive, FieldTable::default()),
    );
    let Ok(there) = there.await else {
        return Err(LinkError::Timeout);
    };
    let Ok(there) = there else {
        return Ok(Look::Missing);
    };
    // The queue exists, so declaring it changes nothing but compares the arguments.
    let durable = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    match timeout(
        STEP_DEADLINE,
        channel.queue_declare(name(), durable, queue.table()),
    )
    .await
    {
        Ok(Err(error)) if is_mismatch(&error) => return Ok(Look::Mismatched),
        Ok(Ok(_)) => {}
        Ok(Err(_)) => return Err(LinkError::Undeclared(format!("queue {}", queue.name))),
        Err(_) => return Err(LinkError::Timeout),
    }
    let _ = timeout(STEP_DEADLINE, channel.close(200, "done".into())).await;
    Ok(Look::Stands(QueueState {
        name: queue.name.clone(),
        messages: there.message_count(),
        consumers: there.consumer_count(),
    }))
}

/// Publishes a message that no queue receives and returns whether the broker accepts it. The broker
/// drops such a message. Under an alarm it sends `connection.blocked` and no confirm; without
/// permission on the default exchange, which retries and dead letters use, it closes the channel.
async fn publishing(connection: &Connection) -> Result<Publishing, LinkError> {
    let channel = step(connection.create_channel(), "channel").await?;
    let confirms = channel.confirm_select(ConfirmSelectOptions::default());
    step(confirms, "confirms").await?;
    let publish = async {
        let options = BasicPublishOptions::default();
        let properties = BasicProperties::default();
        channel
            .basic_publish("".into(), NOWHERE.into(), options, b"", properties)
            .await?
            .await
    };
    let published = timeout(CONFIRM_WITHIN, publish).await;
    // The broker may confirm the first message and block the connection only afterwards.
    sleep(BLOCKED_WITHIN).await;
    match published {
        Ok(Err(_)) => Ok(Publishing::Forbidden),
        Ok(Ok(_)) if !connection.status().blocked() => Ok(Publishing::Taken),
        Ok(Ok(_)) => Ok(Publishing::Blocked),
        Err(_) if connection.status().blocked() => Ok(Publishing::Blocked),
        Err(_) => Err(LinkError::Timeout),
    }
}

async fn step<T>(
    call: impl Future<Output = lapin::Result<T>>,
    what: &'static str,
) -> Result<T, LinkError> {
    match timeout(STEP_DEADLINE, call).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(_)) => Err(LinkError::Refused(what)),
        Err(_) => Err(LinkError::Timeout),
    }
}
