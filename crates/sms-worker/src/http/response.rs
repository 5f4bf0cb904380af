//! What an answer means. The first rule that fits decides; without one the status does. Refuses to
//! quote the answer.

use std::time::Duration;

use regex::{Regex, RegexBuilder};
use reqwest::header::{DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use serde_json::Value;
use watchword_chassis::config::ConfigError;
use watchword_core::AttemptClass;
use watchword_delivery::{Attempted, Scope};

use super::config::{IdConfig, ResponseConfig, RuleConfig};
use crate::payload;

/// The rules of one provider, compiled.
pub struct ResponsePlan {
    id: Option<IdPlace>,
    rules: Vec<Rule>,
}

enum IdPlace {
    Json(String),
    Header(String),
    Regex(Regex),
}

struct Rule {
    statuses: Vec<Status>,
    body_regex: Option<Regex>,
    config: RuleConfig,
}

#[derive(Debug, Clone, Copy)]
enum Status {
    Exactly(u16),
    Hundreds(u16),
}

impl ResponsePlan {
    /// Compiles the rules; what is wrong in them is told by key.
    pub fn compile(config: &ResponseConfig) -> Result<Self, ConfigError> {
        let id = config.id.as_ref().map(IdPlace::compile).transpose()?;
        let rules = config.rules.iter().enumerate();
        let rules = rules.map(|(index, rule)| {
            Rule::compile(rule).map_err(|error| error.within(&format!("rules[{index}]")))
        });
        Ok(Self {
            id,
            rules: rules.collect::<Result<_, _>>()?,
        })
    }

    /// What an answer means.
    pub fn classify(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Attempted {
        self.explain(status, headers, body).0
    }

    /// Returns the meaning of an answer and the place of the rule that gave it; without a rule the
    /// status decides.
    pub(super) fn explain(
        &self,
        status: u16,
        headers: &HeaderMap,
        body: &[u8],
    ) -> (Attempted, Option<usize>) {
        let text = payload::text(headers, body);
        let json = payload::json(&text);
        let place = self
            .rules
            .iter()
            .position(|rule| rule.fits(status, headers, json.as_ref(), &text));
        let rule = place.and_then(|place| self.rules.get(place));
        let class = rule.map_or_else(|| by_status(status), |rule| rule.config.class);
        let configured = rule
            .and_then(|rule| rule.config.retry_after_seconds)
            .map(Duration::from_secs);
        let mut attempted = Attempted::new(class, format!("http_{status}"));
        if rule.is_none() && status != 401 {
            // A status alone can also speak of the number: 403 for a country, 404 for a path with
            // the number in it.
            attempted = attempted.about(Scope::Destination);
        }
        attempted.provider_message_id = self.message_id(json.as_ref(), headers, &text);
        attempted.retry_after = retry_after(headers).or(configured);
        (attempted, place)
    }

    fn message_id(&self, json: Option<&Value>, headers: &HeaderMap, body: &str) -> Option<String> {
        let text = match self.id.as_ref()? {
            IdPlace::Json(pointer) => as_text(json?.pointer(pointer)?)?,
            IdPlace::Header(name) => headers.get(name)?.to_str().ok()?.to_owned(),
            IdPlace::Regex(regex) => regex.captures(body)?.get(1)?.as_str().to_owned(),
        };
        plain_id(text)
    }
}

/// What goes into ledger and status is an id, not whatever a peer sends.
pub(crate) fn plain_id(text: String) -> Option<String> {
    let plain = text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic());
    (plain && !text.is_empty()).then_some(text)
}

impl IdPlace {
    fn compile(config: &IdConfig) -> Result<Self, ConfigError> {
        match (&config.json, &config.header, &config.regex) {
            (Some(pointer), None, None) => {
                check_pointer(pointer, "id.json")?;
                Ok(Self::Json(pointer.clone()))
            }
            (None, Some(name), None) => Ok(Self::Header(name.to_ascii_lowercase())),
            (None, None, Some(regex)) => {
                let regex = compile_regex(regex, "id.regex")?;
                if regex.captures_len() < 2 {
                    return Err(ConfigError::new("id.regex", "needs a group for the id"));
                }
                Ok(Self::Regex(regex))
            }
            _ => Err(ConfigError::new(
                "id",
                "give exactly one of json, header and regex",
            )),
        }
    }
}

pub(crate) fn check_pointer(pointer: &str, key: &str) -> Result<(), ConfigError> {
    if pointer.is_empty() || pointer.starts_with('/') {
        Ok(())
    } else {
        Err(ConfigError::new(
            key,
            "is no JSON pointer (they start with /)",
        ))
    }
}

fn compile_regex(text: &str, key: &str) -> Result<Regex, ConfigError> {
    RegexBuilder::new(text)
        .size_limit(1 << 20)
        .build()
        .map_err(|_| ConfigError::new(key, "is no regular expression"))
}

impl Rule {
    fn compile(config: &RuleConfig) -> Result<Self, ConfigError> {
        let statuses = config
            .status
            .iter()
            .map(|text| Status::parse(text))
            .collect::<Result<_, _>>()?;
        for pointer in config.json.keys() {
            check_pointer(pointer, "json")?;
        }
        for name in config.header.keys() {
            HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| ConfigError::new("header", "has a key that is no header name"))?;
        }
        if config.body_contains.iter().any(String::is_empty) {
            return Err(ConfigError::new("body_contains", "has an empty text"));
        }
        let regex = config.body_regex.as_deref();
        let body_regex = regex
            .map(|text| compile_regex(text, "body_regex"))
            .transpose()?;
        Ok(Self {
            statuses,
            body_regex,
            config: config.clone(),
        })
    }

    fn fits(&self, status: u16, headers: &HeaderMap, json: Option<&Value>, body: &str) -> bool {
        let status_fits =
            self.statuses.is_empty() || self.statuses.iter().any(|pattern| pattern.fits(status));
        let json_fits = self.config.json.iter().all(|(pointer, values)| {
            json.and_then(|json| json.pointer(pointer))
                .and_then(as_text)
                .is_some_and(|text| values.contains(&text))
        });
        let texts = &self.config.body_contains;
        let body_fits = texts.is_empty() || texts.iter().any(|text| body.contains(text));
        let header_fits = self.config.header.iter().all(|(name, values)| {
            let value = headers.get(name).map(HeaderValue::as_bytes);
            let value = value.map(String::from_utf8_lossy);
            value.is_some_and(|value| values.iter().any(|wanted| *wanted == value))
        });
        let regex = self.body_regex.as_ref();
        let regex_fits = regex.is_none_or(|regex| regex.is_match(body));
        status_fits && json_fits && header_fits && body_fits && regex_fits
    }
}

impl Status {
    fn parse(text: &str) -> Result<Self, ConfigError> {
        let wrong = || ConfigError::new("status", "must be statuses such as 202 or 5xx");
        match text.strip_suffix("xx") {
            Some(hundreds) => match hundreds.parse() {
                Ok(hundreds @ 1..=5) => Ok(Self::Hundreds(hundreds)),
                _ => Err(wrong()),
            },
            None => match text.parse() {
                Ok(status @ 100..=599) => Ok(Self::Exactly(status)),
                _ => Err(wrong()),
            },
        }
    }

    const fn fits(self, status: u16) -> bool {
        match self {
            Self::Exactly(exactly) => exactly == status,
            Self::Hundreds(hundreds) => hundreds == status / 100,
        }
    }
}

/// The class of a status that no rule describes. No 2xx counts as success. `ConfigFault` is only
/// for statuses that a single recipient cannot cause, because it opens the circuit for all.
const fn by_status(status: u16) -> AttemptClass {
    match status {
        // A proxy answers like this when the gateway behind it did not: the gateway may have the
        // message.
        504 | 520 | 524 => AttemptClass::UnknownOutcome,
        408 | 409 | 423 | 425 | 429 | 500..=599 => AttemptClass::Transient,
        // Credentials, and the form of every request: method, media types, protocol, host, headers.
        300..=399 | 401 | 405 | 406 | 407 | 415 | 421 | 426 | 431 => AttemptClass::ConfigFault,
        // Funds, rights, a path, legal reasons: of the account, or of this number alone.
        402 | 403 | 404 | 410 | 451 => AttemptClass::DestinationRefused,
        400..=499 => AttemptClass::MessageRejected,
        _ => AttemptClass::UnknownOutcome,
    }
}

pub(crate) fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// Seconds, or a date taken against the answer's own `Date` (RFC 9110 §10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    let now = httpdate::parse_http_date(headers.get(DATE)?.to_str().ok()?).ok()?;
    at.duration_since(now).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use AttemptClass as Class;

    #[test]
    fn an_answer_of_200_can_be_an_error_and_has_an_id() {
        let config: ResponseConfig = toml::from_str(
            r#"
            id = { json = "/messages/0/message-id" }
            rules = [
              { status = ["200"], json = { "/messages/0/status" = ["0"] }, class = "accepted" },
              { json = { "/messages/0/status" = ["1", "5"] }, class = "transient", retry_after_seconds = 7 },
              { status = ["2xx"], class = "config_fault" },
            ]"#,
        )
        .unwrap();
        let plan = ResponsePlan::compile(&config).unwrap();
        let classify = |body: &str| plan.classify(200, &HeaderMap::new(), body.as_bytes());
        let accepted = classify(r#"{"messages":[{"status":"0","message-id":"0A1"}]}"#);
        assert_eq!(
            (accepted.class, accepted.provider_message_id.as_deref()),
            (Class::Accepted, Some("0A1"))
        );
        let throttled = classify(r#"{"messages":[{"status":1}]}"#);
        assert_eq!(
            (throttled.class, throttled.retry_after),
            (Class::Transient, Some(Duration::from_secs(7)))
        );
        assert_eq!(classify("<html>").class, Class::ConfigFault);
    }

    #[test]
    fn a_byte_a_mark_or_a_line_feed_does_not_hide_an_answer() {
        let config: ResponseConfig = toml::from_str(
            r#"
            id = { json = "/id" }
            rules = [
              { status = ["202"], json = { "/status" = ["queued"] }, class = "accepted" },
              { status = ["200"], body_contains = ["für später"], class = "accepted" },
              { status = ["200"], body_regex = "^OK", class = "accepted" },
              { status = ["200"], header = { x-state = ["envoyé"] }, class = "accepted" },
            ]"#,
        )
        .unwrap();
        let plan = ResponsePlan::compile(&config).unwrap();
        let mut headers = HeaderMap::new();
        for (body, id) in [
            (
                &b"\xef\xbb\xbf{\"status\":\"queued\",\"id\":\"g1\"}"[..],
                Some("g1"),
            ),
            (
                b"{\"status\":\"queued\",\"id\":\"g1\",\"text\":\"envoy\xe9\"}",
                Some("g1"),
            ),
            (
                b"{\"status\":\"queued\",\"id\":\"g1\",\"text\":\"a\nb\"}",
                Some("g1"),
            ),
            (b"{\"status\":\"queued\",\"id\":\"g\xe9\"}", None),
            (
                b"{\"status\":\"queued\",\"id\":18446744073709551617}",
                Some("18446744073709551617"),
            ),
        ] {
            let read = plan.classify(202, &headers, body);
            let shown = String::from_utf8_lossy(body);
            assert_eq!(read.class, Class::Accepted, "{shown}");
            assert_eq!(read.provider_message_id.as_deref(), id, "{shown}");
        }
        assert_eq!(
            plan.classify(200, &headers, b"\xef\xbb\xbfOK \xe9").class,
            Class::Accepted
        );
        let value = HeaderValue::from_bytes("envoyé".as_bytes()).unwrap();
        headers.insert("x-state", value);
        assert_eq!(plan.classify(200, &headers, b"").class, Class::Accepted);
        let kind = HeaderValue::from_static("text/plain; charset=iso-8859-1");
        headers = HeaderMap::from_iter([(reqwest::header::CONTENT_TYPE, kind)]);
        let latin = plan.classify(200, &headers, b"f\xfcr sp\xe4ter");
        assert_eq!(latin.class, Class::Accepted);
    }

    #[test]
    fn a_status_without_a_rule_has_its_class() {
        for (statuses, class) in [
            (
                &[200, 202, 204, 504, 520, 524, 600][..],
                Class::UnknownOutcome,
            ),
            (
                &[408, 409, 423, 425, 429, 500, 502, 503, 522, 599],
                Class::Transient,
            ),
            (
                &[301, 302, 401, 405, 406, 407, 415, 421, 426, 431],
                Class::ConfigFault,
            ),
            (&[402, 403, 404, 410, 451], Class::DestinationRefused),
            (&[400, 411, 413, 414, 422], Class::MessageRejected),
        ] {
            for status in statuses {
                assert_eq!(by_status(*status), class, "{status}");
            }
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let headers = |retry: &'static str| {
            HeaderMap::from_iter([
                (RETRY_AFTER, retry.parse().unwrap()),
                (DATE, "Tue, 24 Nov 2026 10:00:00 GMT".parse().unwrap()),
            ])
        };
        assert_eq!(retry_after(&headers("12")), Some(Duration::from_secs(12)));
        assert_eq!(
            retry_after(&headers("Tue, 24 Nov 2026 10:00:30 GMT")),
            Some(Duration::from_secs(30))
        );
        assert_eq!(retry_after(&headers("soon")), None);
    }

    #[test]
    fn wrong_rules_are_told_by_key() {
        for (text, key) in [
            (
                "rules = [{ status = [\"6xx\"], class = \"accepted\" }]",
                "rules[0].status",
            ),
            (
                "rules = [{ json = { \"x\" = [\"1\"] }, class = \"accepted\" }]",
                "rules[0].json",
            ),
            (
                "rules = [{ body_contains = [\"\"], class = \"accepted\" }]",
                "rules[0].body_contains",
            ),
            ("id = {}", "id"),
        ] {
            let config: ResponseConfig = toml::from_str(text).unwrap();
            assert_eq!(ResponsePlan::compile(&config).err().unwrap().key, key);
        }
    }
}
