//! The loaded configuration with every value hidden that may be secret. The file names the place of
//! each secret and holds none, but an environment variable may contain a URL with a password, and a
//! provider's request may contain anything.

use serde::Serialize;
use serde_json::{Map, Value};
use toml::Table;

/// The text in place of a value that may be secret.
const HIDDEN: &str = "(set, not shown)";

/// Keys of a provider whose values are shown. `secrets` and `password` name the places of secrets.
const SHOWN_OF_PROVIDER: [&str; 13] = [
    "kind",
    "sender",
    "senders",
    "timeout_seconds",
    "secrets",
    "password",
    "host",
    "port",
    "tls",
    "hello",
    "ca_file",
    "from",
    "max_connections",
];

/// The configuration of a process.
#[derive(Debug, Clone, Serialize)]
pub struct Loaded {
    /// The file as it was last read, overridden by environment variables.
    pub configuration: Value,
    /// The changed keys that need a restart: the process keeps their earlier values.
    pub restart_needed: Vec<String>,
    /// Why the last reload was refused, if it was; the error names the key and holds no value.
    #[serde(rename = "reload_refused")]
    pub refused: Option<String>,
}

impl Loaded {
    /// Returns `table` with secret values hidden, for a process whose last reload succeeded.
    pub fn new(table: &Table, restart_needed: Vec<String>) -> Self {
        Self {
            configuration: shown(table),
            restart_needed,
            refused: None,
        }
    }
}

/// Returns `table` as JSON. [`HIDDEN`] replaces hashes of keys, provider values outside
/// [`SHOWN_OF_PROVIDER`], and URLs with a user or a query.
fn shown(table: &Table) -> Value {
    let shown = table.iter();
    let shown = shown.map(|(key, value)| (key.clone(), shown_value(key, value)));
    Value::Object(shown.collect())
}

fn hidden() -> Value {
    Value::from(HIDDEN)
}

fn shown_value(key: &str, value: &toml::Value) -> Value {
    match value {
        toml::Value::Table(table) if key == "providers" => {
            let providers = table.iter();
            let shown = providers.map(|(name, provider)| (name.clone(), provider_of(provider)));
            Value::Object(shown.collect())
        }
        toml::Value::Table(table) => {
            let shown = table.iter();
            let shown = shown.map(|(key, value)| (key.clone(), shown_value(key, value)));
            Value::Object(shown.collect())
        }
        toml::Value::Array(values) => {
            let shown = values.iter().map(|value| shown_value(key, value));
            Value::Array(shown.collect())
        }
        toml::Value::String(text) => shown_text(key, text),
        toml::Value::Integer(number) => Value::from(*number),
        toml::Value::Float(number) => Value::from(*number),
        toml::Value::Boolean(flag) => Value::from(*flag),
        toml::Value::Datetime(_) => hidden(),
    }
}

fn shown_text(key: &str, text: &str) -> Value {
    let is_hash = matches!(key, "hash" | "sha256");
    // The user part or the query of a URL may hold a password or a token.
    let is_open = text.contains("://") && text.contains(['@', '?']);
    if is_hash || is_open {
        hidden()
    } else {
        Value::from(text)
    }
}

fn provider_of(provider: &toml::Value) -> Value {
    let Some(provider) = provider.as_table() else {
        return hidden();
    };
    let shown = |(key, value): (&String, &toml::Value)| {
        let value = if SHOWN_OF_PROVIDER.contains(&key.as_str()) {
            shown_value(key, value)
        } else {
            hidden()
        };
        (key.clone(), value)
    };
    Value::Object(provider.iter().map(shown).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_shown_by_their_place_only() {
        let text = r#"
            engine = "distributed"
            [admin.keys.jane]
            hash = "5e884898da28047151d0e56f8dc6292773603d0d6aabbd"
            role = "operator"
            [rabbitmq]
            url = "amqp://watchword:pa55word@broker/"
            password = { file = "keys/rabbitmq" }
            [redis]
            url = "redis://store:6379/0"
            [services.web]
            app = "Web"
            api_keys = [{ id = "k1", sha256 = "5e884898da28047151d0e56f8dc62927" }]
            [traces]
            url = "https://traces.example.org/?token=pa55word"
            headers = { authorization = { env = "TRACES_TOKEN" } }
            [sms]
            public_url = "https://otp.example.org"
            [sms.providers.main]
            kind = "http"
            settings = { account = "pa55word" }
            secrets = { token = { file = "keys/main" } }
            request = { url = "https://api.example.org/pa55word", headers = { x = "pa55word" } }
            smpp = { host = "h", system_id = "pa55word" }
            [email.providers.relay]
            kind = "smtp"
            host = "mail.example.org"
            username = "pa55word"
            password = { file = "keys/relay" }
        "#;
        let shown = shown(&text.parse().unwrap());
        let text = shown.to_string();
        assert!(!text.contains("pa55word"), "{text}");
        assert!(!text.contains("5e8848"), "{text}");
        for (pointer, value) in [
            ("/redis/url", "redis://store:6379/0"),
            ("/rabbitmq/password/file", "keys/rabbitmq"),
            ("/services/web/api_keys/0/id", "k1"),
            ("/traces/headers/authorization/env", "TRACES_TOKEN"),
            ("/sms/public_url", "https://otp.example.org"),
            ("/sms/providers/main/secrets/token/file", "keys/main"),
            ("/email/providers/relay/host", "mail.example.org"),
            ("/admin/keys/jane/role", "operator"),
            ("/rabbitmq/url", HIDDEN),
            ("/sms/providers/main/settings", HIDDEN),
        ] {
            let found = shown.pointer(pointer).and_then(Value::as_str);
            assert_eq!(found, Some(value), "{pointer}");
        }
    }
}
