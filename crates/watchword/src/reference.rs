//! Shell completions and man pages, generated from the command line's definition.

use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::Failure;
use crate::output;

/// Prints the completions for `shell`.
pub fn completions(shell: Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "watchword", &mut script);
    output::data(&String::from_utf8_lossy(&script));
}

/// Writes a man page for each command into `folder`.
pub fn man(folder: &Path) -> anyhow::Result<()> {
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), folder));
    written.with_context(|| {
        Failure::new(format!(
            "{} cannot be written. Name a folder that this user may write to.",
            folder.display()
        ))
    })?;
    println!(
        "Wrote the man pages to {0}. Read one with 'man -l {0}/watchword.1'.",
        folder.display()
    );
    Ok(())
}
