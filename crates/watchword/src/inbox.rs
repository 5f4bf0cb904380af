//! The inbox page and its JSON. It shows codes, so it is served only on loopback, and only to
//! requests with a loopback `Host`: this stops another site from reading it by DNS rebinding.

use std::net::SocketAddr;

use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use watchword_delivery::{Inbox, InboxMessage};
use watchword_email_worker::EmailProviderConfig;

use crate::config::Config;
use crate::needs::Needs;

const PAGE: &str = include_str!("inbox.html");

#[derive(Deserialize)]
struct Filter {
    to: Option<String>,
}

/// Whether a process with these `needs` has a provider of the kind `inbox`.
pub(crate) fn is_configured(config: &Config, needs: Needs) -> bool {
    let mut sms = config.sms.iter().flat_map(|sms| sms.providers.values());
    let mut email = config
        .email
        .iter()
        .flat_map(|email| email.providers.values());
    needs.sms && sms.any(|provider| provider.kind == "inbox")
        || needs.email && email.any(|provider| matches!(provider, EmailProviderConfig::Inbox {}))
}

/// Whether the inbox is served on an admin listener at `address`: only on loopback.
pub(crate) fn is_served_at(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Logs the URL of the inbox on the admin listener at `address`, or a warning if it is not served.
pub(crate) fn announce(address: SocketAddr) {
    if is_served_at(address) {
        let page = format!("http://{address}/inbox");
        tracing::info!(page, "read the messages of the provider kind \"inbox\"");
    } else {
        tracing::warn!(
            "the messages of the provider kind \"inbox\" cannot be read: /inbox is served only if admin.listen is a loopback address"
        );
    }
}

/// Returns the routes `GET /inbox` and `GET /inbox/messages?to=`.
pub(crate) fn routes(inbox: Inbox) -> Router {
    Router::new()
        .route("/inbox", get(page))
        .route("/inbox/messages", get(messages))
        .with_state(inbox)
        .route_layer(from_fn(only_loopback_names))
}

async fn only_loopback_names(request: Request, next: Next) -> Response {
    if is_loopback_name(request.headers()) {
        next.run(request).await
    } else {
        StatusCode::MISDIRECTED_REQUEST.into_response()
    }
}

fn is_loopback_name(headers: &HeaderMap) -> bool {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let host = host.and_then(|host| host.parse::<axum::http::uri::Authority>().ok());
    host.is_some_and(|host| {
        let name = host.host().trim_start_matches('[').trim_end_matches(']');
        let address = name.parse::<std::net::IpAddr>();
        name.eq_ignore_ascii_case("localhost")
            || address.is_ok_and(|address| address.to_canonical().is_loopback())
    })
}

async fn page() -> impl IntoResponse {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(PAGE))
}

async fn messages(
    State(inbox): State<Inbox>,
    Query(filter): Query<Filter>,
) -> Json<Vec<InboxMessage>> {
    // In a query an unencoded `+` means a space, so `?to=+1202…` arrives with a leading space.
    let to = filter.to.map(|to| match to.strip_prefix(' ') {
        Some(digits) => format!("+{digits}"),
        None => to,
    });
    Json(inbox.messages(to.as_deref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_read_the_inbox() {
        for (host, is_loopback) in [
            ("127.0.0.1:9090", true),
            ("localhost:9090", true),
            ("LOCALHOST", true),
            ("[::1]:9090", true),
            ("127.0.0.1.example.org:9090", false),
            ("example.org", false),
            ("10.0.0.1:9090", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            assert_eq!(is_loopback_name(&headers), is_loopback, "{host}");
        }
        assert!(!is_loopback_name(&HeaderMap::new()));
    }
}
