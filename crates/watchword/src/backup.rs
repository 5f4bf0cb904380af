//! `watchword backup` and `watchword restore`: copies of the embedded engine's file.

use std::path::{Path, PathBuf};

use watchword_storage::{back_up, restore};
use watchword_verifier::store::end_live_codes;

use crate::config::EngineKind;
use crate::engine::embedded;
use crate::needs::Needs;
use crate::validation::checked;

/// Copies the database file that the configuration at `config` names to `to`. A process may be
/// using the file meanwhile.
pub fn make(config: &Path, to: &Path) -> anyhow::Result<()> {
    let file = embedded_file(config)?;
    back_up(&file, to)?;
    println!("{} backed up to {}", file.display(), to.display());
    Ok(())
}

/// Restores the backup `from` to the path of the database file that the configuration at `config`
/// names.
pub fn put_back(config: &Path, from: &Path) -> anyhow::Result<()> {
    let file = embedded_file(config)?;
    // A code that was approved after the backup was made must not become valid again.
    restore(from, &file, &embedded::migrations(), end_live_codes)?;
    println!(
        "{} restored to {}; codes that were live in it have ended",
        from.display(),
        file.display()
    );
    Ok(())
}

fn embedded_file(config: &Path) -> anyhow::Result<PathBuf> {
    let config = checked(config, Needs::default())?;
    anyhow::ensure!(
        config.engine == EngineKind::Embedded,
        "the distributed engine has no file: back up Redis and RabbitMQ, see Backups in docs/deploy.md"
    );
    Ok(embedded::section(&config)?.path.clone())
}
