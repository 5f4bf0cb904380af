//! The binary: parses the command line and calls the library's commands.

use std::num::NonZero;
use std::process::ExitCode;
use std::thread::available_parallelism;

use anyhow::Context;
use clap::Parser;
use tikv_jemallocator::Jemalloc;
use tokio::runtime::{Builder, Runtime};
use watchword::cli::{Cli, Command, ConfigCommand, ProviderCommand};
use watchword::{
    backup, client, demo, doctor, failure, init, metrics, operator, output, provider, reference,
    run, simulate, topology, validation,
};
use zeroizing_alloc::ZeroAlloc;

/// The allocator, which wipes freed memory: codes pass through buffers of the HTTP, SMTP and JSON
/// libraries, whose types do not wipe themselves.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<Jemalloc> = ZeroAlloc(Jemalloc);

/// The most worker threads of the runtime.
const MOST_THREADS: usize = 4;

/// The exit codes are part of the interface: 0 success, 1 failure, 2 a wrong command line, 141 a
/// closed pipe (`output`).
fn main() -> ExitCode {
    // Must come first: hardening does not affect descriptors that are open already.
    let hardened = watchword_chassis::process::harden();
    let cli = Cli::parse();
    if cli.quiet {
        output::set_quiet();
    }
    let is_verbose = cli.verbose;
    let ended = hardened
        .context("cannot disable core dumps")
        .and_then(|()| execute(cli));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(failure::report(&error, is_verbose)),
    }
}

fn execute(cli: Cli) -> anyhow::Result<()> {
    // Set the process-wide TLS provider. This fails only if one is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    runtime()?.block_on(async {
        match cli.command {
            Command::Demo { exit } => demo::run(exit).await,
            Command::Init(arguments) => init::run(&arguments),
            Command::Run { roles } => run::run(&cli.config, &roles).await,
            Command::Config {
                command: ConfigCommand::Check { roles, json },
            } => validation::check(&cli.config, &roles, json),
            Command::Doctor { roles, json } => doctor::run(&cli.config, &roles, json).await,
            Command::Topology {
                permissions: true,
                json,
                ..
            } => topology::print_permissions(&cli.config, json),
            Command::Topology { apply, json, .. } => topology::run(&cli.config, apply, json).await,
            Command::Status(arguments) => operator::status(&cli.config, &arguments).await,
            Command::Find(arguments) => operator::find(&cli.config, arguments).await,
            Command::Resend(arguments) => operator::resend(&cli.config, arguments).await,
            Command::Cancel(arguments) => operator::cancel(&cli.config, arguments).await,
            Command::Unlock(arguments) => operator::unlock(&cli.config, arguments).await,
            Command::DeadLetters { command } => operator::dead_letters(&cli.config, command).await,
            Command::Audit(arguments) => operator::audit(&cli.config, &arguments).await,
            Command::Providers(arguments) => operator::providers(&cli.config, arguments).await,
            Command::AuditTrail(arguments) => operator::trail(&cli.config, &arguments).await,
            Command::Backup { file } => backup::make(&cli.config, &file),
            Command::Restore { file } => backup::put_back(&cli.config, &file),
            Command::Metrics { json } => metrics::run(json),
            Command::Provider {
                command: ProviderCommand::Test(arguments),
            } => provider::test(&cli.config, arguments).await,
            Command::Simulate { file } => simulate::run(file.as_deref()).await,
            Command::Send(arguments) => client::send(arguments).await,
            Command::Check(arguments) => client::check(arguments).await,
            Command::Completions { shell } => {
                reference::completions(shell);
                Ok(())
            }
            Command::Man { folder } => reference::man(&folder),
        }
    })
}

/// Builds the runtime. The thread of the broker client takes up a processor. If that leaves only
/// one, the runtime is single-threaded: it polls tasks in the order in which they became ready, so
/// the task that writes to a peer runs after all tasks that have a message for it, and writes them
/// together. The multi-threaded runtime polls a woken task next, so most writes carry one message.
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
