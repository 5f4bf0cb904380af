//! A request, compiled from its configuration. Bodies are built as structures, so that no value
//! can change their form.

use std::collections::BTreeMap;
use std::net::IpAddr;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Request};
use serde_json::Value;
use url::{Host, Url};
use watchword_chassis::config::ConfigError;
use watchword_core::SecretString;

use super::config::{AuthConfig, RequestConfig};
use super::placeholder::{Template, Values};

pub(super) struct RequestPlan {
    method: Method,
    url: Template,
    auth: Auth,
    headers: HeaderMap,
    query: Vec<(String, Template)>,
    body: Body,
}

enum Auth {
    None,
    Basic(String, SecretString),
    Bearer(SecretString),
    Header(HeaderName, HeaderValue),
    Query(Vec<(&'static str, SecretString)>),
}

enum Body {
    Empty,
    Form(Vec<(String, Template)>),
    Json(Json),
}

/// A JSON value whose texts are templates.
enum Json {
    Text(Template),
    Plain(Value),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl RequestPlan {
    pub(super) fn compile(config: &RequestConfig) -> Result<Self, ConfigError> {
        let method = match config.method.as_str() {
            "GET" => Method::GET,
            "POST" => Method::POST,
            _ => return Err(ConfigError::new("method", "must be GET or POST")),
        };
        let body = match (&config.form, &config.json) {
            (Some(_), Some(_)) => {
                return Err(ConfigError::new("form", "and json cannot both be given"));
            }
            (Some(form), None) => Body::Form(templates(form, "form")?),
            (None, Some(json)) => Body::Json(Json::compile(json, "json")?),
            (None, None) => Body::Empty,
        };
        if method == Method::GET && !matches!(body, Body::Empty) {
            return Err(ConfigError::new(
                "method",
                "must be POST for a request with a body",
            ));
        }
        Ok(Self {
            method,
            url: compile_url(&config.url)?,
            auth: Auth::compile(&config.auth)?,
            headers: compile_headers(&config.headers)?,
            query: templates(&config.query, "query")?,
            body,
        })
    }

    /// The request for `values`; `None` if they make no valid one.
    pub(super) fn build(&self, client: &Client, values: &Values<'_>) -> Option<Request> {
        let mut builder = client
            .request(self.method.clone(), self.url.render_url(values))
            .headers(self.headers.clone());
        builder = match &self.auth {
            Auth::None => builder,
            Auth::Basic(username, password) => {
                builder.basic_auth(username, Some(password.expose()))
            }
            Auth::Bearer(token) => builder.bearer_auth(token.expose()),
            Auth::Header(name, value) => builder.header(name, value),
            Auth::Query(parameters) => {
                let pairs: Vec<_> = parameters
                    .iter()
                    .map(|(name, value)| (*name, value.expose()))
                    .collect();
                builder.query(&pairs)
            }
        };
        if !self.query.is_empty() {
            builder = builder.query(&render(&self.query, values));
        }
        let builder = match &self.body {
            Body::Empty => builder,
            Body::Form(fields) => builder.form(&render(fields, values)),
            Body::Json(json) => builder.json(&json.render(values)),
        };
        builder.build().ok()
    }
}

impl Auth {
    fn compile(config: &AuthConfig) -> Result<Self, ConfigError> {
        let within = |key: &'static str| move |error: ConfigError| error.within(key);
        Ok(match config {
            AuthConfig::None => Self::None,
            AuthConfig::Basic { username, password } => Self::Basic(
                username.clone(),
                password.resolve().map_err(within("auth.password"))?,
            ),
            AuthConfig::Bearer { token } => {
                Self::Bearer(token.resolve().map_err(within("auth.token"))?)
            }
            AuthConfig::Header { name, value } => {
                let secret = value.resolve().map_err(within("auth.value"))?;
                let mut value = HeaderValue::from_str(secret.expose())
                    .map_err(|_| ConfigError::new("auth.value", "cannot stand in a header"))?;
                value.set_sensitive(true);
                let name = HeaderName::from_bytes(name.as_bytes())
                    .map_err(|_| ConfigError::new("auth.name", "is no header name"))?;
                Self::Header(name, value)
            }
            AuthConfig::Query { username, password } => {
                let mut parameters = Vec::new();
                if let Some(username) = username {
                    parameters.push(("username", SecretString::new(username.clone())));
                }
                parameters.push((
                    "password",
                    password.resolve().map_err(within("auth.password"))?,
                ));
                Self::Query(parameters)
            }
        })
    }
}

impl Json {
    fn compile(value: &Value, key: &str) -> Result<Self, ConfigError> {
        Ok(match value {
            Value::String(text) => Self::Text(Template::compile(text, key)?),
            Value::Array(values) => Self::List(
                values
                    .iter()
                    .enumerate()
                    .map(|(index, value)| Self::compile(value, &format!("{key}[{index}]")))
                    .collect::<Result<_, _>>()?,
            ),
            Value::Object(fields) => Self::Object(
                fields
                    .iter()
                    .map(|(name, value)| {
                        Ok((
                            name.clone(),
                            Self::compile(value, &format!("{key}.{name}"))?,
                        ))
                    })
                    .collect::<Result<_, ConfigError>>()?,
            ),
            plain => Self::Plain(plain.clone()),
        })
    }

    fn render(&self, values: &Values<'_>) -> Value {
        match self {
            Self::Text(template) => Value::String(template.render(values)),
            Self::Plain(value) => value.clone(),
            Self::List(list) => Value::Array(list.iter().map(|json| json.render(values)).collect()),
            Self::Object(fields) => Value::Object(
                fields
                    .iter()
                    .map(|(name, json)| (name.clone(), json.render(values)))
                    .collect(),
            ),
        }
    }
}

fn templates(
    fields: &BTreeMap<String, String>,
    key: &str,
) -> Result<Vec<(String, Template)>, ConfigError> {
    fields
        .iter()
        .map(|(name, text)| {
            Ok((
                name.clone(),
                Template::compile(text, &format!("{key}.{name}"))?,
            ))
        })
        .collect()
}

fn render(fields: &[(String, Template)], values: &Values<'_>) -> Vec<(String, String)> {
    fields
        .iter()
        .map(|(name, template)| (name.clone(), template.render(values)))
        .collect()
}

fn compile_headers(headers: &BTreeMap<String, String>) -> Result<HeaderMap, ConfigError> {
    headers
        .iter()
        .map(|(name, value)| {
            let key = format!("headers.{name}");
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| ConfigError::new(&key, "is no header name"))?;
            let value = HeaderValue::from_str(value)
                .map_err(|_| ConfigError::new(&key, "cannot stand in a header"))?;
            Ok((name, value))
        })
        .collect()
}

fn compile_url(text: &str) -> Result<Template, ConfigError> {
    let template = Template::compile(text, "url")?;
    if !template.is_plain() {
        return Err(ConfigError::new(
            "url",
            "must not hold {text} or {sender}: they belong into query or body",
        ));
    }
    let bare = text.replace(['{', '}'], "");
    let url = Url::parse(&bare).map_err(|_| ConfigError::new("url", "is no URL"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(ConfigError::new("url", "must not hold a user; use auth"));
    }
    let is_loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => return Err(ConfigError::new("url", "names no host")),
    };
    match url.scheme() {
        "https" => Ok(template),
        "http" if is_loopback => Ok(template),
        _ => Err(ConfigError::new(
            "url",
            "must be https, or http to loopback",
        )),
    }
}
