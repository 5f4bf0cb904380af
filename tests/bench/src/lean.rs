//! Leanest pipeline that these crates allow, as the baseline for the cost of Watchword's
//! guarantees. A request stores a code in Redis, publishes it with a confirm to a quorum queue, and
//! is answered. A consumer posts it to the provider and acknowledges it. A check compares and
//! deletes the code in one script. There is no API key, limit, seal, ledger, event, metric or
//! retry.
//!
//! With `--calls` it also makes the calls that Watchword's guarantees require, without implementing
//! the guarantees: it counts the message for its recipient, marks it as confirmed, claims the
//! delivery, records its outcome and publishes an event, each as one plain store command or one
//! message. Its messages have the properties that Watchword's have (id, type, content type, trace,
//! expiration, mandatory flag), and its queue has the same arguments. The difference between the
//! two modes is the cost of calls and messages alone, made one at a time.

use std::sync::Arc;

use anyhow::Context;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use rand::RngExt;
use redis::Script;
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const QUEUE: &str = "lean";
/// Queue with `--calls`. The name differs because its arguments differ.
const CALLS_QUEUE: &str = "lean.calls";
/// Dead-letter target for expired messages. The queue does not exist.
const LATE: &str = "lean.late";
const LIFETIME_SECONDS: u64 = 300;
/// Prefetch with the highest measured rate.
const PREFETCH: u16 = 256;
/// Pads an order to about 400 bytes, the size of a sealed one.
const PADDING: usize = 300;
/// Additional padding for the envelope of an order.
const MORE_PADDING: usize = 100;
/// Sizes in bytes: record of a delivery, record of a recipient, event.
const DELIVERY: usize = 60;
const RECIPIENT: usize = 20;
const EVENT: usize = 450;
/// Predefined exchange; no queue is bound to it.
const EVENTS: &str = "amq.topic";

/// Addresses of the peers.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    #[arg(long)]
    amqp: String,
    #[arg(long)]
    redis: String,
    #[arg(long)]
    provider: u16,
    #[arg(long)]
    listen: u16,
    #[arg(long)]
    calls: bool,
}

struct Lean {
    redis: MultiplexedConnection,
    channel: Channel,
    check: Script,
    provider: u16,
    calls: bool,
    queue: &'static str,
}

#[derive(Deserialize)]
struct Ask {
    to: String,
}

#[derive(Deserialize)]
struct Typed {
    code: String,
}

#[derive(Serialize, Deserialize)]
struct Order {
    id: String,
    to: String,
    code: String,
    padding: String,
}

/// Runs until the process is killed.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let redis = redis::Client::open(arguments.redis)?
        .get_multiplexed_async_connection()
        .await?;
    let connect = || Connection::connect(&arguments.amqp, ConnectionProperties::default());
    let (publishing, consuming) = (connect().await?, connect().await?);
    let channel = publishing.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let mut kind = FieldTable::default();
    let text = |text: &str| AMQPValue::LongString(text.into());
    kind.insert("x-queue-type".into(), text("quorum"));
    if arguments.calls {
        kind.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(20));
        kind.insert("x-max-length".into(), AMQPValue::LongLongInt(1_000_000));
        kind.insert("x-overflow".into(), text("reject-publish"));
        kind.insert("x-dead-letter-exchange".into(), text(""));
        kind.insert("x-dead-letter-routing-key".into(), text(LATE));
        kind.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    }
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let queue = if arguments.calls { CALLS_QUEUE } else { QUEUE };
    channel.queue_declare(queue.into(), options, kind).await?;
    let check = Script::new(
        "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0",
    );
    let lean = Arc::new(Lean {
        redis,
        channel,
        check,
        provider: arguments.provider,
        calls: arguments.calls,
        queue,
    });
    tokio::spawn(deliver(consuming.create_channel().await?, lean.clone()));
    let router = Router::new()
        .route("/v1/verifications", post(ask))
        .route("/v1/verifications/{id}/check", post(answer))
        .with_state(lean);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", arguments.listen)).await?;
    let served = axum::serve(listener, router).await;
    drop((publishing, consuming));
    Ok(served?)
}

async fn ask(
    State(lean): State<Arc<Lean>>,
    Json(ask): Json<Ask>,
) -> Result<(StatusCode, Json<Value>), StatusCode> {
    let order = {
        #[expect(clippy::disallowed_methods, reason = "its codes protect nothing")]
        let mut random = rand::rng();
        Order {
            id: format!("{:032x}", random.random::<u128>()),
            to: ask.to,
            code: format!("{:06}", random.random_range(0..1_000_000)),
            padding: "x".repeat(if lean.calls {
                PADDING + MORE_PADDING
            } else {
                PADDING
            }),
        }
    };
    open(&lean, &order)
        .await
        .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok((
        StatusCode::ACCEPTED,
        Json(json!({ "id": order.id, "status": "pending" })),
    ))
}

async fn open(lean: &Lean, order: &Order) -> anyhow::Result<()> {
    lean.set(&order.id, &order.code).await?;
    if lean.calls {
        lean.keep("recipient", &order.to, RECIPIENT).await?;
    }
    let body = serde_json::to_vec(order)?;
    lean.publish("", lean.queue, &order.id, &body).await?;
    if lean.calls {
        lean.set(&format!("confirmed:{}", order.id), "1").await?;
    }
    Ok(())
}

impl Lean {
    async fn set(&self, key: &str, value: &str) -> anyhow::Result<()> {
        let mut redis = self.redis.clone();
        let mut command = redis::cmd("SET");
        command.arg(key).arg(value).arg("EX").arg(LIFETIME_SECONDS);
        Ok(command.query_async(&mut redis).await?)
    }

    /// Writes a value of `bytes` bytes in place of the record that Watchword would keep.
    async fn keep(&self, what: &str, key: &str, bytes: usize) -> anyhow::Result<()> {
        self.set(&format!("{what}:{key}"), &"x".repeat(bytes)).await
    }

    async fn publish(
        &self,
        exchange: &str,
        key: &str,
        id: &str,
        body: &[u8],
    ) -> anyhow::Result<()> {
        let mut properties = BasicProperties::default().with_delivery_mode(2);
        if self.calls {
            let trace = format!("00-{id:.32}-0123456789abcdef-01");
            let mut headers = FieldTable::default();
            headers.insert("traceparent".into(), AMQPValue::LongString(trace.into()));
            properties = properties
                .with_message_id(id.into())
                .with_type("watchword.lean.v1".into())
                .with_content_type("application/cloudevents+json".into())
                .with_headers(headers);
            if key == self.queue {
                let lifetime_ms = LIFETIME_SECONDS * 1_000;
                properties = properties.with_expiration(lifetime_ms.to_string().into());
            }
        }
        let options = BasicPublishOptions {
            mandatory: self.calls && key == self.queue,
            ..BasicPublishOptions::default()
        };
        let publish =
            self.channel
                .basic_publish(exchange.into(), key.into(), options, body, properties);
        publish.await?.await?;
        Ok(())
    }
}

async fn answer(
    State(lean): State<Arc<Lean>>,
    Path(id): Path<String>,
    Json(typed): Json<Typed>,
) -> Result<Json<Value>, StatusCode> {
    let mut redis = lean.redis.clone();
    let found: i64 = lean
        .check
        .key(&id)
        .arg(&typed.code)
        .invoke_async(&mut redis)
        .await
        .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(Json(json!({ "id": id, "valid": found == 1 })))
}

async fn deliver(channel: Channel, lean: Arc<Lean>) -> anyhow::Result<()> {
    channel
        .basic_qos(PREFETCH, BasicQosOptions::default())
        .await?;
    let mut orders = channel
        .basic_consume(
            lean.queue.into(),
            "lean".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://127.0.0.1:{}/messages", lean.provider);
    while let Some(message) = orders.next().await {
        let message = message?;
        let order: Order = serde_json::from_slice(&message.data).context("an order")?;
        let request = client.post(&url).json(&json!({
            "to": order.to, "text": format!("{} is your code.", order.code), "reference": order.id,
        }));
        let lean = lean.clone();
        tokio::spawn(async move {
            if lean.calls {
                lean.keep("claim", &order.id, DELIVERY).await?;
            }
            let response = request.send().await?;
            response.bytes().await?;
            if lean.calls {
                lean.keep("delivery", &order.id, DELIVERY).await?;
                let body = "x".repeat(EVENT);
                lean.publish(EVENTS, "updated", &order.id, body.as_bytes())
                    .await?;
            }
            message.acker.ack(BasicAckOptions::default()).await?;
            anyhow::Ok(())
        });
    }
    Ok(())
}
