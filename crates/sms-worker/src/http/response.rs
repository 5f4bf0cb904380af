//! What an answer means. The first rule that fits decides; without one the status does. Refuses to
//! quote the answer.

use std::time::Duration;

use regex::{Regex, RegexBuilder};
use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};
use serde_json::Value;
use watchword_chassis::config::ConfigError;
use watchword_core::AttemptClass;
use watchword_delivery::{Attempted, Scope};

use super::config::{IdConfig, ResponseConfig, RuleConfig};

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
        let json: Option<Value> = serde_json::from_slice(body).ok();
        let rule = self
            .rules
            .iter()
            .find(|rule| rule.fits(status, headers, json.as_ref(), body));
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
        attempted.provider_message_id = self.message_id(json.as_ref(), headers, body);
        attempted.retry_after = retry_after(headers).or(configured);
        attempted
    }

    fn message_id(&self, json: Option<&Value>, headers: &HeaderMap, body: &[u8]) -> Option<String> {
        let text = match self.id.as_ref()? {
            IdPlace::Json(pointer) => as_text(json?.pointer(pointer)?)?,
            IdPlace::Header(name) => headers.get(name)?.to_str().ok()?.to_owned(),
            IdPlace::Regex(regex) => {
                let body = std::str::from_utf8(body).ok()?;
                regex.captures(body)?.get(1)?.as_str().to_owned()
            }
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

    fn fits(&self, status: u16, headers: &HeaderMap, json: Option<&Value>, body: &[u8]) -> bool {
        let status_fits =
            self.statuses.is_empty() || self.statuses.iter().any(|pattern| pattern.fits(status));
        let json_fits = self.config.json.iter().all(|(pointer, values)| {
            json.and_then(|json| json.pointer(pointer))
                .and_then(as_text)
                .is_some_and(|text| values.contains(&text))
        });
        let contains = |text: &String| {
            body.windows(text.len().max(1))
                .any(|window| window == text.as_bytes())
        };
        let body_fits =
            self.config.body_contains.is_empty() || self.config.body_contains.iter().any(contains);
        let header_fits = self.config.header.iter().all(|(name, values)| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.is_some_and(|value| values.iter().any(|wanted| wanted == value))
        });
        let regex_fits = self
            .body_regex
            .as_ref()
            .is_none_or(|regex| std::str::from_utf8(body).is_ok_and(|body| regex.is_match(body)));
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

/// Without a rule: no 2xx is taken for success that nobody has described.
const fn by_status(status: u16) -> AttemptClass {
    match status {
        408 | 429 | 500..=599 => AttemptClass::Transient,
        300..=399 | 401 | 402 | 403 | 404 | 405 | 407 => AttemptClass::ConfigFault,
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
            ("id = {}", "id"),
        ] {
            let config: ResponseConfig = toml::from_str(text).unwrap();
            assert_eq!(ResponsePlan::compile(&config).err().unwrap().key, key);
        }
    }
}
