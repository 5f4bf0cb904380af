//! Mails that the relay accepted. `smtp-sink` appends each mail to a pipe before it answers, and
//! the reader wakes the user that waits for the code in it. The pipe and the sink's file of each
//! mail are in memory if the system has `/dev/shm`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::ensure;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe::{OpenOptions, Receiver};

use crate::provider::{Provider, code_in};

/// Pipe of mails.
pub struct Mailbox {
    folder: TempDir,
}

impl Mailbox {
    /// Creates the pipe and reports its mails to `provider`.
    pub fn open(provider: &Arc<Provider>) -> anyhow::Result<Self> {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        let folder = tempfile::Builder::new()
            .prefix("watchword-mails-")
            .tempdir_in(parent)?;
        // As root, the sink runs as another user. Set the mode afterwards, because the mode at
        // creation is subject to the umask.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777))?;
        let mailbox = Self { folder };
        let mut command = Command::new("mkfifo");
        command.args(["-m", "666"]).arg(mailbox.path());
        ensure!(command.status()?.success(), "mkfifo failed");
        // Open for writing as well, so that the pipe never reports its end.
        let pipe = OpenOptions::new()
            .read_write(true)
            .open_receiver(mailbox.path())?;
        tokio::spawn(read(pipe, provider.clone()));
        Ok(mailbox)
    }

    /// Returns the path of the pipe.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mails")
    }
}

/// Reads mails until the pipe fails: the recipient from the sink's own header, the code from the
/// text part.
async fn read(pipe: Receiver, provider: Arc<Provider>) {
    let mut lines = BufReader::with_capacity(64 * 1_024, pipe).lines();
    let (mut to, mut is_text) = (None, false);
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(rest) = line.strip_prefix("X-Rcpt-Args: <") {
            to = rest.split('>').next().map(str::to_owned);
            is_text = false;
        } else if line.starts_with("Content-Type: text/plain") {
            is_text = true;
        } else if is_text && code_in(&line).is_some() {
            if let Some(to) = to.take() {
                provider.arrived(&to, &line);
            }
            is_text = false;
        }
    }
}
