//! The binary: from the command line to the library's commands.

use std::num::NonZero;
use std::thread::available_parallelism;

use anyhow::Context;
use clap::Parser;
use tikv_jemallocator::Jemalloc;
use tokio::runtime::{Builder, Runtime};
use watchword::cli::{Cli, Command, ConfigCommand, ProviderCommand};
use watchword::{audit, client, demo, doctor, metrics, parked, provider, run, simulate, topology};
use zeroizing_alloc::ZeroAlloc;

/// Wipes whatever is freed: a code passes through buffers of the HTTP, SMTP and JSON libraries,
/// whose types do not wipe themselves.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<Jemalloc> = ZeroAlloc(Jemalloc);

/// The most threads that work on orders and requests.
const MOST_THREADS: usize = 4;

fn main() -> anyhow::Result<()> {
    watchword_chassis::process::harden().context("the process cannot be closed to core dumps")?;
    let cli = Cli::parse();
    // The one TLS provider of the process; fails only if it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    runtime()?.block_on(async {
        match cli.command {
            Command::Demo { exit } => demo::run(exit).await,
            Command::Run { roles } => run::run(&cli.config, &roles).await,
            Command::Config {
                command: ConfigCommand::Check { roles },
            } => run::check(&cli.config, &roles),
            Command::Doctor { roles } => doctor::run(&cli.config, &roles).await,
            Command::Topology {
                permissions: true, ..
            } => topology::print_permissions(&cli.config),
            Command::Topology { apply, .. } => topology::run(&cli.config, apply).await,
            Command::Unlock { service, subject } => {
                run::unlock(&cli.config, &service, &subject).await
            }
            Command::Parked { command } => parked::run(&cli.config, command).await,
            Command::Audit => audit::run(&cli.config).await,
            Command::Metrics => metrics::run(),
            Command::Provider {
                command: ProviderCommand::Test { name, to },
            } => provider::test(&cli.config, &name, to.as_deref()).await,
            Command::Simulate { file } => simulate::run(file.as_deref()).await,
            Command::Send(arguments) => client::send(arguments).await,
            Command::Check(arguments) => client::check(arguments).await,
        }
    })
}

/// One processor is the broker client's, which has a thread of its own. Where that leaves one, all
/// tasks take turns on one thread: in the order in which they became ready, so that what writes to
/// a peer comes after all who have something for it and writes it at once. With more, a task that
/// was woken runs next, and most writes carry one message.
fn runtime() -> std::io::Result<Runtime> {
    let processors = available_parallelism().map_or(1, NonZero::get);
    let mut builder = if processors <= 2 {
        Builder::new_current_thread()
    } else {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads((processors - 1).min(MOST_THREADS));
        builder
    };
    builder.enable_all().build()
}
