//! A small disk that can be full: a file system in memory, mounted into a temporary folder.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// The disk; unmounted with the handle.
pub struct Disk {
    folder: TempDir,
}

impl Disk {
    /// Mounts one of `megabytes`; only root may.
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
            "a file system in memory cannot be mounted: only root may"
        );
        Self { folder }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves no byte free.
    pub fn fill(&self) {
        let mut file = fs::File::create(self.ballast()).expect("a file");
        let chunk = vec![0_u8; 4_096];
        while std::io::Write::write(&mut file, &chunk).is_ok_and(|written| written > 0) {}
    }

    /// Gives the room back.
    pub fn free(&self) {
        let _ = fs::remove_file(self.ballast());
    }

    fn ballast(&self) -> std::path::PathBuf {
        self.folder.path().join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: what still has a file open on it is about to be stopped.
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.folder.path())
            .status();
    }
}
