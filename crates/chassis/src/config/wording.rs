//! Messages of type errors: serde's messages without the values that they quote and without Rust
//! type names.

/// Returns serde's message without the value that it quotes.
pub(super) fn without_values(message: &str) -> String {
    if message.contains("socket address") {
        return "must be an address with a port: 127.0.0.1:8080".to_owned();
    }
    let quotes_a_value = [
        "invalid type",
        "invalid value",
        "invalid length",
        "unknown variant",
    ];
    if !quotes_a_value
        .iter()
        .any(|start| message.starts_with(start))
    {
        return message.lines().next().unwrap_or_default().to_owned();
    }
    match message.rsplit_once("expected ") {
        Some((_, expected)) => format!(
            "must be {}",
            kind(expected.lines().next().unwrap_or_default())
        ),
        None => "has the wrong type or is out of its range".to_owned(),
    }
}

/// Returns words for the type that serde calls `expected`.
fn kind(expected: &str) -> &str {
    match expected {
        "u8" => "a whole number from 0 to 255",
        // All keys of this type are ports or counts and must not be 0.
        "u16" => "a whole number from 1 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "bool" | "a boolean" => "true or false",
        "a string" | "string" | "str" | "a borrowed string" | "string only" | "string or table" => {
            "a text in quotes"
        }
        "path string" => "a path in quotes",
        "a sequence" => "a list: [\"…\", \"…\"]",
        "a map" => "a section of keys",
        expected if expected.starts_with("struct ") => "a section of keys",
        expected if expected.contains(" enum ") => "a section with a known kind",
        expected => expected,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use serde::de::DeserializeOwned;

    use super::*;

    fn problem<T: DeserializeOwned>(value: &str) -> String {
        let table: toml::Table = format!("a = {value}").parse().unwrap();
        let read = table["a"].clone().try_into::<T>();
        without_values(&read.err().unwrap().to_string())
    }

    #[test]
    fn no_error_shows_a_type_of_rust() {
        for (shown, kind) in [
            (problem::<u16>("70000"), "a whole number from 1 to 65535"),
            (problem::<u16>("\"x\""), "a whole number from 1 to 65535"),
            (problem::<u8>("-1"), "a whole number from 0 to 255"),
            (problem::<u32>("1.5"), "a whole number from 0 to 4294967295"),
            (problem::<u64>("-1"), "a whole number, 0 or more"),
            (problem::<usize>("[]"), "a whole number, 0 or more"),
            (problem::<f64>("\"x\""), "a number"),
            (problem::<bool>("1"), "true or false"),
            (problem::<String>("1"), "a text in quotes"),
            (problem::<PathBuf>("1"), "a path in quotes"),
            (problem::<Vec<String>>("1"), "a list: [\"…\", \"…\"]"),
            (problem::<BTreeMap<String, u8>>("1"), "a section of keys"),
            (
                problem::<crate::config::HttpConfig>("1"),
                "a section of keys",
            ),
            (problem::<crate::config::LogLevel>("1"), "a text in quotes"),
        ] {
            assert_eq!(shown, format!("must be {kind}"));
        }
    }
}
