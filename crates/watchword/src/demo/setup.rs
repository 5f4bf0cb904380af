//! The setup of the demo: a temporary folder with new keys and a configuration.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use watchword_chassis::SystemEntropy;
use watchword_chassis::config::load;
use watchword_core::Entropy;

use crate::config::Config;
use crate::failure::Failure;

/// The demo's folder and configuration.
pub(super) struct Setup {
    pub(super) config: Config,
    pub(super) api_key: String,
    /// Deletes the folder when dropped.
    _folder: TempDir,
}

impl Setup {
    pub(super) fn make() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("watchword-demo-")
            .tempdir()
            .context(Failure::new(
                "No temporary folder can be created. Set TMPDIR to a folder that this user may write to.",
            ))?;
        for name in ["sealing", "digest", "index"] {
            write_secret(&folder.path().join(name), &BASE64.encode(&random()?))?;
        }
        let api_key = format!("demo_{}", BASE64URL_NOPAD.encode(&random()?));
        let path = folder.path().join("demo.toml");
        fs::write(&path, config_text(folder.path(), &api_key))
            .context("the configuration cannot be written")?;
        // Ignore the environment, so that the demo is the same everywhere.
        Ok(Self {
            config: load(&path, std::iter::empty())?,
            api_key,
            _folder: folder,
        })
    }
}

fn config_text(folder: &Path, api_key: &str) -> String {
    let hash = HEXLOWER.encode(&Sha256::digest(api_key.as_bytes()));
    let folder = folder.display();
    format!(
        r#"
engine = "embedded"
[log]
level = "warn"
[embedded]
path = "{folder}/watchword.db"
[keys]
sealing = [{{ id = "s1", file = "{folder}/sealing" }}]
digest = [{{ id = "d1", file = "{folder}/digest" }}]
index = {{ file = "{folder}/index" }}
[services.demo]
app = "Watchword Demo"
host = "login.example.org"
countries = ["*"]
api_keys = [{{ id = "demo", sha256 = "{hash}" }}]
[sms.providers.inbox]
kind = "inbox"
[email.providers.inbox]
kind = "inbox"
"#
    )
}

fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())
        .context("a key cannot be written")
}

fn random() -> anyhow::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    SystemEntropy.fill(&mut bytes)?;
    Ok(bytes)
}
