//! The binary: command line and wiring. No logic lives here.
#![expect(clippy::print_stdout, reason = "a command line prints")]

mod audit;
mod channels;
mod cli;
mod client;
mod config;
mod demo;
mod engine;
mod parked;
mod provider;
mod roles;
mod run;
mod simulate;
mod topology;

use clap::Parser;

use cli::{Cli, Command, ConfigCommand, ProviderCommand};

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    // The one TLS provider of the process; fails only if it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(async {
            match cli.command {
                Command::Demo { exit } => demo::run(exit).await,
                Command::Run { roles } => run::run(&cli.config, &roles).await,
                Command::Config {
                    command: ConfigCommand::Check,
                } => run::check(&cli.config),
                Command::Topology { apply } => topology::run(&cli.config, apply).await,
                Command::Unlock { service, subject } => {
                    run::unlock(&cli.config, &service, &subject).await
                }
                Command::Parked { command } => parked::run(&cli.config, command).await,
                Command::Audit => audit::run(&cli.config).await,
                Command::Provider {
                    command: ProviderCommand::Test { name, to },
                } => provider::test(&cli.config, &name, to.as_deref()).await,
                Command::Simulate { file } => simulate::run(file.as_deref()).await,
                Command::Send(arguments) => client::send(arguments).await,
                Command::Check(arguments) => client::check(arguments).await,
            }
        })
}
