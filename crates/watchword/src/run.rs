//! `watchword run` and `watchword config check`.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use watchword_admin::http::{AdminApi, Served};
use watchword_admin::operate::History;
use watchword_admin::{AdminKeys, AdminMetrics};
use watchword_chassis::admin::{self, Readiness};
use watchword_chassis::config::{
    AdminConfig, ConfigError, LogConfig, LogLevel, line_of, unreadable_secrets, variable_of,
};
use watchword_chassis::lifecycle::{Lifecycle, stop_signal};
use watchword_chassis::{Services, SystemClock, http, server, telemetry};
use watchword_core::{Channel, Clock, Live};
use watchword_delivery::Inbox;
use watchword_metrics::prometheus::Registry;
use watchword_storage::StorageError;

use crate::channels;
use crate::cli::Role;
use crate::config::{Config, EngineKind, Warning, environment};
use crate::engine::{Engine, distributed, embedded};
use crate::failure::{Failure, listen};
use crate::needs::Needs;
use crate::otlp::{self, Traces};
use crate::reload::{Reader, Reloader};
use crate::roles::Shared;
use crate::{elsewhere, inbox, output, texts};

/// Runs `roles` (all if none is named) until a signal.
pub async fn run(path: &Path, roles: &[Role]) -> anyhow::Result<()> {
    let needs = Needs::of(roles);
    let mut reader = Reader::new(path, needs);
    let mut config = first(path, needs)?;
    let roles = roles_of(&config, roles)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let registry = telemetry::registry(clock.clone())?;
    let readiness = Readiness::default();
    let mut lifecycle = Lifecycle::default();

    // Health first: an orchestrator sees what is missing while the engine waits for its peers.
    let listener = listen("admin.listen", config.admin.listen).await?;
    let admin_address = listener.local_addr()?;
    readiness.require("started", || false);
    let inbox = Inbox::default();
    let mut routes = admin::routes(registry.clone(), readiness.clone());
    let has_inbox = inbox::is_configured(&config, needs);
    if has_inbox && inbox::is_served_at(admin_address) {
        routes = routes.merge(inbox::routes(inbox.clone()));
    }
    let admin_keys = Live::new(AdminKeys::from_config(&config.admin)?);
    let admin_api = admin_api(&admin_keys, &clock, &registry)?;
    lifecycle.spawn(
        "admin",
        server::serve(
            listener,
            routes.merge(admin_api.clone().routes()),
            server::ADMIN_CONNECTIONS,
            lifecycle.stop(),
        ),
    );

    if config.engine == EngineKind::Distributed {
        readiness.require("redis", || false);
    }
    // One for the whole wait: a signal that comes while nobody listens for it is lost.
    let mut stopped = std::pin::pin!(stop_signal());
    let engine = loop {
        let attempt = async {
            let started =
                Engine::start(&config, &registry, &readiness, clock.clone(), needs.queues);
            let error = match started.await {
                Err(error) if is_away(&error) => error,
                started => return started.map(Some),
            };
            tracing::warn!(error = format!("{error:#}"), "waiting for the store");
            sleep(Duration::from_secs(1)).await;
            Ok(None)
        };
        let started = tokio::select! {
            started = attempt => started?,
            signalled = &mut stopped => return signalled.context("signals"),
        };
        if let Some(engine) = started {
            break engine;
        }
        if reader.has_changed().await {
            config = changed(path, needs, config);
            admin_keys.replace(AdminKeys::from_config(&config.admin)?);
        }
    };
    let services = Services::from_config(&config.services)?;
    let http_listen = config.http.listen;
    let traces = otlp::start(config.traces.as_ref(), &registry, &mut lifecycle)?;
    let mut shared = Shared::new(config, needs, engine, services, registry, traces)?;
    shared.inbox = inbox;
    let shared = Arc::new(shared.with_admin_keys(admin_keys));
    let routes = shared.start(roles, &mut lifecycle).await?;
    let http = serve_api(routes, roles, http_listen, &mut lifecycle).await?;
    let (reloader, reload) = Reloader::new(reader, shared.clone());
    lifecycle.spawn("reloader", reloader.run(lifecycle.stop()));
    let names: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
    let history = Arc::new(History::new());
    let samples = sampled(history.clone(), shared.registry.clone(), lifecycle.stop());
    lifecycle.spawn("history", samples);
    admin_api.serve(Served {
        operator: Arc::new(shared.operator()),
        trail: shared.engine.trail.clone(),
        roles: names.clone(),
        readiness: readiness.clone(),
        registry: shared.registry.clone(),
        history,
        configuration: shared.shown.clone(),
        reload,
    });
    readiness.require("started", || true);
    let http = http.map(tracing::field::display);
    tracing::info!(roles = names.join(","), http, admin = %admin_address, "started");
    if has_inbox {
        inbox::announce(admin_address);
    }
    let ended = lifecycle.run_until_stopped().await;
    shared.engine.close().await;
    ended.context("the process did not stop cleanly")?;
    tracing::info!("stopped");
    Ok(())
}

/// Returns the roles of the process: those that are named, or all.
fn roles_of<'a>(config: &Config, named: &'a [Role]) -> anyhow::Result<&'a [Role]> {
    let roles = if named.is_empty() {
        &Role::ALL[..]
    } else {
        named
    };
    anyhow::ensure!(
        config.engine == EngineKind::Distributed || roles.len() == Role::ALL.len(),
        "The embedded engine runs all roles in one process. Run 'watchword run' without roles, or set \
         engine = \"distributed\"."
    );
    Ok(roles)
}

/// Returns the changed configuration of a process that waits for its store: a new password of the
/// store counts, or that an API key was revoked. Logs and the admin listener exist already, and the
/// roles fit the engine.
fn changed(path: &Path, needs: Needs, config: Config) -> Config {
    let held = |next: Config| Config {
        engine: config.engine,
        admin: AdminConfig {
            listen: config.admin.listen,
            ..next.admin
        },
        log: config.log,
        ..next
    };
    let next = checked(path, needs).and_then(|next| {
        let next = held(next);
        validate(&next, needs)?;
        Ok(next)
    });
    next.unwrap_or_else(|error| {
        let error = format!("{error:#}");
        tracing::error!(error, "the changed configuration is wrong");
        config
    })
}

/// Serves the routes of the roles, if they have some; returns the address.
async fn serve_api(
    routes: Router,
    roles: &[Role],
    address: SocketAddr,
    lifecycle: &mut Lifecycle,
) -> anyhow::Result<Option<SocketAddr>> {
    if !routes.has_routes() {
        return Ok(None);
    }
    let listener = listen("http.listen", address).await?;
    let address = listener.local_addr()?;
    let routes = http::public(routes.merge(elsewhere::routes(roles)));
    let stop = lifecycle.stop();
    lifecycle.spawn(
        "http",
        server::serve(listener, routes, server::PUBLIC_CONNECTIONS, stop),
    );
    Ok(Some(address))
}

/// The admin API of a starting process, which says why it is off.
fn admin_api(
    keys: &Live<AdminKeys>,
    clock: &Arc<dyn Clock>,
    registry: &Registry,
) -> anyhow::Result<AdminApi> {
    if let Some(why) = keys.get().refusal() {
        tracing::warn!(reason = why, "the admin API is off");
    }
    let metrics = AdminMetrics::register(registry)?;
    Ok(AdminApi::new(keys.clone(), clock.clone(), metrics))
}

/// Samples the counters until `stop`.
async fn sampled(history: Arc<History>, registry: Registry, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = history.sample(&registry) => {}
    }
}

/// Reads the configuration of a starting process, whose logs begin here.
fn first(path: &Path, needs: Needs) -> anyhow::Result<Config> {
    let (config, warnings) = looked_at(path, needs)?;
    telemetry::init(config.log);
    log(&warnings);
    Ok(config)
}

/// Logs what the check of a configuration found.
pub fn log(warnings: &[Warning]) {
    for Warning { key, text } in warnings {
        tracing::warn!(config_key = key, "{text}");
    }
}

/// Opens the engine of the configuration without any role, for an operator's command with these
/// `needs`.
pub async fn operator(path: &Path, needs: Needs) -> anyhow::Result<Shared> {
    let config = checked(path, needs)?;
    // The audit record is a log line at every level. Other lines would only repeat the error that
    // the command prints.
    telemetry::init(LogConfig {
        level: LogLevel::Error,
        ..config.log
    });
    let services = Services::from_config(&config.services)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let registry = telemetry::registry(clock.clone())?;
    // A peer that is away is an answer: nobody waits for it before a terminal.
    let readiness = Readiness::default();
    let engine = Engine::start(&config, &registry, &readiness, clock, needs.queues).await?;
    let traces = Traces::off();
    Shared::new(config, needs, engine, services, registry, traces)
}

/// Whether it is only a matter of time.
fn is_away(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(StorageError::Unavailable(_) | StorageError::Timeout)
    )
}

/// Parses and validates the configuration as a process of these roles does, and prints what would
/// run.
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

/// Reads the configuration without checking it; an error names the line or the variable.
pub fn read(path: &Path) -> anyhow::Result<Config> {
    Config::read(path).map_err(|error| at_line(path, error.into()))
}

/// Reads and validates the configuration for a process with these `needs`; an error names the line
/// or the variable it is about.
pub fn checked(path: &Path, needs: Needs) -> anyhow::Result<Config> {
    looked_at(path, needs).map(|(config, _)| config)
}

/// Does the same, and returns the warnings as well.
pub fn looked_at(path: &Path, needs: Needs) -> anyhow::Result<(Config, Vec<Warning>)> {
    let read = || {
        let mut config = Config::read(path)?;
        config.keys = config.keys.only(needs.keys);
        let warnings = validate(&config, needs)?;
        Ok((config, warnings))
    };
    read().map_err(|error: anyhow::Error| {
        let key = error.downcast_ref().map(|error: &ConfigError| &error.key);
        let part = key.and_then(|key| key.rsplit('.').next());
        let is_of_secret = matches!(part, Some("file" | "env"));
        let all = if is_of_secret {
            unreadable_secrets(path, environment(), &needs.left_out())
        } else {
            Vec::new()
        };
        if all.len() < 2 {
            return at_line(path, error);
        }
        let advice = if all.iter().any(|one| one.key.starts_with("keys.")) {
            "\n'watchword init DIR' writes a configuration with keys of its own."
        } else {
            ""
        };
        let lines = all
            .into_iter()
            .map(|one| format!("\n  {:#}", at_line(path, one.into())));
        let lines: String = lines.collect();
        let text = format!("These secrets cannot be read:{lines}{advice}");
        error.context(Failure::new(text))
    })
}

/// The error with the variable it is about, or the line of `path`.
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

/// Checks everything that needs no peer, as far as `needs` reach: keys, services, providers,
/// addresses, texts. This is the one verdict of `config check`, `doctor`, start and reload.
pub fn validate(config: &Config, needs: Needs) -> anyhow::Result<Vec<Warning>> {
    config.keys.resolve(needs.keys)?;
    let services = Services::from_config(&config.services)?;
    AdminKeys::from_config(&config.admin)?;
    config.refuse_published_key()?;
    let warnings = texts::check(config, &services, needs)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    for channel in Channel::ALL {
        let configured = match channel {
            Channel::Sms => config.sms.is_some(),
            Channel::Email => config.email.is_some(),
        };
        if configured && needs.channel(channel) {
            channels::build(config, channel, &Inbox::default(), &clock)?;
        }
    }
    if let Some(traces) = &config.traces {
        otlp::check(traces)?;
    }
    match config.engine {
        EngineKind::Embedded if needs.store() => {
            embedded::section(config)?;
        }
        EngineKind::Embedded => {}
        EngineKind::Distributed => {
            if needs.queues {
                distributed::rabbitmq_settings(config)?;
            }
            if needs.store() {
                distributed::redis_settings(config)?;
            }
        }
    }
    Ok(warnings)
}
