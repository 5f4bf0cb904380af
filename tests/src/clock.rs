//! A clock of one process that can be stepped, by `libfaketime`. The time since boot stays right.

use std::fs;
use std::path::{Path, PathBuf};

const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// The wall clock of a process.
pub struct SteppedClock(PathBuf);

impl SteppedClock {
    /// The clock of the process called `name`, kept in `folder`.
    pub fn of(folder: &Path, name: &str) -> Self {
        Self(folder.join(format!("clock-{name}")))
    }

    /// The variables that give a process this clock, which is right at first.
    pub fn variables(&self) -> Vec<(String, String)> {
        assert!(
            Path::new(LIBRARY).exists(),
            "libfaketime is not installed: tests/run does that"
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

    /// Sets the clock so many seconds off; the process notices within a second.
    pub fn step(&self, seconds: i64) {
        // Whole or not at all: it may be read at any moment.
        let new = self.0.with_extension("new");
        fs::write(&new, format!("{seconds:+}\n")).expect("a clock file");
        fs::rename(&new, &self.0).expect("a clock file");
    }
}
