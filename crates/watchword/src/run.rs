//! `watchword run` and `watchword config check`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::time::sleep;
use watchword_chassis::admin::{self, Readiness};
use watchword_chassis::config::{ConfigError, line_of, variable_of};
use watchword_chassis::lifecycle::{Lifecycle, stop_signal};
use watchword_chassis::spans::Spans;
use watchword_chassis::{Services, SystemClock, http, server, telemetry};
use watchword_core::{Channel, Clock};
use watchword_delivery::Inbox;
use watchword_storage::StorageError;

use crate::channels;
use crate::cli::Role;
use crate::config::{Config, EngineKind, environment};
use crate::engine::{Engine, distributed};
use crate::otlp;
use crate::reload::{Reader, Reloader};
use crate::roles::Shared;

/// Runs `roles` (all if none is named) until a signal.
pub async fn run(path: &Path, roles: &[Role]) -> anyhow::Result<()> {
    let mut reader = Reader::new(path);
    let queues = uses_queues(roles);
    let mut config = checked(path, queues)?;
    telemetry::init(config.log);
    let roles = if roles.is_empty() {
        &Role::ALL[..]
    } else {
        roles
    };
    if config.engine == EngineKind::Embedded && roles.len() < Role::ALL.len() {
        anyhow::bail!(
            "the embedded engine runs all roles in one process; name none, or use the distributed engine"
        );
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let registry = telemetry::registry(clock.clone())?;
    let readiness = Readiness::default();
    let mut lifecycle = Lifecycle::default();

    // Health first: an orchestrator sees what is missing while the engine waits for its peers.
    let listener = TcpListener::bind(config.admin.listen)
        .await
        .context("admin.listen")?;
    let admin_address = listener.local_addr()?;
    readiness.require("started", || false);
    let routes = admin::routes(registry.clone(), readiness.clone());
    lifecycle.spawn(
        "admin",
        server::serve(
            listener,
            routes,
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
            let started = Engine::start(&config, &registry, &readiness, clock.clone(), queues);
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
        // What was changed meanwhile counts: a password of the store, or an API key that is no more.
        if reader.has_changed().await {
            match checked(path, queues) {
                Ok(changed) => config = changed,
                Err(error) => {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "the changed configuration is wrong"
                    );
                }
            }
        }
    };
    let services = Services::from_config(&config.services)?;
    let http_config = config.http.clone();
    let spans = otlp::start(config.traces.as_ref(), &registry, &mut lifecycle)?;
    let shared = Shared::new(config, engine, services, clock, registry, spans)?;
    let shared = Arc::new(shared);
    let routes = shared.start(roles, &mut lifecycle).await?;
    let mut http_address = None;
    if routes.has_routes() {
        let listener = TcpListener::bind(http_config.listen)
            .await
            .context("http.listen")?;
        http_address = Some(listener.local_addr()?);
        lifecycle.spawn(
            "http",
            server::serve(
                listener,
                http::public(routes),
                server::PUBLIC_CONNECTIONS,
                lifecycle.stop(),
            ),
        );
    }
    let reloader = Reloader::new(reader, shared.clone());
    lifecycle.spawn("reloader", reloader.run(lifecycle.stop()));
    readiness.require("started", || true);
    let names: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
    tracing::info!(roles = names.join(","), http = ?http_address, admin = %admin_address, "started");
    let ended = lifecycle.run_until_stopped().await;
    shared.engine.close().await;
    ended.context("the process did not stop cleanly")
}

/// The engine of the configuration without any role, for an operator's command; with a link to the
/// broker if it uses `queues`.
pub async fn operator(path: &Path, queues: bool) -> anyhow::Result<Shared> {
    let config = checked(path, queues)?;
    let services = Services::from_config(&config.services)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let registry = telemetry::registry(clock.clone())?;
    // A peer that is away is an answer: nobody waits for it before a terminal.
    let readiness = Readiness::default();
    let engine = Engine::start(&config, &registry, &readiness, clock.clone(), queues).await?;
    Shared::new(config, engine, services, clock, registry, Spans::off())
}

/// Whether it is only a matter of time.
fn is_away(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(StorageError::Unavailable(_) | StorageError::Timeout)
    )
}

/// Unlocks a subject.
pub async fn unlock(path: &Path, service: &str, subject: &str) -> anyhow::Result<()> {
    let shared = operator(path, false).await?;
    let (service, subject) = (service.parse()?, subject.parse()?);
    anyhow::ensure!(
        shared.services.get().by_name(&service).is_some(),
        "there is no such service in the configuration"
    );
    shared.unlock(&service, &subject).await?;
    shared.engine.close().await;
    println!("unlocked");
    Ok(())
}

/// Parses and validates the configuration as a process of these roles does, and prints what would
/// run.
pub fn check(path: &Path, roles: &[Role]) -> anyhow::Result<()> {
    let config = checked(path, uses_queues(roles))?;
    println!("{} is valid", path.display());
    println!("engine    {:?}", config.engine);
    println!("http      {}", config.http.listen);
    println!("admin     {}", config.admin.listen);
    for (name, service) in &config.services {
        println!(
            "service   {name} ({} keys, countries {})",
            service.api_keys.len(),
            service.countries.join(" ")
        );
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    for channel in Channel::ALL {
        match channels::build(&config, channel, &Inbox::default(), &clock) {
            Ok(setup) => {
                let providers = setup.router.providers();
                let names: Vec<_> = providers.iter().map(|one| one.name().as_str()).collect();
                println!(
                    "{channel:<9} {} ({} in work)",
                    names.join(", "),
                    setup.concurrency
                );
                for name in setup.receipts.keys() {
                    println!("receipts  /v1/receipts/{name}");
                }
            }
            Err(error) => println!("{channel:<9} none: {error}"),
        }
    }
    Ok(())
}

/// Whether a process of these roles (none means all) has a link to the broker. One that only checks
/// codes has none: it goes on while the broker is away, and needs no password for it.
pub fn uses_queues(roles: &[Role]) -> bool {
    roles.is_empty() || roles.iter().any(|role| *role != Role::Verifier)
}

/// The configuration, read and validated for a process that has `queues` or not; an error tells the
/// line it is about.
pub fn checked(path: &Path, queues: bool) -> anyhow::Result<Config> {
    let read = || {
        let config = Config::read(path)?;
        validate(&config, queues)?;
        Ok(config)
    };
    read().map_err(|error: anyhow::Error| at_line(path, error))
}

/// The error with the variable it is about, or the line of `path`.
pub fn at_line(path: &Path, error: anyhow::Error) -> anyhow::Error {
    let Some(of_key) = error.downcast_ref::<ConfigError>() else {
        return error;
    };
    if let Some(variable) = variable_of(of_key, environment()) {
        return error.context(format!("the variable {variable}"));
    }
    let line = std::fs::read_to_string(path)
        .ok()
        .and_then(|text| line_of(&text, &of_key.key));
    match line {
        Some(line) => error.context(format!("{}, line {line}", path.display())),
        None => error,
    }
}

/// Everything that can be wrong without a peer: keys, services, providers, addresses; that of the
/// broker only with `queues`.
pub fn validate(config: &Config, queues: bool) -> anyhow::Result<()> {
    config.keys.resolve()?;
    Services::from_config(&config.services)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    for channel in Channel::ALL {
        let configured = match channel {
            Channel::Sms => config.sms.is_some(),
            Channel::Email => config.email.is_some(),
        };
        if configured {
            channels::build(config, channel, &Inbox::default(), &clock)?;
        }
    }
    if let Some(traces) = &config.traces {
        otlp::check(traces)?;
    }
    if config.engine == EngineKind::Distributed && queues {
        distributed::rabbitmq_settings(config)?;
    }
    Ok(())
}
