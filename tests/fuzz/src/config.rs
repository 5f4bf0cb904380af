//! The configuration as `watchword config check` reads it: no file and no environment makes it
//! panic, and no error shows a value of the file, of a variable or of a secret. Errors may name the
//! paths of secrets and templates, and the variables that hold secrets if their names are in
//! capitals.
//!
//! An input is the file; after a line `===` follow variables, one `NAME=VALUE` per line. `keys/` is
//! a folder with valid keys, an invalid one, and a certificate that cannot be parsed.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::LazyLock;

use tempfile::TempDir;
use toml::de::{DeTable, DeValue};
use watchword::needs::Needs;
use watchword::validation::{at_line, errors_of};
use watchword_chassis::config::ConfigError;

use crate::canary::{CANARY, NUMBER, assert_absent, pick};

/// A valid key: the base64 of 32 bytes.
const KEY: &str = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2U=";

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("keys")).expect("a folder");
    for (name, text) in [
        ("sealing", KEY),
        ("digest", KEY),
        ("index", KEY),
        ("wrong", CANARY),
    ] {
        let path = folder.path().join("keys").join(name);
        std::fs::write(&path, text).expect("a key");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    }
    folder
});

/// Checks one configuration as it is and with a planted value.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let keys = format!("{}/keys/", FOLDER.path().display());
    let text = text.replace("keys/", &keys);
    let (file, variables) = text.split_once("\n===\n").unwrap_or((&text, ""));
    let mut variables: BTreeMap<_, _> = variables
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    load(file, &variables);

    let place = pick(input);
    let planted = plant(file, place);
    load(planted.as_deref().unwrap_or(file), &variables);

    let name = place.checked_rem(variables.len());
    let name = name.and_then(|at| variables.keys().nth(at).copied());
    let name = name.filter(|name| !is_path(name.rsplit("__").next().unwrap_or_default()));
    if let Some(value) = name.and_then(|name| variables.get_mut(name)) {
        let planted = format!("{value}{CANARY}");
        *value = &planted;
        load(file, &variables);
    }
}

fn load(text: &str, variables: &BTreeMap<&str, &str>) {
    let path = FOLDER.path().join("watchword.toml");
    std::fs::write(&path, text).expect("a file");
    let environment: Vec<_> = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let (_, errors) = errors_of(&path, &environment, Needs::ALL);
    for error in errors {
        check(error, &path);
    }
}

fn check(error: ConfigError, path: &Path) {
    assert!(
        !error.key.is_empty() && !error.problem.is_empty(),
        "{error}"
    );
    let shown = format!("{:#}", at_line(path, error.into()));
    assert_absent(&shown, "an error of the configuration");
    assert!(!shown.contains(KEY), "a secret is shown: {shown}");
}

/// Returns the file with one of its values extended or replaced.
fn plant(file: &str, place: usize) -> Option<String> {
    let table = DeTable::parse(file).ok()?;
    let mut spans = Vec::new();
    table_leaves(table.get_ref(), &mut spans);
    let (span, is_text) = spans.get(place.checked_rem(spans.len())?)?.clone();
    let (before, value, after) = (&file[..span.start], &file[span.clone()], &file[span.end..]);
    let planted = match (place / spans.len()) % 3 {
        0 if is_text => format!(
            "{}{CANARY}{}",
            &value[..value.len() - 1],
            &value[value.len() - 1..]
        ),
        1 => NUMBER.to_owned(),
        _ => format!("\"{CANARY}\""),
    };
    Some(format!("{before}{planted}{after}"))
}

/// Whether the value of `key` is a path, which errors may show.
fn is_path(key: &str) -> bool {
    matches!(key.to_ascii_lowercase().as_str(), "file" | "templates")
}

type Spans = Vec<(std::ops::Range<usize>, bool)>;

fn table_leaves(table: &DeTable<'_>, spans: &mut Spans) {
    for (key, value) in table {
        // An error shows the name of a provider that a route names in vain.
        let is_names = key.get_ref() == "providers" && value.get_ref().is_array();
        if !is_path(key.get_ref()) && !is_names {
            leaves(value, spans);
        }
    }
}

fn leaves(value: &toml::Spanned<DeValue<'_>>, spans: &mut Spans) {
    match value.get_ref() {
        DeValue::Table(table) => table_leaves(table, spans),
        DeValue::Array(values) => values.iter().for_each(|value| leaves(value, spans)),
        leaf => spans.push((value.span(), leaf.is_str())),
    }
}
