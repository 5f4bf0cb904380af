//! Texts with placeholders, compiled once. Refuses names it does not know; a value is never read
//! for placeholders again.

use std::time::Duration;

use watchword_chassis::config::ConfigError;

/// What placeholders stand for in one request.
pub(super) struct Values<'a> {
    pub(super) to: &'a str,
    pub(super) text: &'a str,
    pub(super) sender: &'a str,
    pub(super) message_id: String,
    pub(super) remaining: Duration,
    pub(super) is_ucs2: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    To,
    ToDigits,
    Text,
    Sender,
    MessageId,
    TtlSeconds,
    TtlMinutes,
    TtlMillis,
    Coding,
}

const NAMES: [(&str, Name); 9] = [
    ("to", Name::To),
    ("to_digits", Name::ToDigits),
    ("text", Name::Text),
    ("sender", Name::Sender),
    ("message_id", Name::MessageId),
    ("ttl_seconds", Name::TtlSeconds),
    ("ttl_minutes", Name::TtlMinutes),
    ("ttl_ms", Name::TtlMillis),
    ("coding", Name::Coding),
];

#[derive(Debug, Clone)]
enum Piece {
    Literal(String),
    Value(Name),
}

/// A compiled text.
#[derive(Debug, Clone)]
pub(super) struct Template(Vec<Piece>);

impl Template {
    /// Compiles `source`, the text of `key`.
    pub(super) fn compile(source: &str, key: &str) -> Result<Self, ConfigError> {
        let mut pieces = Vec::new();
        let mut rest = source;
        while let Some((literal, tail)) = rest.split_once('{') {
            let (name, tail) = tail
                .split_once('}')
                .ok_or_else(|| ConfigError::new(key, "has a { without a }"))?;
            let known = NAMES.iter().find(|(known, _)| *known == name);
            let (_, name) =
                known.ok_or_else(|| ConfigError::new(key, "has a placeholder that is unknown"))?;
            pieces.push(Piece::Literal(literal.to_owned()));
            pieces.push(Piece::Value(*name));
            rest = tail;
        }
        pieces.push(Piece::Literal(rest.to_owned()));
        Ok(Self(pieces))
    }

    /// Whether only values without free text stand in it, so that it may be part of a URL.
    pub(super) fn is_plain(&self) -> bool {
        self.0
            .iter()
            .all(|piece| !matches!(piece, Piece::Value(Name::Text | Name::Sender)))
    }

    /// The text with its values.
    pub(super) fn render(&self, values: &Values<'_>) -> String {
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Literal(text) => text.clone(),
                Piece::Value(name) => values.get(*name),
            })
            .collect()
    }

    /// The text with its values made safe for a URL: of the plain ones only `+` is special.
    pub(super) fn render_url(&self, values: &Values<'_>) -> String {
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Literal(text) => text.clone(),
                Piece::Value(name) => values.get(*name).replace('+', "%2B"),
            })
            .collect()
    }
}

impl Values<'_> {
    fn get(&self, name: Name) -> String {
        let seconds = self.remaining.as_secs().max(1);
        match name {
            Name::To => self.to.to_owned(),
            Name::ToDigits => self.to.trim_start_matches('+').to_owned(),
            Name::Text => self.text.to_owned(),
            Name::Sender => self.sender.to_owned(),
            Name::MessageId => self.message_id.clone(),
            Name::TtlSeconds => seconds.to_string(),
            Name::TtlMinutes => seconds.div_ceil(60).to_string(),
            Name::TtlMillis => (seconds * 1000).to_string(),
            Name::Coding => if self.is_ucs2 { "2" } else { "0" }.to_owned(),
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
            sender: "Acme",
            message_id: "m1".into(),
            remaining: Duration::from_millis(61_500),
            is_ucs2: false,
        };
        let template =
            Template::compile("{to_digits}/{text}/{ttl_minutes}/{ttl_ms}", "url").unwrap();
        assert_eq!(template.render(&values), "4915112345678/{to} {{x}}/2/61000");
        assert!(!template.is_plain());
        let plain = Template::compile("/{to}?x", "url").unwrap();
        assert_eq!(plain.render_url(&values), "/%2B4915112345678?x");
        for wrong in ["{code}", "{to", "{}", "{ to }"] {
            assert_eq!(
                Template::compile(wrong, "request.url").unwrap_err().key,
                "request.url",
                "{wrong}"
            );
        }
    }
}
