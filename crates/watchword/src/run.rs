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
use watchword_core::{Channel, Clock, Recipient};
use watchword_delivery::Inbox;
use watchword_storage::StorageError;

use crate::channels;
use crate::cli::Role;
use crate::config::{Config, EXAMPLE_KEY_WARNING, EngineKind, environment};
use crate::engine::{Engine, distributed};
use crate::needs::Needs;
use crate::otlp;
use crate::reload::{Reader, Reloader};
use crate::roles::Shared;

/// Runs `roles` (all if none is named) until a signal.
pub async fn run(path: &Path, roles: &[Role]) -> anyhow::Result<()> {
    let needs = Needs::of(roles);
    let mut reader = Reader::new(path, needs);
    let mut config = first(path, needs)?;
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
        // What was changed meanwhile counts: a password of the store, or an API key that is no more.
        if reader.has_changed().await {
            match checked(path, needs) {
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
    let shared = Shared::new(config, needs, engine, services, clock, registry, spans)?;
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

/// Reads the configuration of a starting process, whose logs begin here.
fn first(path: &Path, needs: Needs) -> anyhow::Result<Config> {
    let config = checked(path, needs)?;
    telemetry::init(config.log);
    if let Some(key) = config.example_key()? {
        tracing::warn!(config_key = key, "{EXAMPLE_KEY_WARNING}");
    }
    Ok(config)
}

/// Opens the engine of the configuration without any role, for an operator's command with these
/// `needs`.
pub async fn operator(path: &Path, needs: Needs) -> anyhow::Result<Shared> {
    let config = checked(path, needs)?;
    let services = Services::from_config(&config.services)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let registry = telemetry::registry(clock.clone())?;
    // A peer that is away is an answer: nobody waits for it before a terminal.
    let readiness = Readiness::default();
    let engine = Engine::start(&config, &registry, &readiness, clock.clone(), needs.queues).await?;
    let spans = Spans::off();
    Shared::new(config, needs, engine, services, clock, registry, spans)
}

/// Whether it is only a matter of time.
fn is_away(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(StorageError::Unavailable(_) | StorageError::Timeout)
    )
}

/// Unlocks a subject, a recipient or both.
pub async fn unlock(
    path: &Path,
    service: &str,
    subject: Option<&str>,
    recipient: Option<&str>,
) -> anyhow::Result<()> {
    let service = service.parse()?;
    let subject = subject.map(str::parse).transpose()?;
    let recipient = recipient.map(|text| {
        let is_address = text.contains('@');
        let channel = if is_address {
            Channel::Email
        } else {
            Channel::Sms
        };
        Recipient::parse(channel, text)
    });
    let recipient = recipient.transpose()?;
    let shared = operator(path, Needs::UNLOCK).await?;
    anyhow::ensure!(
        shared.services.get().by_name(&service).is_some(),
        "the configuration has no such service"
    );
    if let Some(subject) = subject {
        shared.unlock(&service, &subject).await?;
    }
    if let Some(recipient) = recipient {
        shared.unlock_recipient(&service, &recipient).await?;
    }
    shared.engine.close().await;
    println!("unlocked");
    Ok(())
}

/// Parses and validates the configuration as a process of these roles does, and prints what would
/// run.
pub fn check(path: &Path, roles: &[Role]) -> anyhow::Result<()> {
    let needs = Needs::of(roles);
    let config = checked(path, needs)?;
    println!("{} is valid", path.display());
    if let Some(key) = config.example_key()? {
        println!("warning   {key}: {EXAMPLE_KEY_WARNING}");
    }
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
        if !needs.channel(channel) {
            continue;
        }
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

/// Reads and validates the configuration for a process with these `needs`; an error names the line
/// or the variable it is about.
pub fn checked(path: &Path, needs: Needs) -> anyhow::Result<Config> {
    let read = || {
        let mut config = Config::read(path)?;
        config.keys = config.keys.only(needs.keys);
        validate(&config, needs)?;
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

/// Checks everything that needs no peer, as far as `needs` reach: keys, services, providers,
/// addresses.
pub fn validate(config: &Config, needs: Needs) -> anyhow::Result<()> {
    config.keys.resolve(needs.keys)?;
    Services::from_config(&config.services)?;
    config.example_key()?;
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
    if config.engine == EngineKind::Distributed && needs.queues {
        distributed::rabbitmq_settings(config)?;
    }
    Ok(())
}
