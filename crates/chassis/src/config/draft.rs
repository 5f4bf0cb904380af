//! Deserialization of a table into a typed structure, with all independent errors at once.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;
use toml::{Table, Value};

use super::ConfigError;
use super::loader::{Whole, insert, whole};
use super::wording::without_values;

/// The most errors of a file that are reported together.
const MOST_ERRORS: usize = 100;

/// The valid part of a configuration, with its errors.
pub struct Draft<T> {
    /// The configuration without the keys that `errors` name; `None` if a required part is missing.
    pub config: Option<T>,
    /// The table that `config` was read from.
    pub table: Table,
    /// All independent errors. If there are none, `config` is complete.
    pub errors: Vec<ConfigError>,
}

/// Reads `path`, overridden by `environment`. Returns the first error if there are several.
pub fn load<T: DeserializeOwned>(
    path: &Path,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<T, ConfigError> {
    let Draft { config, errors, .. } = load_draft(path, environment);
    match errors.into_iter().next() {
        Some(error) => Err(error),
        None => config.ok_or_else(|| ConfigError::file(path, "cannot be read")),
    }
}

/// Reads `path`, overridden by `environment`. A key with an error is reported and left out, so that
/// the rest is read too.
pub fn load_draft<T: DeserializeOwned>(
    path: &Path,
    environment: impl Iterator<Item = (String, String)>,
) -> Draft<T> {
    let (mut table, mut variables, mut errors) = match whole(path, environment) {
        Ok(Whole {
            table,
            variables,
            errors,
        }) => (table, variables, errors),
        Err(error) => {
            return Draft {
                config: None,
                table: Table::new(),
                errors: vec![error],
            };
        }
    };
    let mut left_out: Vec<Vec<Step>> = Vec::new();
    let mut config = None;
    // Each iteration converts a variable or leaves out a key, so the loop ends.
    for _ in 0..MOST_ERRORS + variables.len() {
        let error = match serde_path_to_error::deserialize(Value::Table(table.clone())) {
            Ok(read) => {
                config = Some(read);
                break;
            }
            Err(error) => error,
        };
        let key = error.path().to_string();
        let message = error.inner().to_string();
        // The text of the variable looks like another type than the key has, for example `1234` for
        // a string. Convert it once.
        let other = variables
            .iter()
            .position(|variable| variable.keys.join(".") == key)
            .map(|index| variables.swap_remove(index))
            .and_then(|variable| Some((variable.other(&message)?, variable.keys)));
        if let Some((value, keys)) = other
            && insert(&mut table, &keys, value).is_ok()
        {
            continue;
        }
        let mut place: Vec<_> = error.path().iter().filter_map(Step::of).collect();
        let parent = place.len();
        if let Some(name) = missing_field(&message) {
            place.push(Step::Key(name.to_owned()));
        }
        // After a required key was left out its section lacks it. Do not report that as well.
        if !left_out.contains(&place) {
            errors.push(error_at(&key, &message));
        }
        place.truncate(parent);
        if !leave_out(&mut table, &mut place) {
            break;
        }
        left_out.push(place);
    }
    Draft {
        config,
        table,
        errors,
    }
}

/// Converts serde's `message` about `key` to an error.
fn error_at(key: &str, message: &str) -> ConfigError {
    // serde_path_to_error names the whole table `.`; a key may have an empty name.
    let is_top = matches!(key, "." | "");
    match missing_field(message) {
        Some(name) if is_top => ConfigError::new(name, "is missing"),
        Some(name) => ConfigError::new(format!("{key}.{name}"), "is missing"),
        None if is_top => ConfigError::new("(top level)", without_values(message)),
        None => ConfigError::new(key, without_values(message)),
    }
}

fn missing_field(message: &str) -> Option<&str> {
    let (name, _) = message.strip_prefix("missing field `")?.split_once('`')?;
    Some(name)
}

/// A step of the path from the table to a value.
#[derive(PartialEq, Eq)]
enum Step {
    Key(String),
    Item(usize),
}

impl Step {
    /// Returns the step of `segment`, or `None` for an enum variant, which is not a level in TOML.
    fn of(segment: &Segment) -> Option<Self> {
        match segment {
            Segment::Map { key } => Some(Self::Key(key.clone())),
            Segment::Seq { index } => Some(Self::Item(*index)),
            Segment::Enum { .. } | Segment::Unknown => None,
        }
    }
}

/// Removes the value at `place`, or the whole list that it is an item of, and shortens `place` to
/// what was removed. Returns whether there was something to remove.
fn leave_out(table: &mut Table, place: &mut Vec<Step>) -> bool {
    while let Some(last) = place.pop() {
        if let Step::Key(key) = &last
            && table_at(table, place).is_some_and(|inner| inner.remove(key).is_some())
        {
            place.push(last);
            return true;
        }
    }
    false
}

/// Returns the table at `place`.
fn table_at<'a>(table: &'a mut Table, place: &[Step]) -> Option<&'a mut Table> {
    let (first, rest) = match place.split_first() {
        None => return Some(table),
        Some((Step::Key(first), rest)) => (first, rest),
        Some((Step::Item(_), _)) => return None,
    };
    let mut value = table.get_mut(first)?;
    for step in rest {
        value = match step {
            Step::Key(key) => value.get_mut(key.as_str())?,
            Step::Item(index) => value.get_mut(*index)?,
        };
    }
    value.as_table_mut()
}
