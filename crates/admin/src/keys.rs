//! The keys of the admin API, and the reason if the API is off.

use std::net::SocketAddr;

use watchword_chassis::config::{AdminConfig, AdminRole, ConfigError};
use watchword_chassis::{HashedKeys, Problem, ProblemCode};
use watchword_core::KeyId;

const NO_KEY: &str = "no admin key is configured: put the SHA-256 of a key under \
    [admin.keys.NAME], as hash = \"…\" and role = \"viewer\" or \"operator\"";
const IN_CLEAR: &str = "admin.listen is not a loopback address, so the admin API would carry keys \
    and recipients in clear: listen on loopback, or put a front that ends TLS before it and set \
    admin.behind_tls = true";

/// The name and the role of a configured key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdminKey {
    pub(crate) name: KeyId,
    pub(crate) role: AdminRole,
}

/// The keys of the admin API, by hash.
#[derive(Debug, Default)]
pub struct AdminKeys {
    keys: HashedKeys<AdminKey>,
    off: Option<&'static str>,
}

impl AdminKeys {
    /// Builds the keys from the section `[admin]`. Returns an error for a malformed or repeated
    /// hash.
    pub fn from_config(config: &AdminConfig) -> Result<Self, ConfigError> {
        let mut keys = HashedKeys::default();
        for (name, key) in &config.keys {
            let owner = AdminKey {
                name: name.clone(),
                role: key.role,
            };
            keys.add(&key.hash, owner)
                .map_err(|problem| ConfigError::new(format!("admin.keys.{name}.hash"), problem))?;
        }
        let off = if keys.is_empty() {
            Some(NO_KEY)
        } else if config.behind_tls || is_loopback(config.listen) {
            None
        } else {
            Some(IN_CLEAR)
        };
        Ok(Self { keys, off })
    }

    /// Returns the reason why the admin API is off although keys are configured. `None` if it is
    /// on, or off because no key is configured.
    pub fn refusal(&self) -> Option<&'static str> {
        self.off.filter(|_| !self.keys.is_empty())
    }

    /// Whether the admin API is on.
    pub const fn is_on(&self) -> bool {
        self.off.is_none()
    }

    /// Returns the problem that every request gets while the admin API is off.
    pub(crate) fn admit(&self) -> Result<(), Problem> {
        self.off
            .map_or(Ok(()), |why| Err(Problem::new(ProblemCode::AdminOff, why)))
    }

    pub(crate) fn find(&self, key: &str) -> Option<&AdminKey> {
        self.keys.find(key)
    }
}

fn is_loopback(listen: SocketAddr) -> bool {
    listen.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Result<AdminKeys, ConfigError> {
        AdminKeys::from_config(&toml::from_str(text).unwrap())
    }

    #[test]
    fn the_api_is_off_without_a_key_and_in_clear_beyond_loopback() {
        let hash = "a".repeat(64);
        let key = format!("keys.jane = {{ hash = \"{hash}\", role = \"viewer\" }}");
        for (listen, more, is_on) in [
            ("127.0.0.1:9090", String::new(), false),
            ("127.0.0.1:9090", key.clone(), true),
            ("[::1]:9090", key.clone(), true),
            ("[::ffff:127.0.0.1]:9090", key.clone(), true),
            ("0.0.0.0:9090", key.clone(), false),
            ("[::]:9090", key.clone(), false),
            ("10.0.0.1:9090", key.clone(), false),
            ("10.0.0.1:9090", format!("behind_tls = true\n{key}"), true),
            ("10.0.0.1:9090", "behind_tls = true".to_owned(), false),
        ] {
            let keys = keys(&format!("listen = \"{listen}\"\n{more}")).unwrap();
            assert_eq!(keys.is_on(), is_on, "{listen} {more}");
            assert_eq!(keys.admit().is_ok(), is_on);
            let has_key = more.contains("jane");
            assert_eq!(keys.refusal().is_some(), has_key && !is_on);
        }
    }

    #[test]
    fn a_key_that_cannot_be_read_is_named() {
        let error = keys("keys.jane = { hash = \"ab\", role = \"viewer\" }").unwrap_err();
        assert_eq!(error.key, "admin.keys.jane.hash");
        let twice = "a".repeat(64);
        let error = keys(&format!(
            "keys.a = {{ hash = \"{twice}\", role = \"viewer\" }}\n\
             keys.b = {{ hash = \"{twice}\", role = \"operator\" }}"
        ))
        .unwrap_err();
        assert_eq!(error.key, "admin.keys.b.hash");
    }
}
