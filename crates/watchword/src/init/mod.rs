//! `watchword init`: writes a commented configuration with new cryptographic keys, an API key and
//! an admin key. It does not overwrite files, and stores only hashes of the API and admin keys.

mod ask;
mod text;

use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::Context;
use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use serde_json::json;
use sha2::{Digest, Sha256};
use watchword_chassis::SystemEntropy;
use watchword_core::{Entropy, is_country};
use watchword_sms_worker::preset;
use zeroize::Zeroizing;

use crate::cli::InitArguments;
use crate::config::EngineKind;
use crate::failure::Failure;
use crate::output;
use text::{Gateway, Plan};

/// The default bearer token and receipt-signing secret of the simulator.
const SIMULATOR_TOKEN: &str = "simulator";
const SIMULATOR_SECRET: &str = "simulator-secret";

/// The password of the user `guest` in a new `RabbitMQ`, which accepts it only from loopback.
const RABBITMQ_PASSWORD: &str = "guest";

/// Writes the files and prints the API key, the admin key and the next commands.
pub fn run(arguments: &InitArguments) -> anyhow::Result<()> {
    let answers = ask::answers(arguments)?;
    let plan = plan(arguments, answers)?;
    let folder = &arguments.folder;
    let secrets = secrets(&plan)?;
    refuse_existing(folder, &secrets)?;

    let (api_key, admin_key) = (key("ww_")?, key("wwadmin_")?);
    create_folder(folder)?;
    create_folder(&folder.join("keys"))?;
    for (name, content) in &secrets {
        write(&folder.join("keys").join(name), content)?;
    }
    if plan.gateway == Gateway::Simulator {
        write(&folder.join("simulate.toml"), text::SIMULATE)?;
    }
    // Write the configuration last: it exists only if all files that it names do.
    let config = text::config(&plan, &hash(&api_key), &hash(&admin_key));
    write(&folder.join("watchword.toml"), &config)?;

    if arguments.json {
        let written = json!({
            "config": folder.join("watchword.toml"), "service": text::SERVICE,
            "api_key": *api_key, "admin_key": *admin_key,
        });
        return output::json(&written);
    }
    let shown = folder.display();
    println!("Created {shown}/watchword.toml and the keys in {shown}/keys.\n");
    output::data(&format!(
        "API key of the service \"{}\": {}\nadmin key \"admin\" (operator):   {}\n",
        text::SERVICE,
        *api_key,
        *admin_key
    ));
    println!("Keep both: the configuration has their hashes only.\n");
    println!("{}", text::next_commands(&plan, folder, &api_key));
    Ok(())
}

/// Validates the arguments and answers.
fn plan(arguments: &InitArguments, answers: ask::Answers) -> anyhow::Result<Plan> {
    let gateway = match answers.gateway.as_str() {
        _ if arguments.with_simulator => Gateway::Simulator,
        "inbox" => Gateway::Inbox,
        name => Gateway::Preset(name.to_owned(), Box::new(preset(name)?)),
    };
    let is_known = |country: &String| country == "*" || is_country(country);
    if let Some(unknown) = answers.countries.iter().find(|one| !is_known(one)) {
        return Err(Failure::usage(format!(
            "--country {unknown}: not a country of ISO 3166. Write two capital letters each, as in DE,AT (GB, not UK), \
             or '*' for every country."
        ))
        .into());
    }
    let is_real = matches!(gateway, Gateway::Preset(..));
    if is_real && answers.countries.is_empty() {
        return Err(Failure::usage(
            "A real gateway needs --country: the countries whose numbers get SMS, as in --country DE,AT.",
        )
        .into());
    }
    if !is_sender(&answers.sender) {
        let text =
            "--sender must be a name of 1 to 11 characters, or a number such as +12025550100.";
        return Err(Failure::usage(text).into());
    }
    let countries = if answers.countries.is_empty() {
        vec!["*".to_owned()]
    } else {
        answers.countries
    };
    Ok(Plan {
        engine: arguments.engine,
        database: database(arguments)?,
        gateway,
        sender: answers.sender,
        countries,
    })
}

/// Returns the path of the embedded engine's file as the configuration names it.
fn database(arguments: &InitArguments) -> anyhow::Result<String> {
    const FILE: &str = "watchword.db";
    let Some(folder) = &arguments.data else {
        return Ok(FILE.to_owned());
    };
    if arguments.engine == EngineKind::Distributed {
        let text = "--data is for the embedded engine: the distributed engine keeps no file.";
        return Err(Failure::usage(text).into());
    }
    // A relative path in the configuration is relative to the configuration's folder.
    let path = std::path::absolute(folder)?.join(FILE);
    let path = path.to_str().map(str::to_owned);
    path.ok_or_else(|| Failure::usage("--data: the path is not valid UTF-8.").into())
}

fn is_sender(text: &str) -> bool {
    let is_number = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'+');
    let most = if is_number { 16 } else { 11 };
    (1..=most).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

/// Returns name and content of the files under `keys/` that can be generated. The operator must
/// supply the secrets of a real gateway.
fn secrets(plan: &Plan) -> anyhow::Result<Vec<(&'static str, Zeroizing<String>)>> {
    let mut secrets = Vec::new();
    for name in ["sealing", "digest", "index"] {
        secrets.push((name, Zeroizing::new(BASE64.encode(&*random()?))));
    }
    let fixed = |text: &str| Zeroizing::new(text.to_owned());
    if plan.gateway == Gateway::Simulator {
        secrets.push(("simulator-token", fixed(SIMULATOR_TOKEN)));
        secrets.push(("simulator-webhook", fixed(SIMULATOR_SECRET)));
    }
    if plan.engine == EngineKind::Distributed {
        secrets.push(("rabbitmq-password", fixed(RABBITMQ_PASSWORD)));
    }
    Ok(secrets)
}

fn refuse_existing(
    folder: &Path,
    secrets: &[(&'static str, Zeroizing<String>)],
) -> anyhow::Result<()> {
    let keys = secrets
        .iter()
        .map(|(name, _)| folder.join("keys").join(name));
    let files = ["watchword.toml", "simulate.toml"].map(|name| folder.join(name));
    if let Some(existing) = files.into_iter().chain(keys).find(|path| path.exists()) {
        anyhow::bail!(
            "{} exists, and init overwrites nothing. Name another folder: watchword init DIR.",
            existing.display()
        );
    }
    Ok(())
}

fn create_folder(folder: &Path) -> anyhow::Result<()> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    created.with_context(|| cannot_write(folder))
}

fn write(path: &Path, content: &str) -> anyhow::Result<()> {
    let opened = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path);
    let written = opened.and_then(|mut file| {
        file.write_all(content.as_bytes())?;
        file.sync_all()
    });
    match written {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => anyhow::bail!(
            "{} exists, and init overwrites nothing. Name another folder: watchword init DIR.",
            path.display()
        ),
        written => written.with_context(|| cannot_write(path)),
    }
}

fn cannot_write(path: &Path) -> Failure {
    Failure::new(format!(
        "{} cannot be written. Name a folder that this user may write to: watchword init DIR.",
        path.display()
    ))
}

fn random() -> anyhow::Result<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    SystemEntropy.fill(&mut *bytes)?;
    Ok(bytes)
}

fn key(prefix: &str) -> anyhow::Result<Zeroizing<String>> {
    let random = BASE64URL_NOPAD.encode(&*random()?);
    Ok(Zeroizing::new(format!("{prefix}{random}")))
}

fn hash(key: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(key.as_bytes()))
}

#[cfg(test)]
mod tests;
