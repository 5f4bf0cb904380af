//! `[keys]`. A process reads the keys it needs and leaves the others alone.

use std::path::PathBuf;

use data_encoding::BASE64;
use serde::Deserialize;
use watchword_core::{Key, KeyId, KeyRing};
use zeroize::Zeroizing;

use super::{ConfigError, SecretRef};

/// `[keys]`. A process needs some of the three and may lack the others.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeysConfig {
    /// Seal codes and recipients in orders and in the store; the first seals, all open.
    pub sealing: Vec<KeyConfig>,
    /// Digest codes in the store; the first digests, all verify.
    pub digest: Vec<KeyConfig>,
    /// Hashes subjects and recipients into store keys. It is not rotated: changing it forgets
    /// limits and live verifications.
    pub index: Option<SecretRef>,
}

/// A key: its id and its place.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// Its id; never use one again for another key.
    pub id: KeyId,
    /// The file with the base64 of 32 random bytes, …
    pub file: Option<PathBuf>,
    /// … or the variable.
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

/// Which keys a process needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyNeeds {
    /// It seals or opens orders: issuer and workers.
    pub sealing: bool,
    /// It makes or compares codes: issuer and verifier.
    pub digest: bool,
    /// It finds verifications, limits or locks by subject and recipient: issuer and verifier.
    pub index: bool,
}

impl KeyNeeds {
    /// Every key.
    pub const ALL: Self = Self {
        sealing: true,
        digest: true,
        index: true,
    };
}

/// The keys of `[keys]` that a process needs.
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
    /// The section without the keys that `needs` leaves out.
    #[must_use]
    pub fn only(self, needs: KeyNeeds) -> Self {
        let kept = |keys, is_needed| if is_needed { keys } else { Vec::new() };
        Self {
            sealing: kept(self.sealing, needs.sealing),
            digest: kept(self.digest, needs.digest),
            index: self.index.filter(|_| needs.index),
        }
    }

    /// Reads the keys that `needs` names; one that is missing is an error.
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
