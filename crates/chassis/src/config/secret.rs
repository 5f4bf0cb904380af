//! References to secrets. The secret itself never stands in the config file.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde::Deserialize;
use watchword_core::SecretString;

use super::ConfigError;

/// Where a secret is: exactly one of `file` and `env`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretRef {
    /// A file that others cannot read. Line breaks at its end are not part of the secret.
    pub file: Option<PathBuf>,
    /// The name of an environment variable. Line breaks at its end are not part of the secret.
    pub env: Option<String>,
}

impl SecretRef {
    /// Reads the secret.
    pub fn resolve(&self) -> Result<SecretString, ConfigError> {
        match (&self.file, &self.env) {
            (Some(file), None) => {
                let error = |problem: &str| ConfigError::new("file", problem);
                let meta =
                    fs::metadata(file).map_err(|_| error("the secret's file cannot be read"))?;
                if meta.permissions().mode() & 0o007 != 0 {
                    return Err(error(
                        "the secret's file is open to others; chmod it to 0600 or 0640",
                    ));
                }
                if meta.len() > 64 * 1024 {
                    return Err(error("the secret's file is larger than 64 KiB"));
                }
                let text = fs::read_to_string(file)
                    .map_err(|_| error("the secret's file cannot be read"))?;
                non_empty(&text, "file")
            }
            (None, Some(name)) => {
                let text = std::env::var(name).map_err(|_| {
                    ConfigError::new("env", "the environment variable it names is not set")
                })?;
                non_empty(&text, "env")
            }
            _ => Err(ConfigError::new("file", "give exactly one of file and env")),
        }
    }
}

/// Returns the secret without the line breaks that editors, `echo` and secret stores append.
fn non_empty(text: &str, key: &str) -> Result<SecretString, ConfigError> {
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() {
        return Err(ConfigError::new(key, "the secret is empty"));
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
            let read = non_empty(text, "env");
            assert_eq!(read.as_ref().ok().map(SecretString::expose), secret);
        }
    }
}
