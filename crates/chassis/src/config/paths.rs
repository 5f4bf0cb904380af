//! The keys of a configuration that hold paths, and the resolution of relative paths.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// The keys whose value is the path of a file, at any depth.
const FILE_KEYS: [&str; 2] = ["file", "ca_file"];
/// The other keys whose value is a path.
const PATH_KEYS: [&str; 2] = ["templates", "embedded.path"];
/// The sections of a provider whose keys the operator chooses, and their depth:
/// `sms.providers.NAME.settings`. A key `file` in them is not a path.
const FREE_DEPTH: usize = 3;
const FREE_SECTIONS: [&str; 4] = ["settings", "request", "response", "receipt"];

/// Makes the relative paths in `table` relative to `folder`, the folder of its file.
pub(super) fn resolve_paths(table: &mut Table, folder: &Path) {
    for key in PATH_KEYS {
        let value = match key.split_once('.') {
            None => table.get_mut(key),
            Some((parent, key)) => table.get_mut(parent).and_then(|value| value.get_mut(key)),
        };
        if let Some(Value::String(path)) = value {
            *path = under(folder, path);
        }
    }
    for value in table.iter_mut().map(|(_, value)| value) {
        resolve_files(value, folder, 1);
    }
}

fn resolve_files(value: &mut Value, folder: &Path, depth: usize) {
    match value {
        Value::Table(table) => {
            for (key, value) in table.iter_mut() {
                match value {
                    Value::String(path) if FILE_KEYS.contains(&key.as_str()) => {
                        *path = under(folder, path);
                    }
                    _ if depth == FREE_DEPTH && FREE_SECTIONS.contains(&key.as_str()) => {}
                    value => resolve_files(value, folder, depth + 1),
                }
            }
        }
        Value::Array(values) => {
            for value in values {
                resolve_files(value, folder, depth);
            }
        }
        _ => {}
    }
}

/// Returns `path` relative to `folder`. An empty path stays empty, because it is an error and does
/// not mean the folder.
fn under(folder: &Path, path: &str) -> String {
    if path.is_empty() {
        return String::new();
    }
    folder.join(path).display().to_string()
}

/// Adds the files that `value` names to `files`.
pub(super) fn collect_files(value: &Value, files: &mut BTreeSet<PathBuf>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                match value {
                    Value::String(file) if FILE_KEYS.contains(&key.as_str()) => {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_start_at_the_folder_of_the_file() {
        let mut table: Table = "templates = \"texts\"\n[embedded]\npath = \"../w.db\"\n\
             [keys]\nindex = { file = \"keys/index\" }\nsealing = [{ id = \"s1\", file = \"/k\" }]\n\
             [sms.providers.settings]\nsettings = { file = \"a\" }\nsecrets = { t = { file = \"t\" }, u = { file = \"\" } }"
            .parse()
            .unwrap();
        resolve_paths(&mut table, Path::new("/etc/w"));
        let expected: Table = "templates = \"/etc/w/texts\"\n[embedded]\npath = \"/etc/w/../w.db\"\n\
             [keys]\nindex = { file = \"/etc/w/keys/index\" }\nsealing = [{ id = \"s1\", file = \"/k\" }]\n\
             [sms.providers.settings]\nsettings = { file = \"a\" }\nsecrets = { t = { file = \"/etc/w/t\" }, u = { file = \"\" } }"
            .parse()
            .unwrap();
        assert_eq!(table, expected);
    }
}
