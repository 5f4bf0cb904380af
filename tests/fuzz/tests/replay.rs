//! Runs every seed and every finding through its target, so that a fixed finding stays fixed. The
//! event fixtures and the presets' recorded responses are seeds, too.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

use watchword_fuzz::TARGETS;

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: PathBuf) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn replay(name: &str, further: Vec<PathBuf>) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let seeds = files(here().join("corpus").join(name));
    assert!(seeds.len() >= 5, "{name} has too few seeds");
    let findings = files(here().join("findings").join(name));
    for path in seeds.into_iter().chain(findings).chain(further) {
        // The test harness prints captured output only on failure, so this names the failing input.
        println!("{}", path.display());
        (target.run)(&fs::read(path).unwrap());
    }
    (target.run)(b"");
}

#[test]
fn config() {
    let shown = here().join("../../config");
    replay(
        "config",
        vec![shown.join("watchword.toml"), shown.join("distributed.toml")],
    );
}

#[test]
fn events() {
    let fixtures = files(here().join("../../crates/events/tests/fixtures"));
    assert!(fixtures.len() >= 8);
    replay("events", fixtures);
}

#[test]
fn http() {
    replay("http", Vec::new());
}

#[test]
fn receipts() {
    replay("receipts", Vec::new());
}

#[test]
fn recipients() {
    replay("recipients", Vec::new());
}

#[test]
fn replies() {
    replay("replies", Vec::new());
}

#[test]
fn responses() {
    replay("responses", Vec::new());
}

#[test]
fn seeds_and_findings_have_a_target_and_are_small() {
    let mut bytes = 0;
    for kind in ["corpus", "findings"] {
        for folder in files(here().join(kind)) {
            let name = folder.file_name().unwrap();
            assert!(
                TARGETS.iter().any(|target| target.name == name),
                "{} belongs to no target",
                folder.display()
            );
            for file in files(folder) {
                bytes += fs::metadata(file).unwrap().len();
            }
        }
    }
    assert!(bytes < 200 * 1024, "{bytes} bytes of seeds and findings");
}
