//! Tests that `init` writes a valid configuration for all combinations of options.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use clap::Parser;

use super::*;
use crate::cli::{Cli, Command};
use crate::config::Config;
use crate::needs::Needs;
use crate::validation::validate;

fn init(folder: &Path, options: &[&str]) -> anyhow::Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = folder.display().to_string();
    let arguments = ["watchword", "init", &folder, "--json"];
    let cli = Cli::parse_from(arguments.iter().chain(options));
    let Command::Init(arguments) = cli.command else {
        panic!("not init");
    };
    run(&arguments)
}

fn read(folder: &Path) -> Config {
    Config::read_under(&folder.join("watchword.toml"), std::iter::empty()).unwrap()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        }
        files.push(path);
    }
    files
}

#[test]
fn every_configuration_is_valid_and_closed_to_others() {
    for options in [
        &[][..],
        &["--engine", "distributed"],
        &["--with-simulator"],
        &["--engine", "distributed", "--with-simulator"],
        &["--data", "/var/lib/a \"q\" folder"],
        &[
            "--gateway",
            "inbox",
            "--sender",
            "A \"q\" name",
            "--country",
            "DE,AT",
        ],
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("otp");
        init(&folder, options).unwrap();
        let config = read(&folder);
        validate(&config, Needs::ALL).unwrap_or_else(|error| panic!("{options:?}: {error:#}"));
        assert!(config.admin.keys.contains_key(&"admin".parse().unwrap()));
        for path in files(&folder).into_iter().chain([folder]) {
            let mode = path.metadata().unwrap().permissions().mode() & 0o777;
            let expected = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode, expected, "{}", path.display());
        }
    }
}

/// A preset lacks only the settings and secrets of the operator's account.
#[test]
fn every_preset_is_written_so_that_settings_and_secrets_complete_it() {
    for (name, _) in watchword_sms_worker::PRESETS {
        if *name == "simulator" {
            continue;
        }
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("otp");
        init(&folder, &["--gateway", name, "--country", "DE"]).unwrap();
        let path = folder.join("watchword.toml");
        let preset = preset(name).unwrap();
        let mut text = std::fs::read_to_string(&path).unwrap();
        for key in preset.settings.iter().filter(|(_, value)| value.is_empty()) {
            let value = if key.0.contains("url") {
                "https://gateway.example.org"
            } else {
                "x1"
            };
            text = text.replace(
                &format!("{} = \"\"", key.0),
                &format!("{} = \"{value}\"", key.0),
            );
        }
        std::fs::write(&path, text).unwrap();
        let incomplete = validate(&read(&folder), Needs::ALL)
            .unwrap_err()
            .to_string();
        assert!(
            incomplete.contains("does not exist"),
            "{name}: {incomplete}"
        );
        for secret in &preset.secrets {
            let file = format!("keys/{name}-{}", secret.replace('_', "-"));
            // 32 bytes in base64 are valid as a key of every kind except a private key.
            write(
                &folder.join(file),
                "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            )
            .unwrap();
        }
        let checked = validate(&read(&folder), Needs::ALL);
        if let Err(error) = checked {
            let shown = format!("{error:#}");
            // A private key must be PEM.
            assert!(
                shown.contains("private") || shown.contains("PEM"),
                "{name}: {shown}"
            );
        }
    }
}

#[test]
fn nothing_is_overwritten() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("otp");
    for existing in ["watchword.toml", "keys/index", "simulate.toml"] {
        std::fs::create_dir_all(folder.join("keys")).unwrap();
        std::fs::write(folder.join(existing), "mine").unwrap();
        let error = init(&folder, &["--with-simulator"])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(existing) && error.contains("overwrites nothing"),
            "{error}"
        );
        assert_eq!(
            std::fs::read_to_string(folder.join(existing)).unwrap(),
            "mine"
        );
        assert_eq!(
            files(&folder).len(),
            2,
            "{existing}: nothing else is written"
        );
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

#[test]
fn only_hashes_of_the_two_keys_are_written() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("otp");
    init(&folder, &[]).unwrap();
    let config = read(&folder);
    let hashes = [
        &config.services.values().next().unwrap().api_keys[0].sha256,
        &config.admin.keys.values().next().unwrap().hash,
    ];
    assert!(hashes.iter().all(|hash| hash.len() == 64) && hashes[0] != hashes[1]);
    for path in files(&folder).iter().filter(|path| path.is_file()) {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(
            !text.contains("ww_") && !text.contains("wwadmin_"),
            "{}",
            path.display()
        );
    }
}

#[test]
fn a_real_gateway_needs_countries_that_exist() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("otp");
    for (options, word) in [
        (&["--gateway", "twilio"][..], "--country"),
        (&["--gateway", "twilio", "--country", "UK"], "GB, not UK"),
        (&["--sender", ""], "--sender"),
        (&["--sender", "twelve chars"], "--sender"),
    ] {
        let error = init(&folder, options).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
        assert!(!folder.exists(), "{options:?}");
    }
}
