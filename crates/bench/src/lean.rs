//! The leanest pipeline that these crates allow: a request opens a code in Redis, publishes it with
//! a confirm to a quorum queue, and is answered; a consumer posts it to the provider and lets go; a
//! check compares and deletes in one script. None of our promises: no key, no limit, no seal, no
//! ledger, no event, no metric, no retry. It is what the cost of those is measured against.

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
const LIFETIME_SECONDS: u64 = 300;
/// The prefetch that gives it the most.
const PREFETCH: u16 = 256;
/// Brings an order to the 400 bytes or so that a sealed one has.
const PADDING: usize = 300;

/// Where its peers are.
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
}

struct Lean {
    redis: MultiplexedConnection,
    channel: Channel,
    check: Script,
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

/// Serves until it is killed.
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
    kind.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel.queue_declare(QUEUE.into(), options, kind).await?;
    tokio::spawn(deliver(
        consuming.create_channel().await?,
        arguments.provider,
    ));
    let check = Script::new(
        "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0",
    );
    let router = Router::new()
        .route("/v1/verifications", post(ask))
        .route("/v1/verifications/{id}/check", post(answer))
        .with_state(Arc::new(Lean {
            redis,
            channel,
            check,
        }));
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
            padding: "x".repeat(PADDING),
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
    let mut redis = lean.redis.clone();
    let _: () = redis::cmd("SET")
        .arg(&order.id)
        .arg(&order.code)
        .arg("EX")
        .arg(LIFETIME_SECONDS)
        .query_async(&mut redis)
        .await?;
    let body = serde_json::to_vec(order)?;
    let properties = BasicProperties::default().with_delivery_mode(2);
    let publish = lean.channel.basic_publish(
        "".into(),
        QUEUE.into(),
        BasicPublishOptions::default(),
        &body,
        properties,
    );
    publish.await?.await?;
    Ok(())
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

async fn deliver(channel: Channel, provider: u16) -> anyhow::Result<()> {
    channel
        .basic_qos(PREFETCH, BasicQosOptions::default())
        .await?;
    let mut orders = channel
        .basic_consume(
            QUEUE.into(),
            "lean".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://127.0.0.1:{provider}/messages");
    while let Some(message) = orders.next().await {
        let message = message?;
        let order: Order = serde_json::from_slice(&message.data).context("an order")?;
        let request = client.post(&url).json(&json!({
            "to": order.to, "text": format!("{} is your code.", order.code), "reference": order.id,
        }));
        tokio::spawn(async move {
            let response = request.send().await?;
            response.bytes().await?;
            message.acker.ack(BasicAckOptions::default()).await?;
            anyhow::Ok(())
        });
    }
    Ok(())
}
