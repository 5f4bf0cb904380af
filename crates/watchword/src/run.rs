//! `watchword run`: starts the listeners, waits for the store, and runs the roles until a signal.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use watchword_admin::http::{AdminApi, Served};
use watchword_admin::operate::History;
use watchword_admin::{AdminKeys, AdminMetrics};
use watchword_chassis::admin::{self, Readiness};
use watchword_chassis::config::{AdminConfig, LogConfig, LogLevel};
use watchword_chassis::lifecycle::{Lifecycle, stop_signal};
use watchword_chassis::{Services, SystemClock, http, server, telemetry};
use watchword_core::{Clock, Live};
use watchword_delivery::Inbox;
use watchword_metrics::prometheus::Registry;
use watchword_storage::StorageError;

use crate::cli::Role;
use crate::config::{Config, EngineKind, Warning};
use crate::engine::Engine;
use crate::failure::listen;
use crate::needs::Needs;
use crate::otlp::{self, Traces};
use crate::reload::{Reader, Reloader};
use crate::roles::Shared;
use crate::validation::{checked, looked_at, one_line, validate};
use crate::{elsewhere, inbox};

/// Runs `roles`, or all if none is named, until a signal.
pub async fn run(path: &Path, roles: &[Role]) -> anyhow::Result<()> {
    let needs = Needs::of(roles);
    let mut reader = Reader::new(path, needs);
    let mut config = first(path, needs)?;
    let roles = roles_of(&config, roles)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let registry = telemetry::registry(clock.clone())?;
    let readiness = Readiness::default();
    let mut lifecycle = Lifecycle::default();

    // Start the admin listener first, so that an orchestrator sees which dependency is missing
    // while the engine waits for its peers.
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
        // The engine replaces this probe by the state of its connection.
        readiness.require("redis", || false);
    }
    // Register for signals once for the whole wait: a signal between two registrations would be
    // lost.
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

/// Returns the roles of the process: those that are named, or all. An error if the embedded engine
/// is to run only some of them.
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

/// Reads the changed configuration of a process that waits for its store, so that a new password of
/// the store or a revoked API key takes effect. Keeps the log format, the admin listener and the
/// engine, which are in use already. Returns `config` if the new one is invalid.
fn changed(path: &Path, needs: Needs, config: Config) -> Config {
    let held = |next: Config| Config {
        engine: config.engine,
        admin: AdminConfig {
            listen: config.admin.listen,
            ..next.admin
        },
        log: LogConfig {
            format: config.log.format,
            ..next.log
        },
        ..next
    };
    let next = checked(path, needs).and_then(|next| {
        let next = held(next);
        validate(&next, needs)?;
        Ok(next)
    });
    let next = next.unwrap_or_else(|error| {
        let error = one_line(&error);
        tracing::error!(error, "the changed configuration is wrong");
        config
    });
    telemetry::set_level(next.log.level);
    next
}

/// Serves the routes of the roles, if there are any, and returns the address.
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

/// Returns the admin API of a starting process. Logs the reason if it is off.
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

/// Reads the configuration of a starting process and initializes logging.
fn first(path: &Path, needs: Needs) -> anyhow::Result<Config> {
    let (config, warnings) = looked_at(path, needs)?;
    telemetry::init(config.log);
    log(&warnings);
    Ok(config)
}

/// Logs the warnings about a configuration.
pub fn log(warnings: &[Warning]) {
    for Warning { key, text } in warnings {
        tracing::warn!(config_key = key, "{text}");
    }
}

/// Opens the engine without starting a role, for an operator's command with these `needs`.
pub async fn operator(path: &Path, needs: Needs) -> anyhow::Result<Shared> {
    let config = checked(path, needs)?;
    // The audit record is logged at every level. Other lines would only repeat the error that the
    // command prints.
    telemetry::init(LogConfig {
        level: LogLevel::Error,
        ..config.log
    });
    telemetry::silence_amqp_client();
    let services = Services::from_config(&config.services)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let registry = telemetry::registry(clock.clone())?;
    // Unlike `run`, do not wait for a peer that cannot be reached: the error is the answer.
    let readiness = Readiness::default();
    let engine = Engine::start(&config, &registry, &readiness, clock, needs.queues).await?;
    let traces = Traces::off();
    Shared::new(config, needs, engine, services, registry, traces)
}

/// Whether the store cannot be reached now, so that another attempt may succeed.
fn is_away(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(StorageError::Unavailable(_) | StorageError::Timeout)
    )
}

#[cfg(test)]
mod tests {
    use watchword_chassis::config::LogFormat;

    use super::*;

    #[test]
    fn a_process_that_waits_for_its_store_takes_a_changed_level() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let write = |log: &str| {
            let text = format!("engine = \"embedded\"\n[services.a]\napp = \"A\"\n[log]\n{log}");
            std::fs::write(file.path(), text).unwrap();
        };
        let needs = Needs::default();
        write("level = \"info\"");
        let config = checked(file.path(), needs).unwrap();
        write("level = \"error\"\nformat = \"json\"");
        let config = changed(file.path(), needs, config);
        assert_eq!(config.log.level, LogLevel::Error);
        // The log format is fixed when logging is initialized.
        assert_eq!(config.log.format, LogFormat::Human);
        write("level = \"chatty\"");
        let config = changed(file.path(), needs, config);
        assert_eq!(config.log.level, LogLevel::Error);
    }
}
