//! `watchword config check`, and the validation of a configuration that `doctor`, a start and a
//! reload share with it. It reports all independent errors at once.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use watchword_admin::AdminKeys;
use watchword_chassis::config::{
    AdminConfig, ConfigError, KeyNeeds, line_of, unreadable_secrets, variable_of,
};
use watchword_chassis::{Services, SystemClock};
use watchword_core::{Channel, Clock};
use watchword_delivery::Inbox;

use crate::cli::Role;
use crate::config::{Config, EngineKind, Warning, environment};
use crate::engine::{distributed, embedded};
use crate::failure::Failure;
use crate::needs::Needs;
use crate::{channels, otlp, output, texts};

/// Parses and validates the configuration as a process of these roles does, and prints a summary.
pub fn check(path: &Path, roles: &[Role], as_json: bool) -> anyhow::Result<()> {
    let needs = Needs::of(roles);
    let (config, warnings) = looked_at(path, needs)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut channels = serde_json::Map::new();
    let mut lines = Vec::new();
    for channel in Channel::ALL {
        if !needs.channel(channel) {
            continue;
        }
        match channels::build(&config, channel, &Inbox::default(), &clock) {
            Ok(setup) => {
                let providers = setup.router.providers();
                let names: Vec<_> = providers.iter().map(|one| one.name().as_str()).collect();
                let receipts = setup.receipts.keys();
                let receipts: Vec<_> = receipts
                    .map(|name| format!("/v1/receipts/{name}"))
                    .collect();
                lines.push(format!(
                    "{:<9} {} ({} at once)",
                    channel.as_str(),
                    names.join(", "),
                    setup.concurrency
                ));
                lines.extend(receipts.iter().map(|path| format!("receipts  {path}")));
                channels.insert(
                    channel.to_string(),
                    json!({ "providers": names, "concurrency": setup.concurrency, "receipts": receipts }),
                );
            }
            Err(error) => {
                lines.push(format!("{:<9} none: {error}", channel.as_str()));
                channels.insert(channel.to_string(), Value::Null);
            }
        }
    }
    if as_json {
        let services = config.services.iter().map(|(name, service)| {
            let section =
                json!({ "api_keys": service.api_keys.len(), "countries": service.countries });
            (name.to_string(), section)
        });
        return output::json(&json!({
            "file": path,
            "engine": config.engine.as_str(),
            "http": config.http.listen,
            "admin": config.admin.listen,
            "services": services.collect::<serde_json::Map<_, _>>(),
            "channels": channels,
            "warnings": warnings.iter().map(|Warning { key, text }| json!({ "key": key, "text": text })).collect::<Vec<_>>(),
        }));
    }
    println!("{} is valid", path.display());
    for Warning { key, text } in warnings {
        println!("warning   {key}: {text}");
    }
    println!("engine    {}", config.engine.as_str());
    println!("http      {}", config.http.listen);
    println!("admin     {}", config.admin.listen);
    let admin_keys = AdminKeys::from_config(&config.admin)?;
    match admin_keys.refusal() {
        None if admin_keys.is_on() => println!(
            "operators {} keys of the admin API",
            config.admin.keys.len()
        ),
        None => println!("operators none: the admin API is off without a key"),
        Some(why) => println!("operators none: {why}"),
    }
    for (name, service) in &config.services {
        println!(
            "service   {name} ({} keys, countries {})",
            service.api_keys.len(),
            service.countries.join(" ")
        );
    }
    for line in lines {
        println!("{line}");
    }
    Ok(())
}

/// Reads the configuration without validating it. An error names the line or the variable.
pub fn read(path: &Path) -> anyhow::Result<Config> {
    match Config::draft(path, environment()) {
        (Some(config), errors) if errors.is_empty() => Ok(config),
        (_, errors) => Err(refused(path, errors)),
    }
}

/// Reads and validates the configuration for a process with these `needs`. An error names the line
/// or the variable.
pub fn checked(path: &Path, needs: Needs) -> anyhow::Result<Config> {
    looked_at(path, needs).map(|(config, _)| config)
}

/// Reads and validates the configuration like [`checked`], and returns the warnings too.
pub fn looked_at(path: &Path, needs: Needs) -> anyhow::Result<(Config, Vec<Warning>)> {
    let environment: Vec<_> = environment().collect();
    match errors_of(path, &environment, needs) {
        (Some(read), errors) if errors.is_empty() => Ok(read),
        (_, errors) => Err(refused(path, errors)),
    }
}

type Read = (Config, Vec<Warning>);

/// Reads and validates the configuration of `path`, overridden by `environment`. Returns it with
/// its warnings, and all independent errors.
pub fn errors_of(
    path: &Path,
    environment: &[(String, String)],
    needs: Needs,
) -> (Option<Read>, Vec<ConfigError>) {
    let (config, mut errors) = Config::draft(path, environment.iter().cloned());
    let Some(mut config) = config else {
        return (None, errors);
    };
    config.keys = config.keys.only(needs.keys);
    let (warnings, found) = problems(&config, needs);
    let is_of_secret = |error: &ConfigError| {
        let part = error.key.rsplit('.').next();
        matches!(part, Some("file" | "env"))
    };
    let secrets = if found.iter().any(is_of_secret) {
        unreadable_secrets(path, environment.iter().cloned(), &needs.left_out())
    } else {
        Vec::new()
    };
    // A key that could not be read is absent from its section, so further errors in that section
    // may only follow from it. Report them once the first one is fixed.
    let broken: BTreeSet<_> = errors.iter().map(|error| section(&error.key)).collect();
    let follows = |error: &ConfigError| {
        let key = section(&error.key);
        broken
            .iter()
            .any(|one| *one == key || key == "services" && one.starts_with("services."))
    };
    let found: Vec<_> = secrets
        .into_iter()
        .chain(found)
        .filter(|one| !follows(one))
        .collect();
    for error in found {
        if !errors.contains(&error) {
            errors.push(error);
        }
    }
    (Some((config, warnings)), errors)
}

/// Returns the part of the configuration that `key` belongs to: a service, or a section of the
/// file.
fn section(key: &str) -> String {
    let mut parts = key.split(['.', '[']);
    match (parts.next(), parts.next()) {
        (Some("services"), Some(name)) => format!("services.{name}"),
        (Some(section), _) => section.to_owned(),
        (None, _) => String::new(),
    }
}

/// Combines errors into one, each with its line or variable, in the order of the file.
fn refused(path: &Path, errors: Vec<ConfigError>) -> anyhow::Error {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut errors: Vec<_> = errors
        .into_iter()
        .map(|error| (line_of(&text, &error.key), error))
        .collect();
    errors.sort_by_key(|(line, _)| line.unwrap_or(usize::MAX));
    let lacks_key = |(_, error): &(_, ConfigError)| error.key.starts_with("keys.");
    let advice = match errors.iter().filter(|error| lacks_key(error)).count() {
        0 | 1 => "",
        _ => "\n'watchword init DIR' writes a configuration with keys of its own.",
    };
    let mut errors: Vec<_> = errors
        .into_iter()
        .map(|(_, error)| at_line(path, error.into()))
        .collect();
    if errors.len() < 2 {
        return errors
            .pop()
            .unwrap_or_else(|| anyhow::anyhow!("{}: cannot be read", path.display()));
    }
    let lines: Vec<_> = errors.iter().map(|error| format!("{error:#}")).collect();
    Failure::new(format!(
        "The configuration has {} errors:\n  {}{advice}",
        errors.len(),
        lines.join("\n  ")
    ))
    .into()
}

/// Returns the error on a single line, for logs and the admin API.
pub fn one_line(error: &anyhow::Error) -> String {
    let shown = format!("{error:#}");
    let (first, rest) = shown.split_once(":\n").unwrap_or((&shown, ""));
    if rest.is_empty() {
        return shown;
    }
    let rest: Vec<_> = rest.lines().map(str::trim).collect();
    format!("{first}: {}", rest.join("; "))
}

/// Adds the place to the error: the variable, or the line of `path`. If `path` does not exist, the
/// error says how to create it.
pub fn at_line(path: &Path, error: anyhow::Error) -> anyhow::Error {
    let Some(of_key) = error.downcast_ref::<ConfigError>() else {
        return error;
    };
    if !path.exists() {
        let folder = path
            .parent()
            .filter(|folder| path == folder.join("watchword.toml"));
        let init = match folder {
            Some(folder) if folder == Path::new("config") => "watchword init".to_owned(),
            Some(folder) if folder != Path::new("") => {
                format!("watchword init {}", folder.display())
            }
            _ => "watchword init DIR".to_owned(),
        };
        let text = format!(
            "{} not found. Create one with '{init}' or pass --config.",
            path.display()
        );
        return error.context(Failure::new(text));
    }
    if let Some(variable) = variable_of(of_key, environment()) {
        return error.context(format!("the variable {variable}"));
    }
    let line = std::fs::read_to_string(path)
        .ok()
        .and_then(|text| line_of(&text, &of_key.key));
    match line {
        Some(line) => error.context(format!("{}, line {line}", path.display())),
        None if of_key.is_of_file() => error,
        None => error.context(path.display().to_string()),
    }
}

/// Validates the parts of the configuration that `needs` names, without connecting to peers.
/// Returns the warnings, or the first error.
pub fn validate(config: &Config, needs: Needs) -> anyhow::Result<Vec<Warning>> {
    let (warnings, errors) = problems(config, needs);
    match errors.into_iter().next() {
        Some(error) => Err(error.into()),
        None => Ok(warnings),
    }
}

/// Validates keys, services, providers, addresses and texts, as far as `needs` names them, without
/// connecting to peers. Returns all warnings and errors.
fn problems(config: &Config, needs: Needs) -> (Vec<Warning>, Vec<ConfigError>) {
    let mut errors = key_errors(config, needs.keys);
    let (services, found) = Services::draft(&config.services);
    errors.extend(found);
    errors.extend(admin_errors(&config.admin));
    errors.extend(config.refuse_published_key().err());
    let warnings = texts::check(config, &services, needs);
    let warnings = warnings
        .map_err(|error| errors.push(error))
        .unwrap_or_default();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    for channel in Channel::ALL {
        let configured = match channel {
            Channel::Sms => config.sms.is_some(),
            Channel::Email => config.email.is_some(),
        };
        if configured && needs.channel(channel) {
            // `texts::check` has already reported invalid templates.
            let found = channels::errors(config, channel, &clock);
            errors.extend(found.into_iter().filter(|error| error.key != "templates"));
        }
    }
    errors.extend(
        config
            .traces
            .as_ref()
            .and_then(|traces| otlp::check(traces).err()),
    );
    match config.engine {
        EngineKind::Embedded if needs.store() => errors.extend(embedded::section(config).err()),
        EngineKind::Embedded => {}
        EngineKind::Distributed => {
            if needs.queues {
                errors.extend(distributed::rabbitmq_settings(config).err());
            }
            if needs.store() {
                errors.extend(distributed::redis_settings(config).err());
            }
        }
    }
    (warnings, errors)
}

fn key_errors(config: &Config, needs: KeyNeeds) -> Vec<ConfigError> {
    let none = KeyNeeds::default();
    let each = [
        KeyNeeds {
            sealing: needs.sealing,
            ..none
        },
        KeyNeeds {
            digest: needs.digest,
            ..none
        },
        KeyNeeds {
            index: needs.index,
            ..none
        },
    ];
    let errors = each
        .into_iter()
        .filter_map(|one| config.keys.resolve(one).err());
    errors.collect()
}

/// Returns the errors of each admin key or, if there are none, those of all keys together.
fn admin_errors(config: &AdminConfig) -> Vec<ConfigError> {
    let alone = |(name, key): (&_, &_)| {
        let keys = [(Clone::clone(name), Clone::clone(key))].into();
        AdminKeys::from_config(&AdminConfig {
            keys,
            ..config.clone()
        })
        .err()
    };
    let mut errors: Vec<_> = config.keys.iter().filter_map(alone).collect();
    if errors.is_empty() {
        errors.extend(AdminKeys::from_config(config).err());
    }
    errors
}
