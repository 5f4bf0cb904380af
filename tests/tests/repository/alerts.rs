//! The alert rules: `promtool` checks that each fires when it should and only then, and each links
//! to an entry of the runbook. The commands, metrics and files named there exist.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use watchword_tests::monitoring::{self, DASHBOARDS, RULES};

fn root() -> PathBuf {
    monitoring::root()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// Returns the rest of each line of `text` that begins with `start`, ignoring indentation.
fn after<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
    let lines = text.lines().map(str::trim);
    lines.filter_map(|line| line.strip_prefix(start)).collect()
}

fn test_files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("tests/alerts")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_alert_fires_and_rests_when_it_should() {
    let output = Command::new("promtool")
        .args(["test", "rules"])
        .args(test_files())
        .output()
        .expect("promtool is installed by tests/run");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = told + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");

    let mut tested = BTreeSet::new();
    for file in test_files() {
        for name in after(&std::fs::read_to_string(&file).unwrap(), "- name: ") {
            let (alert, what) = name.split_once(' ').unwrap();
            let what = what.split(' ').next().unwrap();
            tested.insert((format!("Watchword{alert}"), what.to_owned()));
        }
    }
    for alert in after(&read(RULES), "- alert: ") {
        for what in ["fires", "rests"] {
            let test = (alert.to_owned(), what.to_owned());
            assert!(tested.remove(&test), "no test in which {alert} {what}");
        }
    }
    assert!(tested.is_empty(), "tests of no alert: {tested:?}");
}

#[test]
fn every_alert_leads_to_its_entry_of_the_runbook() {
    let (rules, runbook) = (read(RULES), read("docs/runbook.md"));
    let alerts = after(&rules, "- alert: ");
    let entries = after(&runbook, "## ");
    assert_eq!(alerts, entries, "alerts and entries, in their order");
    for (alert, rule) in alerts.iter().zip(rules.split("- alert: ").skip(1)) {
        let severity = after(rule, "severity: ");
        assert!(
            severity == ["critical"] || severity == ["warning"],
            "{alert}: {severity:?}"
        );
        for annotation in ["summary: ", "description: "] {
            assert_eq!(after(rule, annotation).len(), 1, "{alert}: {annotation}");
        }
        let anchor = format!("docs/runbook.md#{}", alert.to_lowercase());
        assert_eq!(after(rule, "runbook_url: "), [anchor], "{alert}");
    }
    for entry in runbook.split("\n## ").skip(1) {
        for part in [
            "**Means.** ",
            "**First.** `watchword ",
            "**Shows.** ",
            "**Fix.**",
        ] {
            assert_eq!(entry.matches(part).count(), 1, "{part} in {entry}");
        }
    }
}

#[test]
fn the_commands_of_the_runbook_exist() {
    let mut seen = 0;
    for quoted in read("docs/runbook.md").split('`').skip(1).step_by(2) {
        let Some(arguments) = quoted.strip_prefix("watchword ") else {
            continue;
        };
        // Words in capitals are placeholders for values of the operator.
        let words: Vec<_> = arguments.split(' ').collect();
        let is_command = |word: &&&str| {
            let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
            !word.starts_with('-') && word.bytes().all(is_plain)
        };
        let path: Vec<_> = words.iter().take_while(is_command).collect();
        let mut help = Command::new(watchword_tests::pipeline::binary());
        let help = help.arg("help").args(&path).output().unwrap();
        assert!(help.status.success(), "`{quoted}` is no command");
        let help = String::from_utf8(help.stdout).unwrap();
        for option in words.iter().filter(|word| word.starts_with("--")) {
            assert!(help.contains(option), "`{quoted}`: no {option}");
        }
        seen += 1;
    }
    assert!(seen > 10, "only {seen} commands were found");
}

#[test]
fn rules_and_dashboards_name_declared_series_only() {
    let declared = monitoring::declared();
    assert!(declared.len() > 40, "only {} series", declared.len());
    let recorded = read(RULES);
    let recorded = after(&recorded, "- record: ");
    let files = DASHBOARDS.map(|name| format!("{}/{name}.json", monitoring::DASHBOARD_FOLDER));
    for file in files.iter().map(String::as_str).chain([RULES]) {
        let text = read(file);
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let names = text.split(|c| !is_name(c)).filter(|word| {
            let ours = word.starts_with("watchword_") || word.starts_with("watchword:");
            ours || word.starts_with("process_")
        });
        for name in names {
            let plain = ["_bucket", "_count", "_sum"]
                .iter()
                .find_map(|end| {
                    name.strip_suffix(end)
                        .filter(|plain| declared.contains_key(*plain))
                })
                .unwrap_or(name);
            assert!(
                declared.contains_key(plain) || recorded.contains(&name),
                "{file} names {name}, which is not declared"
            );
        }
    }
}
