//! What an answer means. The first rule that fits decides; without one the status does. Refuses to
//! quote the answer.

use std::time::Duration;

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use serde_json::Value;
use watchword_chassis::config::ConfigError;
use watchword_core::AttemptClass;
use watchword_delivery::Attempted;

use super::config::{IdConfig, ResponseConfig, RuleConfig};

pub(super) struct ResponsePlan {
    id: Option<IdConfig>,
    rules: Vec<Rule>,
}

struct Rule {
    statuses: Vec<Status>,
    config: RuleConfig,
}

#[derive(Debug, Clone, Copy)]
enum Status {
    Exactly(u16),
    Hundreds(u16),
}

impl ResponsePlan {
    pub(super) fn compile(config: &ResponseConfig) -> Result<Self, ConfigError> {
        if let Some(id) = &config.id
            && id.json.is_some() == id.header.is_some()
        {
            return Err(ConfigError::new(
                "id",
                "give exactly one of json and header",
            ));
        }
        let rules = config.rules.iter().enumerate();
        let rules = rules.map(|(index, rule)| {
            Rule::compile(rule).map_err(|error| error.within(&format!("rules[{index}]")))
        });
        Ok(Self {
            id: config.id.clone(),
            rules: rules.collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn classify(&self, status: u16, headers: &HeaderMap, body: &[u8]) -> Attempted {
        let json: Option<Value> = serde_json::from_slice(body).ok();
        let rule = self
            .rules
            .iter()
            .find(|rule| rule.fits(status, json.as_ref(), body));
        let class = rule.map_or_else(|| by_status(status), |rule| rule.config.class);
        let configured = rule
            .and_then(|rule| rule.config.retry_after_seconds)
            .map(Duration::from_secs);
        Attempted {
            class,
            provider_message_id: self.message_id(json.as_ref(), headers),
            retry_after: retry_after(headers).or(configured),
            reason: format!("http_{status}"),
        }
    }

    fn message_id(&self, json: Option<&Value>, headers: &HeaderMap) -> Option<String> {
        let id = self.id.as_ref()?;
        let text = match (&id.json, &id.header) {
            (Some(pointer), _) => as_text(json?.pointer(pointer)?)?,
            (None, Some(name)) => headers.get(name)?.to_str().ok()?.to_owned(),
            (None, None) => return None,
        };
        // What goes into ledger and status is an id, not whatever a peer sends.
        let plain = text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic());
        (plain && !text.is_empty()).then_some(text)
    }
}

impl Rule {
    fn compile(config: &RuleConfig) -> Result<Self, ConfigError> {
        let statuses = config
            .status
            .iter()
            .map(|text| Status::parse(text))
            .collect::<Result<_, _>>()?;
        if config
            .json
            .keys()
            .any(|pointer| !pointer.is_empty() && !pointer.starts_with('/'))
        {
            return Err(ConfigError::new(
                "json",
                "has a key that is no JSON pointer (they start with /)",
            ));
        }
        Ok(Self {
            statuses,
            config: config.clone(),
        })
    }

    fn fits(&self, status: u16, json: Option<&Value>, body: &[u8]) -> bool {
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
        status_fits && json_fits && body_fits
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

fn as_text(value: &Value) -> Option<String> {
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

    fn kannel() -> ResponsePlan {
        ResponsePlan::compile(&crate::config::kannel_preset().unwrap().response).unwrap()
    }

    /// Answers recorded from Kannel 1.4.5.
    #[test]
    fn kannels_answers() {
        let plan = kannel();
        let table = [
            (202, "0: Accepted for delivery", Class::Accepted),
            (202, "3: Queued for later delivery", Class::Accepted),
            (202, "something else", Class::UnknownOutcome),
            (
                400,
                "Missing receiver and/or sender number, rejected",
                Class::RecipientInvalid,
            ),
            (
                400,
                "Number(s) has/have been denied by white- and/or black-lists.",
                Class::RecipientInvalid,
            ),
            (403, "Authorization failed for sendsms", Class::ConfigFault),
            (403, "Not routable. Do not try again.", Class::ConfigFault),
            (503, "Temporal failure, try again later.", Class::Transient),
            (404, "", Class::ConfigFault),
            (500, "", Class::Transient),
        ];
        for (status, body, class) in table {
            assert_eq!(
                plan.classify(status, &HeaderMap::new(), body.as_bytes())
                    .class,
                class,
                "{status} {body}"
            );
        }
    }

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
