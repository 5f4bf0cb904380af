//! `watchword demo`: the complete pipeline on the embedded engine in a temporary folder, with an
//! inbox in place of phones and mailboxes. It makes two verifications over the API.

mod setup;
mod walk;

use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use watchword_chassis::admin::{self, Readiness};
use watchword_chassis::lifecycle::Lifecycle;
use watchword_chassis::{Services, SystemClock, http, server, telemetry};
use watchword_core::Clock;

use crate::cli::Role;
use crate::engine::Engine;
use crate::inbox;
use crate::needs::Needs;
use crate::otlp::Traces;
use crate::output::has_colors;
use crate::roles::Shared;
use setup::Setup;

/// Runs the demo until a signal. With `exit`, or if a verification fails, it stops after the
/// verifications.
pub async fn run(exit: bool) -> anyhow::Result<()> {
    let setup = Setup::make()?;
    telemetry::init(setup.config.log);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let registry = telemetry::registry(clock.clone())?;
    let readiness = Readiness::default();
    let services = Services::from_config(&setup.config.services)?;
    let engine = Engine::start(&setup.config, &registry, &readiness, clock, true).await?;
    let shared = Shared::new(
        setup.config.clone(),
        Needs::ALL,
        engine,
        services,
        registry.clone(),
        Traces::off(),
    )?;

    let mut lifecycle = Lifecycle::default();
    let routes = shared
        .start(&Role::ALL, &mut lifecycle)
        .await?
        .merge(inbox::routes(shared.inbox.clone()));
    let public = listen(8080).await?;
    let url = format!("http://{}", public.local_addr()?);
    let admin_listener = listen(9090).await?;
    let admin_url = format!("http://{}", admin_listener.local_addr()?);
    let stop = lifecycle.stop();
    lifecycle.spawn(
        "http",
        server::serve(
            public,
            http::public(routes),
            server::PUBLIC_CONNECTIONS,
            stop.clone(),
        ),
    );
    lifecycle.spawn(
        "admin",
        server::serve(
            admin_listener,
            admin::routes(registry, readiness),
            server::ADMIN_CONNECTIONS,
            stop.clone(),
        ),
    );

    let style = Style {
        has_colors: has_colors(),
    };
    let walked = walk::walk(&url, &setup.api_key, style).await;
    if walked.is_ok() && !exit {
        print_next_steps(&url, &admin_url, &setup.api_key, style);
        lifecycle
            .run_until_stopped()
            .await
            .context("the demo did not stop cleanly")?;
    } else {
        stop.cancel();
        lifecycle
            .run_until_stopped()
            .await
            .context("the demo did not stop cleanly")?;
    }
    shared.engine.close().await;
    walked
}

/// Listens on `port` of loopback, or on a free port if it is in use.
async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    match TcpListener::bind(("127.0.0.1", port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("no port is free on 127.0.0.1"),
    }
}

/// The style of printed lines.
#[derive(Debug, Clone, Copy)]
struct Style {
    has_colors: bool,
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.has_colors {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn green(self, text: &str) -> String {
        self.paint("32", text)
    }
}

fn print_next_steps(url: &str, admin_url: &str, key: &str, style: Style) {
    println!("\n{}", style.bold("Try it yourself"));
    println!("inbox    {url}/inbox");
    println!("metrics  {admin_url}/metrics");
    println!("key      {key}\n");
    println!("curl -s {url}/v1/verifications -H 'Authorization: Bearer {key}' \\");
    println!(
        "  -H 'Content-Type: application/json' -d '{{\"channel\":\"sms\",\"to\":\"+12025550142\"}}'"
    );
    println!("curl -s '{url}/inbox/messages?to=%2B12025550142'");
    println!("curl -s {url}/v1/verifications/ID/check -H 'Authorization: Bearer {key}' \\");
    println!("  -H 'Content-Type: application/json' -d '{{\"code\":\"CODE\"}}'\n");
    println!("ID and CODE are in the answers of the first two. Ctrl-C stops the demo.");
}
