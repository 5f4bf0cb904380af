//! A small disk that can fill up: a tmpfs mounted on a temporary folder.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A mounted disk; unmounted when dropped.
pub struct Disk {
    folder: TempDir,
}

impl Disk {
    /// Mounts a disk of `megabytes`. Needs root.
    pub fn mount(megabytes: u32) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("watchword-disk-")
            .tempdir()
            .expect("a folder");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(folder.path())
            .status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "cannot mount a tmpfs; run the tests as root"
        );
        Self { folder }
    }

    /// Returns the mount point.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Fills the disk to the last byte.
    pub fn fill(&self) {
        let mut file = fs::File::create(self.ballast()).expect("a file");
        let chunk = vec![0_u8; 4_096];
        while std::io::Write::write(&mut file, &chunk).is_ok_and(|written| written > 0) {}
    }

    /// Deletes the ballast that [`Disk::fill`] wrote.
    pub fn free(&self) {
        let _ = fs::remove_file(self.ballast());
    }

    fn ballast(&self) -> std::path::PathBuf {
        self.folder.path().join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A lazy unmount: processes about to be stopped may still have files open.
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.folder.path())
            .status();
    }
}
