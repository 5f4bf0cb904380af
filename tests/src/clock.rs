//! The wall clock of one process, stepped with `libfaketime`. The monotonic clock is not affected.

use std::fs;
use std::path::{Path, PathBuf};

const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// The wall clock of one process.
pub struct SteppedClock(PathBuf);

impl SteppedClock {
    /// Returns the clock of the process `name`, whose file is kept in `folder`.
    pub fn of(folder: &Path, name: &str) -> Self {
        Self(folder.join(format!("clock-{name}")))
    }

    /// Returns the environment variables that give a process this clock. It starts without an
    /// offset.
    pub fn variables(&self) -> Vec<(String, String)> {
        assert!(
            Path::new(LIBRARY).exists(),
            "libfaketime not found; tests/run installs it"
        );
        self.step(0);
        let file = self.0.display().to_string();
        [
            ("LD_PRELOAD", LIBRARY),
            ("FAKETIME_TIMESTAMP_FILE", &file),
            ("FAKETIME_CACHE_DURATION", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// Sets the offset of the clock from the real time. The process notices it within a second.
    pub fn step(&self, seconds: i64) {
        // Write and rename: the process may read the file at any moment and must not see half of
        // it.
        let new = self.0.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n")).expect("a clock file");
        fs::rename(&new, &self.0).expect("a clock file");
    }
}
