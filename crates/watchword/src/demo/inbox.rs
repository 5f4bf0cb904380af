//! The inbox: a page that refreshes itself, and the same as JSON.

use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use watchword_delivery::{Inbox, InboxMessage};

const PAGE: &str = include_str!("inbox.html");

#[derive(Deserialize)]
struct Filter {
    to: Option<String>,
}

/// `GET /inbox` and `GET /inbox/messages?to=`.
pub(super) fn routes(inbox: Inbox) -> Router {
    Router::new()
        .route("/inbox", get(page))
        .route("/inbox/messages", get(messages))
        .with_state(inbox)
}

async fn page() -> impl IntoResponse {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(PAGE))
}

async fn messages(
    State(inbox): State<Inbox>,
    Query(filter): Query<Filter>,
) -> Json<Vec<InboxMessage>> {
    // A number pasted into a URL without encoding arrives with a space for its plus.
    let to = filter.to.map(|to| match to.strip_prefix(' ') {
        Some(digits) => format!("+{digits}"),
        None => to,
    });
    Json(inbox.messages(to.as_deref()))
}
