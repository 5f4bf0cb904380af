//! Templates with placeholders such as `{to}`, compiled once. Values are inserted literally: a
//! placeholder inside a value is not expanded.

use std::collections::BTreeMap;
use std::time::Duration;

use watchword_chassis::config::ConfigError;
use watchword_core::Timestamp;

/// Values of the placeholders for one request.
pub(super) struct Values<'a> {
    pub(super) to: &'a str,
    pub(super) text: &'a str,
    pub(super) code: &'a str,
    pub(super) app: &'a str,
    pub(super) sender: &'a str,
    pub(super) message_id: String,
    pub(super) callback: String,
    pub(super) remaining: Duration,
    pub(super) now: Timestamp,
    pub(super) is_ucs2: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    To,
    ToDigits,
    Text,
    Code,
    App,
    Sender,
    MessageId,
    Callback,
    TtlSeconds,
    TtlMinutes,
    TtlMillis,
    ExpiresAt,
    Coding,
    Type,
}

const NAMES: [(&str, Name); 14] = [
    ("to", Name::To),
    ("to_digits", Name::ToDigits),
    ("text", Name::Text),
    ("code", Name::Code),
    ("app", Name::App),
    ("sender", Name::Sender),
    ("message_id", Name::MessageId),
    ("callback", Name::Callback),
    ("ttl_seconds", Name::TtlSeconds),
    ("ttl_minutes", Name::TtlMinutes),
    ("ttl_ms", Name::TtlMillis),
    ("expires_at", Name::ExpiresAt),
    ("coding", Name::Coding),
    ("type", Name::Type),
];

#[derive(Debug, Clone)]
enum Piece {
    Literal(String),
    Value(Name),
    /// Text that is included only if the gateway is asked for receipts.
    IfCallback(String),
}

/// Compiled template.
#[derive(Debug, Clone)]
pub(super) struct Template(Vec<Piece>);

/// Settings of a provider, by name.
pub(super) type Settings = BTreeMap<String, String>;

impl Template {
    /// Compiles `source`, the value of the config key `key`. Settings are expanded now.
    pub(super) fn compile(
        source: &str,
        settings: &Settings,
        key: &str,
    ) -> Result<Self, ConfigError> {
        let mut pieces = Vec::new();
        let mut rest = source;
        while let Some((literal, tail)) = rest.split_once('{') {
            let (name, tail) = tail
                .split_once('}')
                .ok_or_else(|| ConfigError::new(key, "has a { without a }"))?;
            pieces.push(Piece::Literal(literal.to_owned()));
            if let Some(text) = name.strip_prefix("callback?") {
                pieces.push(Piece::IfCallback(text.to_owned()));
                rest = tail;
                continue;
            }
            pieces.push(if let Some(setting) = name.strip_prefix("setting:") {
                Piece::Literal(
                    settings.get(setting).cloned().ok_or_else(|| {
                        ConfigError::new(key, "names a setting that is not defined")
                    })?,
                )
            } else {
                let known = NAMES.iter().find(|(known, _)| *known == name);
                Piece::Value(known.map(|(_, name)| *name).ok_or_else(|| {
                    ConfigError::new(key, "has a placeholder with an unknown name")
                })?)
            });
            rest = tail;
        }
        pieces.push(Piece::Literal(rest.to_owned()));
        Ok(Self(pieces))
    }

    /// Expands `source`, in which only settings are allowed.
    pub(super) fn fixed(
        source: &str,
        settings: &Settings,
        key: &str,
    ) -> Result<String, ConfigError> {
        let template = Self::compile(source, settings, key)?;
        let literals = template.0.into_iter().map(|piece| match piece {
            Piece::Literal(text) => Ok(text),
            _ => Err(ConfigError::new(
                key,
                "may contain only {setting:NAME} placeholders",
            )),
        });
        literals.collect()
    }

    /// Whether the template contains no free text, so that it is safe in a URL.
    pub(super) fn is_plain(&self) -> bool {
        const FREE: [Name; 5] = [
            Name::Text,
            Name::Sender,
            Name::Code,
            Name::App,
            Name::Callback,
        ];
        self.0
            .iter()
            .all(|piece| !matches!(piece, Piece::Value(name) if FREE.contains(name)))
    }

    /// Whether the text is the same for all messages.
    pub(super) fn is_fixed(&self) -> bool {
        self.0
            .iter()
            .all(|piece| matches!(piece, Piece::Literal(_)))
    }

    /// Renders the template.
    pub(super) fn render(&self, values: &Values<'_>) -> String {
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Literal(text) => text.clone(),
                Piece::Value(name) => values.get(*name),
                Piece::IfCallback(text) => values.if_callback(text),
            })
            .collect()
    }

    /// Renders the template for a URL. `+` is the only special character in the values that a URL
    /// may contain.
    pub(super) fn render_url(&self, values: &Values<'_>) -> String {
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Literal(text) => text.clone(),
                Piece::Value(name) => values.get(*name).replace('+', "%2B"),
                Piece::IfCallback(text) => values.if_callback(text),
            })
            .collect()
    }

    /// Renders the template with `x` for each value, to check its syntax.
    pub(super) fn outline(&self) -> String {
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Literal(text) => text.as_str(),
                Piece::Value(_) | Piece::IfCallback(_) => "x",
            })
            .collect()
    }
}

impl Values<'_> {
    fn if_callback(&self, text: &str) -> String {
        let wanted = !self.callback.is_empty();
        if wanted {
            text.to_owned()
        } else {
            String::new()
        }
    }

    fn get(&self, name: Name) -> String {
        let seconds = self.remaining.as_secs().max(1);
        match name {
            Name::To => self.to.to_owned(),
            Name::ToDigits => self.to.trim_start_matches('+').to_owned(),
            Name::Text => self.text.to_owned(),
            Name::Code => self.code.to_owned(),
            Name::App => self.app.to_owned(),
            Name::Sender => self.sender.to_owned(),
            Name::MessageId => self.message_id.clone(),
            Name::Callback => self.callback.clone(),
            Name::TtlSeconds => seconds.to_string(),
            // Round down, so that the gateway does not deliver an expired code.
            Name::TtlMinutes => (seconds / 60).max(1).to_string(),
            Name::TtlMillis => (seconds * 1000).to_string(),
            Name::ExpiresAt => self.now.plus_millis(seconds * 1000).to_rfc3339(),
            Name::Coding => if self.is_ucs2 { "2" } else { "0" }.to_owned(),
            Name::Type => if self.is_ucs2 { "unicode" } else { "text" }.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_filled_in_once() {
        let values = Values {
            to: "+4915112345678",
            text: "{to} {{x}}",
            code: "012345",
            app: "App",
            sender: "Acme",
            message_id: "m1".into(),
            callback: String::new(),
            remaining: Duration::from_millis(119_500),
            now: Timestamp::from_millis(0),
            is_ucs2: false,
        };
        let settings = Settings::from([("a".to_owned(), "{b}".to_owned())]);
        let compile = |text: &str| Template::compile(text, &settings, "request.url");
        let template = compile("{to_digits}/{text}/{ttl_minutes}/{ttl_ms}/{setting:a}").unwrap();
        assert_eq!(
            template.render(&values),
            "4915112345678/{to} {{x}}/1/119000/{b}"
        );
        assert!(!template.is_plain());
        let plain = compile("/{to}?x").unwrap();
        assert_eq!(plain.render_url(&values), "/%2B4915112345678?x");
        for wrong in ["{nope}", "{to", "{}", "{ to }", "{setting:b}"] {
            assert_eq!(compile(wrong).unwrap_err().key, "request.url", "{wrong}");
        }
        assert!(Template::fixed("{to}", &settings, "k").is_err());
    }
}
