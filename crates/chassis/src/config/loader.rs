//! From a file and the environment to a checked structure.
//!
//! A variable `WATCHWORD_HTTP__LISTEN` sets the key `http.listen`: two underscores are the dot.
//! Variables without two underscores (but `WATCHWORD_ENGINE`) are left for secrets to be named by.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::ConfigError;

const PREFIX: &str = "WATCHWORD_";

/// Reads `path`, lays `environment` over it and deserialises the whole.
pub fn load<T: DeserializeOwned>(
    path: &Path,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<T, ConfigError> {
    serde_path_to_error::deserialize(Value::Table(whole(path, environment)?)).map_err(|error| {
        let key = match error.path().to_string() {
            // The second is that of a key without a name.
            root if root == "." || root.is_empty() => "(top level)".to_owned(),
            key => key,
        };
        ConfigError::new(key, without_values(&error.inner().to_string()))
    })
}

/// The files that `path` under `environment` names: secrets, keys, certificates. None if it cannot
/// be read.
pub fn files_of(
    path: &Path,
    environment: impl Iterator<Item = (String, String)>,
) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    if let Ok(table) = whole(path, environment) {
        collect_files(&Value::Table(table), &mut files);
    }
    files
}

fn collect_files(value: &Value, files: &mut BTreeSet<PathBuf>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                match value {
                    Value::String(file) if key == "file" || key == "ca_file" => {
                        files.insert(file.into());
                    }
                    value => collect_files(value, files),
                }
            }
        }
        Value::Array(values) => {
            for value in values {
                collect_files(value, files);
            }
        }
        _ => {}
    }
}

fn whole(
    path: &Path,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Table, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::new(path.display().to_string(), error.kind().to_string()))?;
    let mut table: Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(0, |span| {
            text[..span.start.min(text.len())].lines().count().max(1)
        });
        ConfigError::new(
            path.display().to_string(),
            format!("line {line} is not valid TOML"),
        )
    })?;
    refuse_inline_passwords(&table, "")?;
    for (keys, value) in overlay(environment)? {
        insert(&mut table, &keys, value)?;
    }
    Ok(table)
}

/// The variables that set keys, in the order of their names.
fn overlay(
    environment: impl Iterator<Item = (String, String)>,
) -> Result<BTreeMap<Vec<String>, Value>, ConfigError> {
    environment
        .filter_map(|(name, text)| {
            let path = name.strip_prefix(PREFIX)?;
            if !path.contains("__") && path != "ENGINE" {
                return None;
            }
            let keys: Vec<_> = path.split("__").map(str::to_ascii_lowercase).collect();
            if keys.iter().any(String::is_empty) {
                let problem = "names no key: a part between __ is empty";
                return Some(Err(ConfigError::new(name, problem)));
            }
            Some(Ok((keys, parse_value(&text))))
        })
        .collect()
}

/// A TOML value if the text is one, else the text itself.
fn parse_value(text: &str) -> Value {
    let line = format!("value = {text}");
    line.parse::<Table>()
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

fn insert(table: &mut Table, keys: &[String], value: Value) -> Result<(), ConfigError> {
    let Some((last, parents)) = keys.split_last() else {
        return Ok(());
    };
    let mut table = table;
    for parent in parents {
        table = table
            .entry(parent.clone())
            .or_insert_with(|| Value::Table(Table::new()))
            .as_table_mut()
            .ok_or_else(|| ConfigError::new(keys.join("."), "a part of this key is not a table"))?;
    }
    table.insert(last.clone(), value);
    Ok(())
}

/// URLs in the file must not hold passwords: the file is not a secret.
fn refuse_inline_passwords(table: &Table, parent: &str) -> Result<(), ConfigError> {
    for (key, value) in table {
        let path = if parent.is_empty() {
            key.clone()
        } else {
            format!("{parent}.{key}")
        };
        match value {
            Value::Table(inner) => refuse_inline_passwords(inner, &path)?,
            Value::String(text) if has_password(text) => {
                return Err(ConfigError::new(
                    path,
                    "a password must not stand in the file; give it by file or env",
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

fn has_password(text: &str) -> bool {
    text.split_once("://")
        .and_then(|(_, rest)| rest.split('/').next())
        .and_then(|authority| authority.rsplit_once('@'))
        .is_some_and(|(user, _)| user.contains(':') && !user.ends_with(':'))
}

/// Serde's message without the value it quotes: what is left is made of our own words.
fn without_values(message: &str) -> String {
    let quotes_a_value = [
        "invalid type",
        "invalid value",
        "invalid length",
        "unknown variant",
    ]
    .iter()
    .any(|start| message.starts_with(start));
    if !quotes_a_value {
        return message.lines().next().unwrap_or_default().to_owned();
    }
    match message.rsplit_once("expected ") {
        Some((_, expected)) => format!("must be {}", expected.lines().next().unwrap_or_default()),
        None => "has the wrong type or is out of its range".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[serde(default)]
        engine: String,
        http: Http,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Http {
        listen: String,
        #[serde(default)]
        limit: u8,
    }

    fn load_text(text: &str, environment: &[(&str, &str)]) -> Result<Sample, ConfigError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        load(file.path(), environment)
    }

    #[test]
    fn the_environment_lies_over_the_file() {
        let environment = [
            ("WATCHWORD_HTTP__LISTEN", "127.0.0.1:0"),
            ("WATCHWORD_HTTP__LIMIT", "7"),
            ("WATCHWORD_ENGINE", "embedded"),
            ("WATCHWORD_REDIS_PASSWORD", "left alone"),
            ("OTHER__THING", "1"),
        ];
        let sample = load_text("[http]\nlisten = \"x\"", &environment).unwrap();
        let http = Http {
            listen: "127.0.0.1:0".into(),
            limit: 7,
        };
        assert_eq!(
            sample,
            Sample {
                engine: "embedded".into(),
                http
            }
        );
    }

    #[test]
    fn the_files_it_names_are_known_wherever_they_stand() {
        let text = "[keys]\nsealing = [{ id = \"s1\", file = \"a\" }]\n[email.providers.relay]\n\
                    ca_file = \"b\"\nhost = \"file\"\n[a.b.secrets]\ntoken = { file = \"c\" }";
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let environment = [(
            "WATCHWORD_REDIS__PASSWORD".to_owned(),
            "{ file = \"d\" }".to_owned(),
        )];
        let files = files_of(file.path(), environment.into_iter());
        assert_eq!(files, ["a", "b", "c", "d"].map(PathBuf::from).into());
    }

    #[test]
    fn errors_name_the_key_and_never_the_value() {
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
        let cases: [Case<'_>; 8] = [
            (
                "[http]\nlisten = \"x\"",
                &[("WATCHWORD___LIMIT", "hunter2")],
                "WATCHWORD___LIMIT",
            ),
            ("\"\" = 1\n[http]\nlisten = \"x\"", &[], "(top level)"),
            (
                "[http]\nlisten = \"x\"\nlimit = \"hunter2\"",
                &[],
                "http.limit",
            ),
            ("[http]\nlisten = \"x\"\nlimit = 70000", &[], "http.limit"),
            ("[http]\nlisten = \"x\"\nlimt = 1", &[], "http"),
            (
                "[http]\nlisten = \"amqp://a:hunter2@h/\"",
                &[],
                "http.listen",
            ),
            (
                "[http]\nlisten = \"x\"",
                &[("WATCHWORD_HTTP__NONSENSE", "hunter2")],
                "http",
            ),
            ("[http]\nlisten = hunter2", &[], "line 2"),
        ];
        for (text, environment, key) in cases {
            let shown = load_text(text, environment).unwrap_err().to_string();
            assert!(shown.contains(key), "{shown}");
            assert!(
                !shown.contains("hunter2") && !shown.contains("70000"),
                "{shown}"
            );
        }
    }
}
