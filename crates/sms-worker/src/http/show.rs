//! A request as it may be shown to whoever configures a provider: with everything that proves who
//! we are masked. Refuses to send it.

use std::fmt::Write;

use reqwest::Request;

use super::auth::Auth;

const MASK: &str = "********";

/// The request as text, its secrets masked.
pub(super) fn masked(request: &Request, auth: &Auth) -> String {
    let secret_parameters: Vec<_> = auth.parameters().iter().map(|(name, _)| *name).collect();
    let mut url = request.url().clone();
    let pairs: Vec<(String, String)> = url
        .query_pairs()
        .map(|(name, value)| {
            let is_secret = secret_parameters.contains(&name.as_ref());
            let value = if is_secret {
                MASK.into()
            } else {
                without_token(&value)
            };
            (name.into_owned(), value)
        })
        .collect();
    if !pairs.is_empty() {
        url.query_pairs_mut().clear().extend_pairs(pairs);
    }
    let mut text = format!("{} {url}\n", request.method());
    for (name, value) in request.headers() {
        let own = matches!(auth, Auth::Header(header, _) if header == name);
        let shown = if value.is_sensitive() || own || name == "authorization" {
            MASK
        } else {
            value.to_str().unwrap_or(MASK)
        };
        let _ = writeln!(text, "{name}: {shown}");
    }
    let body = request
        .body()
        .and_then(reqwest::Body::as_bytes)
        .unwrap_or_default();
    text.push('\n');
    text.push_str(&without_token(&String::from_utf8_lossy(body)));
    text
}

/// The text with the secret of a callback URL masked, as it stands or encoded once.
fn without_token(text: &str) -> String {
    let mut shown = text.to_owned();
    for marker in ["token=", "token%3D"] {
        let mut from = 0;
        while let Some(at) = shown[from..].find(marker) {
            let start = from + at + marker.len();
            let end = shown[start..]
                .find(['&', '"', ' ', '\n'])
                .map_or(shown.len(), |end| start + end);
            shown.replace_range(start..end, MASK);
            from = start + MASK.len();
        }
    }
    shown
}
