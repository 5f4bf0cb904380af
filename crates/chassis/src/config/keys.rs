//! The section `[keys]`. A process reads only the keys that it needs.

use std::path::PathBuf;

use data_encoding::BASE64;
use serde::Deserialize;
use watchword_core::{Key, KeyId, KeyRing};
use zeroize::Zeroizing;

use super::{ConfigError, SecretRef};

/// The section `[keys]`. Keys that a process does not need may be absent.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeysConfig {
    /// Keys that seal codes and recipients in orders and in the store. The first one seals, all of
    /// them open.
    pub sealing: Vec<KeyConfig>,
    /// Keys that digest codes in the store. The first one digests, all of them verify.
    pub digest: Vec<KeyConfig>,
    /// The key that hashes subjects and recipients into store keys. It cannot be rotated: after a
    /// change, earlier limits and live verifications are not found.
    pub index: Option<SecretRef>,
}

/// The id and the place of a key. Exactly one of `file` and `env` must be set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// The id in sealed and digested data. Do not reuse it for another key.
    pub id: KeyId,
    /// A file with the base64 of 32 random bytes.
    pub file: Option<PathBuf>,
    /// The name of an environment variable with the same content.
    pub env: Option<String>,
}

impl KeyConfig {
    fn place(&self) -> SecretRef {
        SecretRef {
            file: self.file.clone(),
            env: self.env.clone(),
        }
    }
}

/// The keys that a process needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyNeeds {
    /// Needed by issuer and workers, which seal or open orders.
    pub sealing: bool,
    /// Needed by issuer and verifier, which digest or compare codes.
    pub digest: bool,
    /// Needed by issuer and verifier, which find verifications, limits and locks by subject and
    /// recipient.
    pub index: bool,
}

impl KeyNeeds {
    /// All keys.
    pub const ALL: Self = Self {
        sealing: true,
        digest: true,
        index: true,
    };
}

/// The keys that a process has read; `None` for those that it does not need.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Keys that seal codes and recipients.
    pub sealing: Option<KeyRing>,
    /// Keys that digest codes.
    pub digest: Option<KeyRing>,
    /// The key that hashes subjects and recipients.
    pub index: Option<Key>,
}

impl KeysConfig {
    /// Returns the section with only the keys that `needs` names.
    #[must_use]
    pub fn only(self, needs: KeyNeeds) -> Self {
        let kept = |keys, is_needed| if is_needed { keys } else { Vec::new() };
        Self {
            sealing: kept(self.sealing, needs.sealing),
            digest: kept(self.digest, needs.digest),
            index: self.index.filter(|_| needs.index),
        }
    }

    /// Reads the keys that `needs` names. Returns an error if one of them is missing or malformed.
    pub fn resolve(&self, needs: KeyNeeds) -> Result<Keys, ConfigError> {
        let index = || {
            let id: KeyId = "index"
                .parse()
                .map_err(|_| ConfigError::new("keys.index", "is reserved"))?;
            let source = self.index.as_ref();
            let source = source.ok_or_else(|| ConfigError::new("keys.index", "is missing"))?;
            key(id, source, "keys.index")
        };
        Ok(Keys {
            sealing: needed(needs.sealing, || ring(&self.sealing, "keys.sealing"))?,
            digest: needed(needs.digest, || ring(&self.digest, "keys.digest"))?,
            index: needed(needs.index, index)?,
        })
    }
}

fn needed<T>(
    is_needed: bool,
    read: impl FnOnce() -> Result<T, ConfigError>,
) -> Result<Option<T>, ConfigError> {
    is_needed.then(read).transpose()
}

fn ring(configs: &[KeyConfig], path: &str) -> Result<KeyRing, ConfigError> {
    if configs.is_empty() {
        return Err(ConfigError::new(path, "is missing"));
    }
    let keys = configs
        .iter()
        .enumerate()
        .map(|(index, config)| {
            key(
                config.id.clone(),
                &config.place(),
                &format!("{path}[{index}]"),
            )
        })
        .collect::<Result<_, _>>()?;
    KeyRing::new(keys).map_err(|error| ConfigError::new(path, error.rule()))
}

fn key(id: KeyId, source: &SecretRef, path: &str) -> Result<Key, ConfigError> {
    let text = source.resolve().map_err(|error| error.within(path))?;
    let error = || {
        ConfigError::new(
            path,
            "must be the base64 of 32 random bytes (openssl rand -base64 32)",
        )
    };
    let bytes = Zeroizing::new(
        BASE64
            .decode(text.expose().trim().as_bytes())
            .map_err(|_| error())?,
    );
    let bytes: [u8; 32] = bytes.as_slice().try_into().map_err(|_| error())?;
    if bytes.iter().all(|byte| *byte == bytes[0]) {
        return Err(error());
    }
    Ok(Key::new(id, bytes))
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn config(text: &str) -> KeysConfig {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn only_the_keys_that_are_needed_are_read_and_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            let bytes: Vec<u8> = name.bytes().cycle().take(32).collect();
            write(&path, BASE64.encode(&bytes)).unwrap();
            set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            path
        };
        let sealing = format!(
            "sealing = [{{ id = \"s1\", file = {:?} }}]\n",
            file("sealing")
        );
        let digest = format!(
            "digest = [{{ id = \"d1\", file = {:?} }}]\n",
            file("digest")
        );
        let index = format!("index = {{ file = {:?} }}\n", file("index"));
        let whole = format!("{sealing}{digest}{index}");
        // A key that is not needed may be missing, or unreadable for the process.
        let away = "sealing = [{ id = \"s1\", file = \"/nonexistent\" }]\n";
        let checks = KeyNeeds {
            sealing: false,
            ..KeyNeeds::ALL
        };
        let sends = KeyNeeds {
            sealing: true,
            ..KeyNeeds::default()
        };
        for (text, needs, missing) in [
            (whole.clone(), KeyNeeds::ALL, None),
            (whole, KeyNeeds::default(), None),
            (format!("{digest}{index}"), checks, None),
            (format!("{away}{digest}{index}"), checks, None),
            (sealing.clone(), sends, None),
            (String::new(), KeyNeeds::default(), None),
            (
                format!("{digest}{index}"),
                KeyNeeds::ALL,
                Some("keys.sealing"),
            ),
            (
                format!("{away}{digest}{index}"),
                KeyNeeds::ALL,
                Some("keys.sealing[0].file"),
            ),
            (format!("{sealing}{index}"), checks, Some("keys.digest")),
            (format!("{sealing}{digest}"), checks, Some("keys.index")),
            (
                format!("sealing = []\n{digest}{index}"),
                sends,
                Some("keys.sealing"),
            ),
        ] {
            let config = config(&text);
            for config in [config.clone(), config.only(needs)] {
                let keys = config.resolve(needs);
                if let Some(missing) = missing {
                    assert_eq!(keys.unwrap_err().key, missing, "{text}");
                    continue;
                }
                let keys = keys.unwrap();
                let found = KeyNeeds {
                    sealing: keys.sealing.is_some(),
                    digest: keys.digest.is_some(),
                    index: keys.index.is_some(),
                };
                assert_eq!(found, needs, "{text}");
            }
        }
    }
}
