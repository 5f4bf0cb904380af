//! References to secrets, which are in files or environment variables, not in the configuration.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde::Deserialize;
use watchword_core::SecretString;

use super::ConfigError;

/// The place of a secret. Exactly one of `file` and `env` must be set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretRef {
    /// The path of a file of at most 64 KiB that others cannot read. Trailing line breaks are not
    /// part of the secret.
    pub file: Option<PathBuf>,
    /// The name of an environment variable. Trailing line breaks are not part of the secret.
    pub env: Option<String>,
}

impl SecretRef {
    /// Reads the secret. Returns an error if it is missing, empty, or in a file open to others.
    pub fn resolve(&self) -> Result<SecretString, ConfigError> {
        match (&self.file, &self.env) {
            (Some(file), None) => {
                let shown = file.display();
                let error = |problem: String| ConfigError::new("file", problem);
                let unread =
                    |cause: io::Error| error(format!("the file {shown} {}", reason(&cause)));
                let meta = fs::metadata(file).map_err(unread)?;
                if !meta.is_file() {
                    return Err(error(format!("{shown} is not a file")));
                }
                if meta.permissions().mode() & 0o007 != 0 {
                    return Err(error(format!(
                        "the file {shown} is open to others; run `chmod 600 {shown}` (or 640)"
                    )));
                }
                if meta.len() > 64 * 1024 {
                    return Err(error(format!("the file {shown} is larger than 64 KiB")));
                }
                let text = fs::read_to_string(file).map_err(unread)?;
                non_empty(&text, "file", &format!("the file {shown}"))
            }
            (None, Some(name)) => {
                let variable = if is_variable(name) {
                    format!("the environment variable {name}")
                } else {
                    "the environment variable it names".to_owned()
                };
                let text = std::env::var(name)
                    .map_err(|_| ConfigError::new("env", format!("{variable} is not set")))?;
                non_empty(&text, "env", &variable)
            }
            _ => Err(ConfigError::new("file", "give exactly one of file and env")),
        }
    }
}

/// Whether `name` has the usual form of a variable. Errors show only such a name, because people
/// put the secret itself here by mistake.
fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

fn reason(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "does not exist",
        io::ErrorKind::PermissionDenied => "may not be read by this user",
        _ => "cannot be read",
    }
}

/// Returns the secret without the line breaks that editors, `echo` and secret stores append.
fn non_empty(text: &str, key: &str, place: &str) -> Result<SecretString, ConfigError> {
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(ConfigError::new(key, format!("{place} is empty")));
    }
    Ok(SecretString::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_at_the_end_are_no_part_of_a_secret() {
        for (text, secret) in [
            ("tok\n", Some("tok")),
            ("tok\r\n\n", Some("tok")),
            ("to\nk ", Some("to\nk ")),
            ("\r\n", None),
            ("", None),
        ] {
            let read = non_empty(text, "env", "the variable");
            assert_eq!(read.as_ref().ok().map(SecretString::expose), secret);
        }
    }

    #[test]
    fn an_error_names_the_file_or_the_variable_and_no_secret_in_its_place() {
        let place = |file: Option<&str>, env: Option<&str>| SecretRef {
            file: file.map(PathBuf::from),
            env: env.map(str::to_owned),
        };
        for (place, key, problem) in [
            (
                place(Some("/nonexistent/token"), None),
                "file",
                "the file /nonexistent/token does not exist",
            ),
            (
                place(None, Some("WATCHWORD_NO_SUCH_1")),
                "env",
                "the environment variable WATCHWORD_NO_SUCH_1 is not set",
            ),
            (
                place(None, Some("hunter2")),
                "env",
                "the environment variable it names is not set",
            ),
        ] {
            let error = place.resolve().unwrap_err();
            assert_eq!((error.key.as_str(), error.problem.as_str()), (key, problem));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (mode, text, problem) in [
            (0o644, "secret", "is open to others"),
            (0o600, "\n", "is empty"),
        ] {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = place(path.to_str(), None).resolve().unwrap_err();
            let named = format!("the file {} {problem}", path.display());
            assert!(error.problem.starts_with(&named), "{error}");
        }
    }
}
