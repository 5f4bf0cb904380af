//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// One-time codes by SMS and email.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
pub struct Cli {
    /// The configuration file.
    #[arg(
        short,
        long,
        global = true,
        env = "WATCHWORD_CONFIG",
        default_value = "config/watchword.toml"
    )]
    pub config: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything on the embedded engine in a temporary folder, with an inbox page.
    Demo {
        /// Stop after one SMS and one email verification; status 0 if both worked.
        #[arg(long)]
        exit: bool,
    },
    /// Run roles in this process; none means all.
    Run {
        /// The roles.
        roles: Vec<Role>,
    },
    /// Look at the configuration.
    Config {
        /// What to do with it.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Connect to everything that a process of these roles needs, none means all, and say what is
    /// wrong and how to mend it; status 0 if nothing is. Sends nothing, changes nothing.
    Doctor {
        /// The roles.
        roles: Vec<Role>,
    },
    /// Print the broker's exchanges and queues, or declare them.
    Topology {
        /// Declare them at the configured broker.
        #[arg(long)]
        apply: bool,
        /// Print the commands that give each broker user its permissions instead.
        #[arg(long, conflicts_with = "apply")]
        permissions: bool,
    },
    /// Lets a subject or a recipient get codes again: forgets the wrong codes and the messages of
    /// the subject, and the messages to the recipient and its block of numbers. A running issuer follows within 5 s.
    /// With the embedded engine the process that runs must be stopped for it.
    Unlock {
        /// The service.
        service: String,
        /// The account, or the recipient where requests name none.
        #[arg(required_unless_present = "recipient")]
        subject: Option<String>,
        /// A number or an address that has had too many messages.
        #[arg(long)]
        recipient: Option<String>,
    },
    /// Look at what was put aside, put it back to work, or drop it. Shows no content.
    /// With the embedded engine the process that runs must be stopped for it.
    Parked {
        /// What to do.
        #[command(subcommand)]
        command: ParkedCommand,
    },
    /// Compare accepted messages with what became of them; status 0 if it balances.
    /// With the embedded engine the process that runs must be stopped for it.
    Audit,
    /// Print what `/metrics` tells: every series, its meaning and what to do when it moves.
    Metrics,
    /// Try a provider.
    Provider {
        /// What to do.
        #[command(subcommand)]
        command: ProviderCommand,
    },
    /// Run an SMS gateway and an SMTP relay that behave as a file says, to try routes with.
    Simulate {
        /// The file; without it both take everything.
        file: Option<PathBuf>,
    },
    /// Ask a running issuer for a code.
    Send(SendArguments),
    /// Check a code at a running verifier; status 0 if it is right.
    Check(CheckArguments),
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Parse and validate it as a process of these roles does, none means all, and print what would
    /// run. Prints no secret.
    Check {
        /// The roles.
        roles: Vec<Role>,
    },
}

/// What to do about what was put aside.
#[derive(Debug, Subcommand)]
pub enum ParkedCommand {
    /// List it.
    List(ParkedFilter),
    /// Show one message: reason and history, never its content.
    Show {
        /// Its id.
        id: String,
    },
    /// Put it back to work; what is past its deadline is refused.
    Replay(ParkedFilter),
    /// Drop it.
    Discard(ParkedFilter),
}

/// Which parked messages.
#[derive(Debug, Args)]
pub struct ParkedFilter {
    /// `requests`, `sms`, `email`, `receipts` or `timers`.
    #[arg(long)]
    pub lane: Option<String>,
    /// The reason it was put aside for.
    #[arg(long)]
    pub reason: Option<String>,
    /// Whose it is.
    #[arg(long)]
    pub service: Option<String>,
    /// Its id.
    #[arg(long)]
    pub id: Option<String>,
    /// Put aside (or, where that is not known, accepted) longer ago than this.
    #[arg(long)]
    pub older_than_seconds: Option<u64>,
    /// With replay and discard: everything, where nothing else is named.
    #[arg(long)]
    pub all: bool,
    /// How many of a lane are looked at.
    #[arg(long, default_value_t = 1_000)]
    pub limit: usize,
}

/// What to do with a provider.
#[derive(Debug, Subcommand)]
pub enum ProviderCommand {
    /// Show the request it would make, secrets masked; with --to, send one message and show the answer.
    Test {
        /// Its name.
        name: String,
        /// A number or an address that gets a real message.
        #[arg(long)]
        to: Option<String>,
        /// A value for the template: NAME=VALUE. Other variables get a sample.
        #[arg(long = "variable", value_name = "NAME=VALUE", value_parser = variable)]
        variables: Vec<(String, String)>,
    },
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A part of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Accepts requests for codes.
    Issuer,
    /// Checks codes.
    Verifier,
    /// Delivers by SMS.
    SmsWorker,
    /// Delivers by email.
    EmailWorker,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [
        Self::Issuer,
        Self::Verifier,
        Self::SmsWorker,
        Self::EmailWorker,
    ];

    /// The role's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Issuer => "issuer",
            Self::Verifier => "verifier",
            Self::SmsWorker => "sms-worker",
            Self::EmailWorker => "email-worker",
        }
    }
}

/// Where the service is and who asks.
#[derive(Debug, Args)]
pub struct Server {
    /// The address of the API.
    #[arg(long, env = "WATCHWORD_URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// The API key.
    #[arg(long, env = "WATCHWORD_KEY", hide_env_values = true)]
    pub key: String,
}

/// `watchword send`.
#[derive(Debug, Args)]
pub struct SendArguments {
    /// Where and who.
    #[command(flatten)]
    pub server: Server,
    /// `sms` or `email`.
    pub channel: String,
    /// The number or the address.
    pub to: String,
    /// What the code is for.
    #[arg(long)]
    pub purpose: Option<String>,
    /// The language of the message.
    #[arg(long)]
    pub locale: Option<String>,
}

/// `watchword check`.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Where and who.
    #[command(flatten)]
    pub server: Server,
    /// The verification's id, as `send` printed it.
    pub id: String,
    /// What the person typed.
    pub code: String,
}
