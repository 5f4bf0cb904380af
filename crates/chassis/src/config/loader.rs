//! Reads a file and environment variables into a table.
//!
//! The variable `WATCHWORD_HTTP__LISTEN` sets the key `http.listen`: two underscores stand for the
//! dot. Variables without two underscores (except `WATCHWORD_ENGINE`) set no key and can be used
//! for secrets. An empty variable is ignored.
//!
//! The value is parsed as TOML. If the key is a string, the text of the variable is its value
//! (`1234`, `true`); if the key is a list, the text is split at commas (`DE,AT`).
//!
//! A relative path in the file starts at the file's folder; one in a variable starts at the working
//! directory.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::paths::{collect_files, resolve_paths};
use super::{ConfigError, SecretRef};

const PREFIX: &str = "WATCHWORD_";

/// Returns the name of the variable that set the value with `error`, or `None` if the file did.
pub fn variable_of(
    error: &ConfigError,
    environment: impl Iterator<Item = (String, String)>,
) -> Option<String> {
    let variables = overlay(environment).ok()?;
    let is_below = |key: &str, parent: &str| {
        let rest = key.strip_prefix(parent);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let is_unknown = error.problem.starts_with("unknown field");
    let sets = |variable: &Variable| {
        let set = variable.keys.join(".");
        // The unknown field may be a table that the variable creates, with the key in it.
        is_below(&error.key, &set) || is_unknown && is_below(&set, &error.key)
    };
    variables
        .into_iter()
        .filter(sets)
        .max_by_key(|variable| variable.keys.len())
        .map(|variable| variable.name)
}

/// Returns the files that `path`, overridden by `environment`, names: secrets, keys, certificates.
/// Skips those below a key in `left_out`. Returns none if `path` cannot be read.
pub fn files_of(
    path: &Path,
    environment: impl Iterator<Item = (String, String)>,
    left_out: &[&str],
) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    if let Ok(Whole { mut table, .. }) = whole(path, environment) {
        for key in left_out {
            remove(&mut table, key);
        }
        collect_files(&Value::Table(table), &mut files);
    }
    files
}

fn remove(table: &mut Table, key: &str) {
    match key.split_once('.') {
        None => {
            table.remove(key);
        }
        Some((parent, rest)) => {
            if let Some(Value::Table(inner)) = table.get_mut(parent) {
                remove(inner, rest);
            }
        }
    }
}

/// Returns an error for each secret of `path`, overridden by `environment`, that cannot be read, so
/// that an operator sees them all at once. Skips secrets below a key in `left_out`.
pub fn unreadable_secrets(
    path: &Path,
    environment: impl Iterator<Item = (String, String)>,
    left_out: &[&str],
) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    if let Ok(Whole { mut table, .. }) = whole(path, environment) {
        for key in left_out {
            remove(&mut table, key);
        }
        for (key, value) in &table {
            try_secrets(key, value, &mut errors);
        }
    }
    errors
}

fn try_secrets(key: &str, value: &Value, errors: &mut Vec<ConfigError>) {
    match value {
        Value::Table(table) if is_secret_reference(table) => {
            let text = |key| Some(table.get(key)?.as_str()?.to_owned());
            let secret = SecretRef {
                file: text("file").map(PathBuf::from),
                env: text("env"),
            };
            if let Err(error) = secret.resolve() {
                errors.push(error.within(key));
            }
        }
        Value::Table(table) => {
            for (name, value) in table {
                try_secrets(&format!("{key}.{name}"), value, errors);
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                try_secrets(&format!("{key}[{index}]"), value, errors);
            }
        }
        _ => {}
    }
}

/// Whether `table` is `{ file = … }` or `{ env = … }`, with or without the `id` of a key.
fn is_secret_reference(table: &Table) -> bool {
    let is_known = |key: &String| matches!(key.as_str(), "id" | "file" | "env");
    (table.contains_key("file") || table.contains_key("env")) && table.keys().all(is_known)
}

/// A variable that sets a key.
pub(super) struct Variable {
    name: String,
    pub(super) keys: Vec<String>,
    text: String,
    value: Value,
}

impl Variable {
    /// Returns the value converted to the type that serde's error `message` expects, or `None` if
    /// there is no such conversion.
    pub(super) fn other(&self, message: &str) -> Option<Value> {
        match &self.value {
            Value::String(text) if message.contains("expected a sequence") => {
                let items = text
                    .split(',')
                    .map(|item| Value::String(item.trim().to_owned()));
                Some(Value::Array(items.collect()))
            }
            Value::String(_) => None,
            _ => Some(Value::String(self.text.clone())),
        }
    }
}

/// The table of a file overridden by variables.
pub(super) struct Whole {
    pub(super) table: Table,
    pub(super) variables: Vec<Variable>,
    pub(super) errors: Vec<ConfigError>,
}

/// Reads `path` and overrides its keys by the variables of `environment`.
pub(super) fn whole(
    path: &Path,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Whole, ConfigError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| ConfigError::file(path, unread(&error)))?;
    let mut table: Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(0, |span| {
            text[..span.start.min(text.len())].lines().count().max(1)
        });
        let message = error.message().lines().next().unwrap_or_default();
        ConfigError::file(path, format!("line {line} is not valid TOML: {message}"))
    })?;
    let mut errors = Vec::new();
    find_inline_passwords(&table, "", &mut errors);
    if let Some(folder) = path.parent() {
        resolve_paths(&mut table, folder);
    }
    let variables = overlay(environment)?;
    for variable in &variables {
        if let Err(error) = insert(&mut table, &variable.keys, variable.value.clone()) {
            errors.push(error);
        }
    }
    Ok(Whole {
        table,
        variables,
        errors,
    })
}

/// Returns the reason why a configuration file cannot be read.
fn unread(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "not found",
        io::ErrorKind::PermissionDenied => {
            "this user may not read it; run as the service's user, or change its owner or mode"
        }
        io::ErrorKind::IsADirectory => "is a folder; name the file in it",
        io::ErrorKind::InvalidData => "is not UTF-8 text",
        _ => "cannot be read",
    }
}

/// Returns the variables that set keys, sorted so that a table is set before the keys in it.
fn overlay(
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Vec<Variable>, ConfigError> {
    let mut variables = environment
        .filter_map(|(name, text)| {
            let path = name.strip_prefix(PREFIX)?;
            if !path.contains("__") && path != "ENGINE" || text.is_empty() {
                return None;
            }
            let keys: Vec<_> = path.split("__").map(str::to_ascii_lowercase).collect();
            if keys.iter().any(String::is_empty) {
                let problem = "names no key: a part between __ is empty";
                return Some(Err(ConfigError::new(name, problem)));
            }
            let value = parse_value(&text);
            Some(Ok(Variable {
                name,
                keys,
                text,
                value,
            }))
        })
        .collect::<Result<Vec<_>, _>>()?;
    variables.sort_by(|a, b| a.keys.cmp(&b.keys));
    Ok(variables)
}

/// Parses `text` as a TOML value. Returns it as a string if it is not valid TOML.
fn parse_value(text: &str) -> Value {
    let line = format!("value = {text}");
    line.parse::<Table>()
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Sets the key at the path `keys`, and creates missing parent tables.
pub(super) fn insert(table: &mut Table, keys: &[String], value: Value) -> Result<(), ConfigError> {
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

/// Adds an error for each URL with a password, because the file is not kept secret.
fn find_inline_passwords(table: &Table, parent: &str, errors: &mut Vec<ConfigError>) {
    for (key, value) in table {
        let path = if parent.is_empty() {
            key.clone()
        } else {
            format!("{parent}.{key}")
        };
        match value {
            Value::Table(inner) => find_inline_passwords(inner, &path, errors),
            Value::String(text) if has_password(text) => errors.push(ConfigError::new(
                path,
                "a password must not stand in the file; give it by file or env",
            )),
            _ => {}
        }
    }
}

fn has_password(text: &str) -> bool {
    text.split_once("://")
        .and_then(|(_, rest)| rest.split('/').next())
        .and_then(|authority| authority.rsplit_once('@'))
        .is_some_and(|(user, _)| user.contains(':') && !user.ends_with(':'))
}

#[cfg(test)]
mod tests;
