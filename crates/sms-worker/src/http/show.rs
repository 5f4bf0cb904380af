//! Requests and answers as shown to an operator who sets up a provider. Credentials are masked, and
//! in answers also the recipient and the code.

use std::fmt::Write;

use regex::Regex;
use reqwest::Request;
use reqwest::header::SET_COOKIE;
use watchword_delivery::Dispatch;

use super::Answer;
use super::auth::Auth;
use crate::payload;

const MASK: &str = "********";
/// Maximum number of characters shown of an answer.
const MOST_CHARS: usize = 4_096;
/// Number of trailing digits to mask. They identify the person, whatever format the gateway uses
/// for the digits before them.
const PERSONAL_DIGITS: usize = 7;

/// Formats the request with its secrets masked.
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

/// Formats the answer, masked, followed by the rule that decided its class.
pub(super) fn answer(answer: &Answer, dispatch: &Dispatch, auth: &Auth) -> String {
    let mut text = format!("HTTP {}\n", answer.status);
    for (name, value) in &answer.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        let shown = if name == SET_COOKIE { MASK } else { &value };
        let _ = writeln!(text, "{name}: {shown}");
    }
    text.push('\n');
    let body = payload::text(&answer.headers, &answer.body);
    text.push_str(&body);
    let mut text = without_token(&text);
    let number = dispatch.recipient.expose();
    let personal = number.get(number.len().saturating_sub(PERSONAL_DIGITS)..);
    let code = dispatch.code.expose();
    for secret in auth.secrets().iter().filter(|secret| !secret.is_empty()) {
        text = text.replace(secret.as_str(), MASK);
    }
    for digits in personal.into_iter().chain([code]) {
        text = without_digits(&text, digits);
    }
    // Do not pass a peer's control sequences to the terminal.
    let text: String = text
        .chars()
        .take(MOST_CHARS)
        .map(|c| match c {
            '\n' | '\t' => c,
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect();
    let decided = answer.rule.map_or_else(
        || "no rule fits; the status decides".to_owned(),
        |place| format!("response.rules[{place}] fits"),
    );
    format!("{}\n\n{decided}", text.trim_end())
}

/// Masks these digits, even with separators between them.
fn without_digits(text: &str, digits: &str) -> String {
    let digits: Vec<_> = digits.chars().map(String::from).collect();
    match Regex::new(&digits.join("[^0-9]{0,3}")) {
        Ok(pattern) => pattern.replace_all(text, MASK).into_owned(),
        Err(_) => MASK.to_owned(),
    }
}

/// Masks the secret of a callback URL, plain or URL-encoded once.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use reqwest::header::HeaderMap;
    use watchword_core::{Channel, Recipient, SecretString, Variables};
    use watchword_delivery::Sender;

    use super::*;

    #[test]
    fn an_answer_is_shown_without_secret_number_and_code() {
        let dispatch = Dispatch {
            delivery_id: format!("{}-1", "a".repeat(32)).parse().unwrap(),
            recipient: Recipient::parse(Channel::Sms, "+4915112345678").unwrap(),
            code: "012345".parse().unwrap(),
            sender: Sender {
                app: "App".into(),
                host: None,
            },
            locale: None,
            variables: Variables::default(),
            remaining: Duration::from_secs(60),
        };
        let auth = Auth::Bearer(SecretString::new("s3cret-token".to_owned()));
        let mut shown = Answer {
            status: 400,
            headers: HeaderMap::from_iter([(
                reqwest::header::CONTENT_TYPE,
                "text/plain; for=+4915112345678".parse().unwrap(),
            )]),
            body: b"sender unknown\x1b[31m for 015112345678 (151) 123-45 678, code 012345 or 012-345, Bearer s3cret-token, \
                    http://x/?d=1&token=abc"
                .to_vec(),
            rule: Some(3),
        };
        let text = answer(&shown, &dispatch, &auth);
        for part in [
            "HTTP 400",
            "content-type: text/plain",
            "sender unknown",
            "rules[3]",
        ] {
            assert!(text.contains(part), "{text}");
        }
        for hidden in [
            "2345678",
            "45 678",
            "012345",
            "012-345",
            "s3cret",
            "token=abc",
            "\u{1b}",
        ] {
            assert!(!text.contains(hidden), "{text}");
        }
        shown.rule = None;
        assert!(answer(&shown, &dispatch, &auth).ends_with("no rule fits; the status decides"));
    }
}
