//! The command line as a user meets it, including common mistakes. Each file of this folder has the
//! command lines for one command (`$ …`) with their output and exit code. `WATCHWORD_WRITE=1`
//! rewrites the files with the current output, to be reviewed in the diff.

mod first_hour;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use watchword_tests::pipeline::binary;

/// A folder with an installation, and an address that is in use.
struct Scene {
    folder: tempfile::TempDir,
    taken: TcpListener,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let scene = Self {
            folder,
            taken: TcpListener::bind("127.0.0.1:0").unwrap(),
        };
        let (output, status) = scene.run("watchword init otp");
        assert_eq!(status, 0, "{output}");
        fs::write(scene.folder.path().join("open"), "secret").unwrap();
        let mode = fs::Permissions::from_mode(0o644);
        fs::set_permissions(scene.folder.path().join("open"), mode).unwrap();
        scene
    }

    /// Runs a line in the folder and returns its output, without the parts that differ from run to
    /// run, and its exit code.
    fn run(&self, line: &str) -> (String, i32) {
        let port = self.taken.local_addr().unwrap().port().to_string();
        let programs = binary();
        let programs = programs.parent().unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("sh")
            .args(["-c", &format!("exec 2>&1; {line}")])
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", format!("{}:{path}", programs.display()))
            .env("RUST_BACKTRACE", "full")
            .env("TAKEN", &port)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            !text.contains("backtrace") && !text.contains("panic"),
            "{line}: {text}"
        );
        let text = text
            .replace(&self.folder.path().display().to_string(), "FOLDER")
            .replace(&port, "TAKEN");
        let text = without_times(&without_keys(&text));
        (text, output.status.code().unwrap_or(-1))
    }
}

/// Replaces the random part of keys that `init` generates.
fn without_keys(text: &str) -> String {
    let mut shown = String::new();
    let mut rest = text;
    while let Some((at, prefix)) = ["ww_", "wwadmin_"]
        .iter()
        .filter_map(|prefix| Some((rest.find(prefix)?, prefix)))
        .min()
    {
        let (before, key) = rest.split_at(at + prefix.len());
        let is_of_key = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let end = key.find(|c| !is_of_key(c)).unwrap_or(key.len());
        shown.push_str(before);
        shown.push_str("KEY");
        rest = &key[end..];
    }
    shown + rest
}

/// Replaces the times of log lines.
fn without_times(text: &str) -> String {
    let is_time = |word: &str| {
        let is_of_time = |c: char| c.is_ascii_digit() || "-:.TZ".contains(c);
        word.starts_with("20") && word.ends_with('Z') && word.chars().all(is_of_time)
    };
    let words = text.split_inclusive([' ', '\n']);
    words
        .map(|word| {
            let bare = word.trim_end();
            if is_time(bare) {
                word.replace(bare, "TIME")
            } else {
                word.to_owned()
            }
        })
        .collect()
}

fn expected() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli");
    let entries = fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "txt"))
        .collect();
    paths.sort();
    paths
}

#[test]
fn every_mistake_is_answered_with_what_is_wrong_and_what_to_do() {
    let mut differing = Vec::new();
    let files = expected();
    assert!(files.len() >= 12, "{files:?}");
    for path in files {
        let scene = Scene::new();
        let written = fs::read_to_string(&path).unwrap();
        let mut shown = String::new();
        for line in written.lines().filter_map(|line| line.strip_prefix("$ ")) {
            let (output, status) = scene.run(line);
            let end = if output.ends_with('\n') || output.is_empty() {
                ""
            } else {
                "\n"
            };
            let parts = [
                "$ ",
                line,
                "\n",
                &output,
                end,
                "[",
                &status.to_string(),
                "]\n\n",
            ];
            shown.extend(parts);
        }
        if shown != written && std::env::var_os("WATCHWORD_WRITE").is_some() {
            fs::write(&path, &shown).unwrap();
        } else if shown != written {
            let (a, b) = (shown.lines(), written.lines());
            let first = a.zip(b).find(|(a, b)| a != b);
            differing.push(format!("{}: (now, before) {first:?}", path.display()));
        }
    }
    assert!(differing.is_empty(), "{differing:#?}");
}
