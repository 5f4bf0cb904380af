//! A look at the broker for an operator: can we log in, do the queues stand as they should, what
//! lies in them and who reads them, does it take messages. Refuses to declare what is missing.

use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection};
use tokio::time::{sleep, timeout};

use super::RabbitMqSettings;
use super::dial::{Address, LinkError};
use super::topology::{Queue, is_mismatch};

/// How long a broker may take to confirm, or to say that it will not.
const CONFIRM_WITHIN: Duration = Duration::from_secs(2);
const BLOCKED_WITHIN: Duration = Duration::from_millis(500);
/// A queue that is not there.
const NOWHERE: &str = "watchword.nowhere";
const STEP_DEADLINE: Duration = Duration::from_secs(5);

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examined {
    /// The queues that stand there as they should.
    pub queues: Vec<QueueState>,
    /// Queues that are not there: a role declares them when it connects.
    pub missing: Vec<String>,
    /// Queues that stand there with other arguments.
    pub mismatched: Vec<String>,
    /// Whether it takes messages.
    pub publishing: Publishing,
}

/// Whether a broker takes messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Publishing {
    /// It does.
    #[default]
    Taken,
    /// It has an alarm of memory or disk.
    Blocked,
    /// Our user has no right to.
    Forbidden,
}

/// One queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueState {
    /// Its name.
    pub name: String,
    /// Messages that wait in it.
    pub messages: u32,
    /// Who reads it.
    pub consumers: u32,
}

/// Why the broker could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExamineError {
    /// The URL cannot be used.
    #[error(transparent)]
    Url(#[from] super::UrlError),
    /// No connection.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// Looks at the broker of `settings`.
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
    // All is known; how the connection ends does not matter.
    let _ = timeout(STEP_DEADLINE, connection.close(200, "done".into())).await;
    Ok(examined)
}

enum Look {
    Stands(QueueState),
    Missing,
    Mismatched,
}

/// A refusal closes the channel, so that each queue has its own.
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
    // It stands: declaring it again changes nothing, and compares the arguments.
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

/// What becomes of a message that no queue wants: the broker drops it, unless it has an alarm (then it
/// says so to whoever publishes, and confirms nothing) or we may not publish as we retry and park.
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
    // It may confirm the first and say then that it takes no more.
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
