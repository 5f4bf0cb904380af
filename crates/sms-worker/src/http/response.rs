//! Classification of gateway answers: the first matching rule decides, or the status if no rule
//! matches. Outcomes never quote the answer except for a plain message id.

use std::time::Duration;

use regex::{Regex, RegexBuilder};
use reqwest::header::{DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use serde_json::Value;
use watchword_chassis::config::ConfigError;
use watchword_core::AttemptClass;
use watchword_delivery::{Attempted, Scope};

use super::config::{IdConfig, ResponseConfig, RuleConfig};
use crate::payload;

/// Compiled rules of one provider.
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
    /// Compiles the rules. Errors name the config key.
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

    /// Returns the outcome of an answer.
    pub fn classify(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Attempted {
        self.explain(status, headers, Some(body)).0
    }

    /// Returns the outcome of an answer and the index of the rule that decided; without a matching
    /// rule the status decides. If the body could not be read, rules are tried up to the first that
    /// needs the body.
    pub(super) fn explain(
        &self,
        status: u16,
        headers: &HeaderMap,
        body: Option<&[u8]>,
    ) -> (Attempted, Option<usize>) {
        let mut rules = self.rules.iter();
        let Some(body) = body else {
            let place = rules.position(|rule| rule.fits_head(status, headers));
            let rule = place.and_then(|place| self.rules.get(place));
            if rule.is_some_and(Rule::needs_body) {
                let reason = format!("http_{status}_unreadable");
                return (Attempted::new(AttemptClass::UnknownOutcome, reason), None);
            }
            let mut attempted = decided(rule, status, headers);
            attempted.provider_message_id = self.message_id(None, headers, "");
            return (attempted, place);
        };
        let text = payload::text(headers, body);
        let json = payload::json(&text);
        let place = rules.position(|rule| {
            rule.fits_head(status, headers) && rule.fits_body(json.as_ref(), &text)
        });
        let rule = place.and_then(|place| self.rules.get(place));
        let mut attempted = decided(rule, status, headers);
        attempted.provider_message_id = self.message_id(json.as_ref(), headers, &text);
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

/// Returns `text` if it is a plausible message id, so that ledger and status store no arbitrary
/// data from a peer.
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
            "must be a JSON pointer, which starts with /",
        ))
    }
}

fn compile_regex(text: &str, key: &str) -> Result<Regex, ConfigError> {
    RegexBuilder::new(text)
        .size_limit(1 << 20)
        .build()
        .map_err(|_| ConfigError::new(key, "is not a valid regular expression"))
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
                .map_err(|_| ConfigError::new("header", "has an invalid header name"))?;
        }
        if config.body_contains.iter().any(String::is_empty) {
            return Err(ConfigError::new("body_contains", "has an empty text"));
        }
        if config.class == AttemptClass::TextFault {
            let rule = "text_fault means that a text could not be rendered; use message_rejected";
            return Err(ConfigError::new("class", rule));
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

    fn fits_head(&self, status: u16, headers: &HeaderMap) -> bool {
        let status_fits =
            self.statuses.is_empty() || self.statuses.iter().any(|pattern| pattern.fits(status));
        let header_fits = self.config.header.iter().all(|(name, values)| {
            let value = headers.get(name).map(HeaderValue::as_bytes);
            let value = value.map(String::from_utf8_lossy);
            value.is_some_and(|value| values.iter().any(|wanted| *wanted == value))
        });
        status_fits && header_fits
    }

    fn needs_body(&self) -> bool {
        let is_by_text = !self.config.body_contains.is_empty() || self.body_regex.is_some();
        !self.config.json.is_empty() || is_by_text
    }

    fn fits_body(&self, json: Option<&Value>, body: &str) -> bool {
        let json_fits = self.config.json.iter().all(|(pointer, values)| {
            json.and_then(|json| json.pointer(pointer))
                .and_then(as_text)
                .is_some_and(|text| values.contains(&text))
        });
        let texts = &self.config.body_contains;
        let text_fits = texts.is_empty() || texts.iter().any(|text| body.contains(text));
        let regex = self.body_regex.as_ref();
        let regex_fits = regex.is_none_or(|regex| regex.is_match(body));
        json_fits && text_fits && regex_fits
    }
}

/// Returns the outcome by `rule`, or by the status if no rule matched.
fn decided(rule: Option<&Rule>, status: u16, headers: &HeaderMap) -> Attempted {
    let class = rule.map_or_else(|| by_status(status), |rule| rule.config.class);
    let configured = rule
        .and_then(|rule| rule.config.retry_after_seconds)
        .map(Duration::from_secs);
    let mut attempted = Attempted::new(class, format!("http_{status}"));
    if status != 401 {
        attempted = attempted.about(match (rule, class) {
            // The gateway had read the request when it gave this answer.
            (Some(_), AttemptClass::ConfigFault) => Scope::Account,
            // A status alone may be about the number: 403 for a country, or 404 for a path that
            // contains the number.
            _ => Scope::Destination,
        });
    }
    attempted.retry_after = retry_after(headers).or(configured);
    attempted
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

/// Returns the class of a status without a rule. No 2xx counts as success. `ConfigFault` is
/// reserved for statuses that a single recipient cannot cause, because it opens the circuit for
/// all.
const fn by_status(status: u16) -> AttemptClass {
    match status {
        // Sent by proxies when the gateway behind them did not answer: the gateway may have the
        // message.
        504 | 520 | 524 => AttemptClass::UnknownOutcome,
        408 | 409 | 423 | 425 | 429 | 500..=599 => AttemptClass::Transient,
        // Credentials, or aspects that all requests share: method, media type, protocol, host,
        // headers.
        300..=399 | 401 | 405 | 406 | 407 | 415 | 421 | 426 | 431 => AttemptClass::ConfigFault,
        // Funds, permissions, path, legal reasons: may concern the account or only this number.
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

/// Parses `Retry-After` as seconds, or as a date relative to the `Date` of the same answer, so that
/// clock skew does not matter (RFC 9110 section 10.2.3).
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
mod tests;
