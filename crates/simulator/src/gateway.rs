//! The SMS gateway: accepts messages, responds as scripted, and serves the control calls.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::behaviour::{Outcome, SmsBehaviour, SmtpBehaviour};
use crate::receipts;
use crate::world::{SimulatedMessage, World};

const MAX_BODY_BYTES: usize = 64 * 1024;
/// Longer than any client waits.
const HANG: Duration = Duration::from_secs(600);

#[derive(Deserialize)]
struct Submit {
    to: String,
    text: String,
    reference: Option<String>,
    callback: Option<String>,
}

pub(crate) async fn serve(listener: TcpListener, world: World) {
    let routes = Router::new()
        .route("/messages", post(submit))
        .route("/control/messages", get(messages))
        .route("/control/counters", get(counters))
        .route("/control/sms", put(set_sms))
        .route("/control/smtp", put(set_smtp))
        .route("/control/receipts", post(receipt))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(world);
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "the SMS gateway stopped");
    }
}

fn is_known(world: &World, headers: &HeaderMap) -> bool {
    let told = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    told.and_then(|told| told.strip_prefix("Bearer ")) == Some(world.sms().token.as_str())
}

fn answer(status: StatusCode, body: Value) -> Response {
    (status, Json(body)).into_response()
}

fn unauthorized() -> Response {
    answer(StatusCode::UNAUTHORIZED, json!({ "error": "unauthorized" }))
}

async fn submit(State(world): State<World>, headers: HeaderMap, body: Bytes) -> Response {
    if !is_known(&world, &headers) {
        world.count("unauthorized");
        return unauthorized();
    }
    let Ok(submit) = serde_json::from_slice::<Submit>(&body) else {
        return answer(StatusCode::BAD_REQUEST, json!({ "error": "malformed" }));
    };
    let (outcome, latency) = world.sms_fate(&submit.to);
    let word = serde_json::to_value(outcome).ok();
    world.count(word.as_ref().and_then(Value::as_str).unwrap_or("other"));
    sleep(latency).await;
    let refused = |status, error: &str| answer(status, json!({ "error": error }));
    match outcome {
        Outcome::Accepted | Outcome::DropAfterAccept => {
            let kept = world.keep(SimulatedMessage {
                n: 0,
                id: String::new(),
                channel: "sms",
                to: submit.to,
                text: submit.text,
                reference: submit.reference,
                callback: submit.callback,
            });
            let id = kept.id.clone();
            receipts::follow(&world, kept);
            if outcome == Outcome::DropAfterAccept {
                return cut();
            }
            answer(
                StatusCode::ACCEPTED,
                json!({ "id": id, "status": "queued" }),
            )
        }
        Outcome::RecipientInvalid => refused(StatusCode::UNPROCESSABLE_ENTITY, "unknown_number"),
        Outcome::RecipientBlocked => refused(StatusCode::UNPROCESSABLE_ENTITY, "opted_out"),
        Outcome::MessageRejected => refused(StatusCode::UNPROCESSABLE_ENTITY, "content_refused"),
        Outcome::Transient => refused(StatusCode::SERVICE_UNAVAILABLE, "try_later"),
        Outcome::DestinationRefused => refused(StatusCode::FORBIDDEN, "not_routable"),
        Outcome::ConfigFault => refused(StatusCode::FORBIDDEN, "account_suspended"),
        Outcome::Throttled => {
            let mut response = refused(StatusCode::TOO_MANY_REQUESTS, "throttled");
            response.headers_mut().insert("retry-after", 1.into());
            response
        }
        Outcome::Hang => {
            sleep(HANG).await;
            cut()
        }
        Outcome::DropBeforeAccept => cut(),
    }
}

/// Returns a response that breaks off: its body fails before the first byte.
fn cut() -> Response {
    let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let body = Body::from_stream(futures_stream(broken));
    let mut response = Response::new(body);
    // The client expects 100 bytes and gets none.
    response.headers_mut().insert("content-length", 100.into());
    response
}

fn futures_stream(
    error: std::io::Error,
) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> {
    futures_util::stream::iter([Err(error)])
}

#[derive(Deserialize)]
struct Since {
    #[serde(default)]
    since: u64,
}

async fn messages(
    State(world): State<World>,
    headers: HeaderMap,
    Query(Since { since }): Query<Since>,
) -> Response {
    if !is_known(&world, &headers) {
        return unauthorized();
    }
    Json(world.messages(since)).into_response()
}

async fn counters(State(world): State<World>, headers: HeaderMap) -> Response {
    if !is_known(&world, &headers) {
        return unauthorized();
    }
    Json(world.counters()).into_response()
}

async fn set_sms(
    State(world): State<World>,
    headers: HeaderMap,
    Json(behaviour): Json<SmsBehaviour>,
) -> Response {
    if !is_known(&world, &headers) {
        return unauthorized();
    }
    world.set_sms(behaviour);
    StatusCode::NO_CONTENT.into_response()
}

async fn set_smtp(
    State(world): State<World>,
    headers: HeaderMap,
    Json(behaviour): Json<SmtpBehaviour>,
) -> Response {
    if !is_known(&world, &headers) {
        return unauthorized();
    }
    world.set_smtp(behaviour);
    StatusCode::NO_CONTENT.into_response()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ByHand {
    id: String,
    status: String,
    #[serde(default)]
    forged: bool,
}

async fn receipt(
    State(world): State<World>,
    headers: HeaderMap,
    Json(order): Json<ByHand>,
) -> Response {
    if !is_known(&world, &headers) {
        return unauthorized();
    }
    let Some(message) = world.message(&order.id) else {
        return answer(StatusCode::NOT_FOUND, json!({ "error": "unknown_id" }));
    };
    match receipts::send(&world, &message, &order.status, order.forged).await {
        Some(status) => answer(StatusCode::OK, json!({ "answer": status })),
        None => answer(StatusCode::BAD_GATEWAY, json!({ "error": "no_answer" })),
    }
}
