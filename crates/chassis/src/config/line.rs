//! Finds the line of a key in a file, for error messages.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Returns the line in `text`, starting at 1, of `key` (`a.b[1].c`). If only a parent of the key
/// exists, returns the line of the deepest one.
pub fn line_of(text: &str, key: &str) -> Option<usize> {
    let table = DeTable::parse(text).ok()?;
    let mut start = None;
    let mut here = Place::Table(table.get_ref());
    for part in parts(key) {
        let found = match (&here, part) {
            (Place::Table(table), Part::Name(name)) => table
                .iter()
                .find(|(known, _)| known.get_ref().as_ref() == name)
                .map(|(known, value)| (known.span().start, value)),
            (Place::Value(DeValue::Table(table)), Part::Name(name)) => table
                .iter()
                .find(|(known, _)| known.get_ref().as_ref() == name)
                .map(|(known, value)| (known.span().start, value)),
            (Place::Value(DeValue::Array(values)), Part::Index(index)) => {
                values.get(index).map(|value| (value.span().start, value))
            }
            _ => None,
        };
        let Some((at, value)): Option<(usize, &Spanned<DeValue<'_>>)> = found else {
            break;
        };
        start = Some(at);
        here = Place::Value(value.get_ref());
    }
    let before = text.get(..start?)?;
    Some(before.bytes().filter(|&byte| byte == b'\n').count() + 1)
}

enum Place<'a> {
    Table(&'a DeTable<'a>),
    Value(&'a DeValue<'a>),
}

enum Part<'a> {
    Name(&'a str),
    Index(usize),
}

fn parts(key: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    for piece in key.split('.') {
        let (name, mut rest) = piece.split_at(piece.find('[').unwrap_or(piece.len()));
        if !name.is_empty() {
            parts.push(Part::Name(name));
        }
        while let Some((index, tail)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'))
        {
            if let Ok(index) = index.parse() {
                parts.push(Part::Index(index));
            }
            rest = tail;
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_on_their_lines() {
        let text = "a = 1\n[sms.providers.acme]\nkind = \"http\"\n[sms.providers.acme.response]\n\
                    rules = [\n  { class = \"accepted\" },\n  { status = [\"6xx\"] },\n]\n";
        let acme = "sms.providers.acme";
        for (key, line) in [
            ("a".to_owned(), Some(1)),
            (format!("{acme}.kind"), Some(3)),
            (format!("{acme}.response.rules[1].status"), Some(7)),
            (format!("{acme}.response.rules[0].class"), Some(6)),
            (format!("{acme}.request"), Some(2)),
            ("nosuch.key".to_owned(), None),
        ] {
            assert_eq!(line_of(text, &key), line, "{key}");
        }
    }
}
