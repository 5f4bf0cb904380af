//! A child process whose output goes to a file; killed when dropped.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A child process.
pub struct Process {
    child: Child,
    output: PathBuf,
}

impl Process {
    /// Starts `command` with stdout and stderr redirected to `output`.
    pub fn start(mut command: Command, output: &Path) -> Self {
        let file = File::create(output).expect("an output file");
        let errors = file.try_clone().expect("an output file");
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{name} cannot be started ({error}): tests/run installs what is missing")
            });
        Self {
            child,
            output: output.to_owned(),
        }
    }

    /// Returns the output so far.
    pub fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal: `TERM`, `KILL`, `STOP`, `CONT`.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Returns the exit status if the process has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for the process to end.
    pub fn wait(&mut self, seconds: u64) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the process did not end within {seconds} s:\n{}",
                self.output()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends the signal `name` to process `id`. Uses the shell's builtin `kill`, because small systems
/// do not have the program of that name.
pub fn signal(id: u32, name: &str) {
    let status = Command::new("sh")
        .args(["-c", "kill -s \"$0\" \"$1\"", name, &id.to_string()])
        .stderr(Stdio::null())
        .status();
    assert!(status.is_ok(), "sh cannot be run");
}

/// Returns the descendants of process `id`. The kernel lists children per thread, so all threads
/// are read.
pub fn descendants(id: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut open = vec![id];
    while let Some(id) = open.pop() {
        let threads = fs::read_dir(format!("/proc/{id}/task"))
            .into_iter()
            .flatten();
        for thread in threads.flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            let children = children.split_whitespace();
            let children: Vec<u32> = children.filter_map(|id| id.parse().ok()).collect();
            open.extend(&children);
            found.extend(children);
        }
    }
    found
}

/// Completes when this process receives SIGINT or SIGTERM.
pub async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).expect("signals");
    let mut interrupt = signal(SignalKind::interrupt()).expect("signals");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
