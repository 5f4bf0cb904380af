//! Gateway requests, compiled from their configuration. Bodies are built as structures, not as
//! text, so that no value can change their syntax.

use std::collections::BTreeMap;
use std::net::IpAddr;

use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Client, Method, Request};
use serde_json::Value;
use url::{Host, Url};
use watchword_chassis::config::ConfigError;
use watchword_delivery::TlsPeer;

use super::auth::Auth;
use super::config::RequestConfig;
use super::placeholder::{Settings, Template, Values};
use crate::config::Secrets;

pub(super) struct RequestPlan {
    method: Method,
    url: Template,
    /// Parsed URL, if it is the same for all messages.
    fixed_url: Option<Url>,
    pub(super) auth: Auth,
    headers: Vec<(HeaderName, Template)>,
    query: Vec<(String, Template)>,
    body: Body,
}

enum Body {
    Empty,
    Form(Vec<(String, Template)>),
    Json(Json),
}

/// JSON value whose texts are templates.
enum Json {
    Text(Template),
    Number(Template),
    Plain(Value),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// Suffix of a text that becomes a number.
const NUMBER: &str = "|number";

impl RequestPlan {
    pub(super) fn compile(
        config: &RequestConfig,
        settings: &Settings,
        secrets: &Secrets,
    ) -> Result<Self, ConfigError> {
        let method = match config.method.as_str() {
            "GET" => Method::GET,
            "POST" => Method::POST,
            _ => return Err(ConfigError::new("method", "must be GET or POST")),
        };
        let body = match (&config.form, &config.json) {
            (Some(_), Some(_)) => {
                return Err(ConfigError::new("form", "and json cannot both be given"));
            }
            (Some(form), None) => Body::Form(templates(form, settings, "form")?),
            (None, Some(json)) => Body::Json(Json::compile(json, settings, "json")?),
            (None, None) => Body::Empty,
        };
        if method == Method::GET && !matches!(body, Body::Empty) {
            return Err(ConfigError::new(
                "method",
                "must be POST for a request with a body",
            ));
        }
        let url = Template::compile(&config.url, settings, "url")?;
        if !url.is_plain() {
            return Err(ConfigError::new(
                "url",
                "must not contain {text}, {code}, {app}, {sender} or {callback}; move them to query or body",
            ));
        }
        let checked = checked_url(&url.outline(), "url")?;
        Ok(Self {
            method,
            fixed_url: url.is_fixed().then_some(checked),
            url,
            auth: Auth::compile(&config.auth, settings, secrets)?,
            headers: compile_headers(&config.headers, settings)?,
            query: templates(&config.query, settings, "query")?,
            body,
        })
    }

    /// Returns the root URL of the gateway.
    pub(super) fn origin(&self) -> Option<Url> {
        Url::parse(&self.url.outline()).ok()?.join("/").ok()
    }

    /// Returns the TLS peers: the gateway and its token server.
    pub(super) fn tls_peers(&self) -> Vec<TlsPeer> {
        let gateway = self.url.outline();
        let urls = [Some(gateway.as_str()), self.auth.token_url()];
        urls.into_iter().flatten().filter_map(tls_peer).collect()
    }

    /// Builds the unsigned request for `values`; `None` if they do not form a valid request.
    pub(super) fn build(&self, client: &Client, values: &Values<'_>) -> Option<Request> {
        let method = self.method.clone();
        let mut builder = match &self.fixed_url {
            Some(url) => client.request(method, url.clone()),
            None => client.request(method, self.url.render_url(values)),
        };
        let parameters = self.auth.parameters();
        if !parameters.is_empty() {
            builder = builder.query(&parameters);
        }
        if !self.query.is_empty() {
            builder = builder.query(&render(&self.query, values));
        }
        let builder = match &self.body {
            Body::Empty => builder,
            Body::Form(fields) => builder.form(&render(fields, values)),
            Body::Json(json) => builder.json(&json.render(values)?),
        };
        let mut request = builder.build().ok()?;
        for (name, template) in &self.headers {
            let value = HeaderValue::from_str(&template.render(values)).ok()?;
            request.headers_mut().insert(name.clone(), value);
        }
        Some(request)
    }
}

impl Json {
    fn compile(value: &Value, settings: &Settings, key: &str) -> Result<Self, ConfigError> {
        Ok(match value {
            Value::String(text) => match text.strip_suffix(NUMBER) {
                Some(number) => Self::Number(Template::compile(number, settings, key)?),
                None => Self::Text(Template::compile(text, settings, key)?),
            },
            Value::Array(values) => Self::List(
                values
                    .iter()
                    .enumerate()
                    .map(|(index, value)| {
                        Self::compile(value, settings, &format!("{key}[{index}]"))
                    })
                    .collect::<Result<_, _>>()?,
            ),
            Value::Object(fields) => Self::Object(
                fields
                    .iter()
                    .map(|(name, value)| {
                        let json = Self::compile(value, settings, &format!("{key}.{name}"))?;
                        Ok((name.clone(), json))
                    })
                    .collect::<Result<_, ConfigError>>()?,
            ),
            plain => Self::Plain(plain.clone()),
        })
    }

    /// Renders the value; `None` for a text that is empty and for an object without members.
    fn render(&self, values: &Values<'_>) -> Option<Value> {
        match self {
            Self::Text(template) => Some(template.render(values))
                .filter(|text| !text.is_empty())
                .map(Value::String),
            Self::Number(template) => template.render(values).parse::<i64>().ok().map(Value::from),
            Self::Plain(value) => Some(value.clone()),
            Self::List(list) => {
                let items = list.iter().filter_map(|json| json.render(values));
                Some(Value::Array(items.collect()))
            }
            Self::Object(fields) => {
                let members: serde_json::Map<_, _> = fields
                    .iter()
                    .filter_map(|(name, json)| Some((name.clone(), json.render(values)?)))
                    .collect();
                (!members.is_empty()).then_some(Value::Object(members))
            }
        }
    }
}

fn templates(
    fields: &BTreeMap<String, String>,
    settings: &Settings,
    key: &str,
) -> Result<Vec<(String, Template)>, ConfigError> {
    fields
        .iter()
        .map(|(name, text)| {
            let template = Template::compile(text, settings, &format!("{key}.{name}"))?;
            Ok((name.clone(), template))
        })
        .collect()
}

fn render(fields: &[(String, Template)], values: &Values<'_>) -> Vec<(String, String)> {
    fields
        .iter()
        .map(|(name, template)| (name.clone(), template.render(values)))
        .filter(|(_, text)| !text.is_empty())
        .collect()
}

/// Returns the peer at `url` if the scheme is https.
fn tls_peer(url: &str) -> Option<TlsPeer> {
    let url = Url::parse(url).ok()?;
    let host = url.host_str().filter(|_| url.scheme() == "https")?;
    Some(TlsPeer {
        host: host.to_owned(),
        port: url.port_or_known_default()?,
        starttls: false,
    })
}

fn compile_headers(
    headers: &BTreeMap<String, String>,
    settings: &Settings,
) -> Result<Vec<(HeaderName, Template)>, ConfigError> {
    headers
        .iter()
        .map(|(name, text)| {
            let key = format!("headers.{name}");
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| ConfigError::new(&key, "is not a valid header name"))?;
            let template = Template::compile(text, settings, &key)?;
            if !template.is_plain() || HeaderValue::from_str(&template.outline()).is_err() {
                return Err(ConfigError::new(
                    &key,
                    "contains a character that is not allowed in a header",
                ));
            }
            Ok((name, template))
        })
        .collect()
}

/// Checks that the URL has a host, no credentials, and https unless the host is loopback, so that
/// no code is sent in clear text.
pub(super) fn checked_url(text: &str, key: &str) -> Result<Url, ConfigError> {
    let url = Url::parse(text).map_err(|_| ConfigError::new(key, "is not a valid URL"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(ConfigError::new(
            key,
            "must not contain credentials; use auth",
        ));
    }
    let is_loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => return Err(ConfigError::new(key, "must name a host")),
    };
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback => Ok(url),
        _ => Err(ConfigError::new(key, "must be https, or http to loopback")),
    }
}
