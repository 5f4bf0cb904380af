//! The command line.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::config::EngineKind;

const EXIT_CODES: &str = "\
Exit codes:
  0    success
  1    it could not be done, or the answer is no (check, config check, doctor, status, audit)
  2    the command line is wrong: an option or argument is missing, unknown or has another form
  141  the reader of the output closed the pipe

Variables: WATCHWORD_CONFIG, WATCHWORD_URL and WATCHWORD_KEY stand for --config, --url and --key.
NO_COLOR turns colors off.";

const SIMULATE: &str = "\
Run an SMS gateway and an SMTP relay that behave as a file says, to try routes with.

Read the messages and their codes with
curl -H 'Authorization: Bearer simulator' http://127.0.0.1:9925/control/messages
where `simulator` is sms.token and 127.0.0.1:9925 sms.listen of the file.";

const FIND: &str = "\
watchword find [OPTIONS] <ID>
       watchword find [OPTIONS] --service <SERVICE> --subject <SUBJECT>
       watchword find [OPTIONS] --service <SERVICE> --recipient <RECIPIENT>";

const UNLOCK: &str = "\
watchword unlock [OPTIONS] <SERVICE> <SUBJECT>
       watchword unlock [OPTIONS] <SERVICE> --recipient <RECIPIENT>";

/// One-time codes by SMS and email.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true, after_help = EXIT_CODES)]
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
    /// Print each cause of an error.
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Print errors and asked-for data only; the exit code has the answer.
    #[arg(short, long, global = true)]
    pub quiet: bool,
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
    /// Write a configuration, its keys, an API key and an admin key.
    ///
    /// Overwrites nothing. Asks for the gateway, the sender and the countries on a terminal, unless
    /// options name them.
    Init(InitArguments),
    /// Run roles in this process; none means all.
    ///
    /// On the distributed engine `watchword run issuer verifier` serves the whole API at one address.
    Run {
        /// The roles.
        roles: Vec<Role>,
    },
    /// Check the configuration.
    Config {
        /// What to do with it.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Check everything that a process connects to, and say how to fix what is wrong.
    ///
    /// Looks at what the named roles need, without roles at everything. Sends no message and changes
    /// nothing. Exit code 0 if there is no error.
    Doctor {
        /// The roles.
        roles: Vec<Role>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the broker's exchanges and queues as JSON, or declare them.
    Topology {
        /// Declare them at the configured broker.
        #[arg(long)]
        apply: bool,
        /// Print the commands that give each broker user its permissions instead.
        #[arg(long, conflicts_with = "apply")]
        permissions: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show a running process: roles, queues, providers, the last hour; status 0 if it is ready.
    Status(AdminArguments),
    /// Find verifications and say what happened to them.
    #[command(override_usage = FIND)]
    Find(FindArguments),
    /// Send the code of a verification again, by a running issuer.
    Resend(ByIdArguments),
    /// Cancel a verification: its code is worth nothing from now on.
    Cancel(ByIdArguments),
    /// Reset the counts of a subject or recipient, so that it can get and try codes again: wrong
    /// codes and messages of the subject, messages to the recipient and its block of numbers.
    /// A running issuer follows within 5 s.
    #[command(override_usage = UNLOCK)]
    Unlock(UnlockArguments),
    /// List, show, replay or discard dead letters. Shows no content.
    DeadLetters {
        /// What to do.
        #[command(subcommand)]
        command: DeadLettersCommand,
    },
    /// Compare accepted messages with their outcomes; status 0 if all could be read and they balance.
    Audit(AdminArguments),
    /// Show the providers of a running worker, or hold the circuit of one.
    Providers(ProvidersArguments),
    /// Show who used the admin API or these commands, for what and why.
    AuditTrail(AdminArguments),
    /// Copy the embedded engine's file to a new file, also while the service runs.
    Backup {
        /// The file to create (mode 0600). An existing file is not overwritten.
        file: PathBuf,
    },
    /// Put a backup in place of the embedded engine's file. The service must be stopped, and the
    /// earlier file moved away. Codes that were live in the backup have ended.
    Restore {
        /// The file that `watchword backup` made.
        file: PathBuf,
    },
    /// Print every series of `/metrics`, its meaning and what to do when it moves.
    Metrics {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Try a provider.
    Provider {
        /// What to do.
        #[command(subcommand)]
        command: ProviderCommand,
    },
    /// Run an SMS gateway and an SMTP relay that behave as a file says, to try routes with.
    #[command(long_about = SIMULATE)]
    Simulate {
        /// The file; without it both accept everything.
        file: Option<PathBuf>,
    },
    /// Ask a running issuer for a code.
    Send(SendArguments),
    /// Check a code at a running verifier; status 0 if it is right.
    Check(CheckArguments),
    /// Print completions for a shell.
    ///
    /// For example: watchword completions bash > ~/.local/share/bash-completion/completions/watchword
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write man pages into a folder.
    Man {
        /// The folder.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

/// `watchword init`.
#[derive(Debug, Args)]
pub struct InitArguments {
    /// The folder to create or to write into.
    #[arg(value_name = "DIR", default_value = "config")]
    pub folder: PathBuf,
    /// What holds state and queues.
    #[arg(long, value_enum, default_value_t = EngineKind::Embedded)]
    pub engine: EngineKind,
    /// The folder of the embedded engine's file; the configuration's own by default.
    #[arg(long, value_name = "DATA_DIR")]
    pub data: Option<PathBuf>,
    /// Send through `watchword simulate`, whose file is written as well.
    #[arg(long, conflicts_with = "gateway")]
    pub with_simulator: bool,
    /// The SMS gateway: a preset, or `inbox` to keep messages in memory.
    #[arg(long, value_name = "PRESET", value_parser = gateways())]
    pub gateway: Option<String>,
    /// The sender that people see in an SMS: a name of up to 11 characters or a number.
    #[arg(long)]
    pub sender: Option<String>,
    /// The countries whose numbers get SMS: DE,AT; `*` means every country.
    #[arg(long = "country", value_name = "COUNTRY", value_delimiter = ',')]
    pub countries: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

fn gateways() -> PossibleValuesParser {
    let presets = watchword_sms_worker::PRESETS.iter().map(|(name, _)| *name);
    let presets = presets.filter(|name| *name != "simulator");
    PossibleValuesParser::new(std::iter::once("inbox").chain(presets))
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Parse and validate it as a process of these roles does, none means all, and print what would
    /// run. Prints no secret.
    Check {
        /// The roles.
        roles: Vec<Role>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Where the admin API of a running process is, and who asks. If nothing listens there, the command
/// works on the store directly.
#[derive(Debug, Args)]
pub struct AdminArguments {
    /// The address of the admin listener; without it `admin.listen` of the configuration.
    #[arg(long, global = true, env = "WATCHWORD_ADMIN_URL")]
    pub admin_url: Option<String>,
    /// A file with the admin key; without it the variable `WATCHWORD_ADMIN_KEY`.
    #[arg(long, global = true)]
    pub key_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// A command that changes something.
#[derive(Debug, Args)]
pub struct ChangeArguments {
    /// Where and who.
    #[command(flatten)]
    pub admin: AdminArguments,
    /// Why, for the audit trail: at most 200 characters, no address.
    #[arg(long, default_value = "not given")]
    pub why: String,
}

/// `watchword find`.
#[derive(Debug, Args)]
pub struct FindArguments {
    /// Where and who.
    #[command(flatten)]
    pub admin: AdminArguments,
    /// The id of a verification.
    pub id: Option<String>,
    /// With --subject or --recipient: the service.
    #[arg(long)]
    pub service: Option<String>,
    /// The account.
    #[arg(long)]
    pub subject: Option<String>,
    /// The number or mail address. Approved, canceled and used-up verifications keep none.
    #[arg(long)]
    pub recipient: Option<String>,
}

/// `watchword resend` and `watchword cancel`.
#[derive(Debug, Args)]
pub struct ByIdArguments {
    /// Where, who and why.
    #[command(flatten)]
    pub change: ChangeArguments,
    /// The id of the verification.
    pub id: String,
}

/// `watchword unlock`.
#[derive(Debug, Args)]
pub struct UnlockArguments {
    /// Where, who and why.
    #[command(flatten)]
    pub change: ChangeArguments,
    /// The service.
    pub service: Option<String>,
    /// The account, or the recipient where requests name none.
    pub subject: Option<String>,
    /// A number or an address that has had too many messages.
    #[arg(long)]
    pub recipient: Option<String>,
}

/// A command about dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// List them.
    List {
        /// Where and who.
        #[command(flatten)]
        admin: AdminArguments,
        /// Which.
        #[command(flatten)]
        filter: DeadLetterArguments,
    },
    /// Show one: reason and history, never its content.
    Show {
        /// Where and who.
        #[command(flatten)]
        admin: AdminArguments,
        /// Its id.
        id: String,
    },
    /// Put dead letters back into their queues. Expired ones stay.
    Replay(DeadLetterChange),
    /// Discard them.
    Discard(DeadLetterChange),
}

/// Which dead letters to replay or discard.
#[derive(Debug, Args)]
pub struct DeadLetterChange {
    /// Where, who and why.
    #[command(flatten)]
    pub change: ChangeArguments,
    /// Which.
    #[command(flatten)]
    pub filter: DeadLetterArguments,
    /// All dead letters; required if no filter is given.
    #[arg(long)]
    pub all: bool,
}

/// Which dead letters.
#[derive(Debug, Args)]
pub struct DeadLetterArguments {
    /// `requests`, `sms`, `email`, `receipts` or `timers`.
    #[arg(long)]
    pub queue: Option<String>,
    /// Why they were dead-lettered.
    #[arg(long)]
    pub reason: Option<String>,
    /// The service that they belong to.
    #[arg(long)]
    pub service: Option<String>,
    /// Their id.
    #[arg(long)]
    pub id: Option<String>,
    /// Dead-lettered (or, where that is not known, accepted) longer ago than this.
    #[arg(long)]
    pub older_than_seconds: Option<u64>,
    /// How many dead letters to read from each queue: 1 to 20,000.
    #[arg(long, default_value_t = 1_000)]
    pub limit: usize,
}

/// `watchword providers`.
#[derive(Debug, Args)]
pub struct ProvidersArguments {
    /// Where and who.
    #[command(flatten)]
    pub admin: AdminArguments,
    /// A command; without one the providers are shown.
    #[command(subcommand)]
    pub command: Option<ProvidersCommand>,
}

/// A command about the providers of a running worker.
#[derive(Debug, Subcommand)]
pub enum ProvidersCommand {
    /// Hold a circuit open (the provider is not called) or closed (it gets its full share), or give
    /// it back. It ends by itself, and with the process; other workers do not follow.
    Circuit {
        /// The provider.
        name: String,
        /// How.
        state: CircuitWord,
        /// The channel, where an SMS and a mail provider share the name.
        #[arg(long, value_parser = ["sms", "email"])]
        channel: Option<String>,
        /// For how long.
        #[arg(long, default_value_t = 3_600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
        for_seconds: u64,
        /// Why, for the audit trail: at most 200 characters, no address.
        #[arg(long, default_value = "not given")]
        why: String,
    },
}

/// How to hold a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CircuitWord {
    /// The provider is not called.
    Open,
    /// The provider gets its full share.
    Closed,
    /// The outcomes of calls decide.
    Automatic,
}

/// What to do with a provider.
#[derive(Debug, Subcommand)]
pub enum ProviderCommand {
    /// Show the request it would make, secrets masked; with --to, send one message and show the answer.
    Test(ProviderTestArguments),
}

/// `watchword provider test`.
#[derive(Debug, Args)]
pub struct ProviderTestArguments {
    /// Its name.
    pub name: String,
    /// A number or an address that gets a real message.
    #[arg(long)]
    pub to: Option<String>,
    /// A value for the template: NAME=VALUE. Other variables get a sample.
    #[arg(long = "variable", value_name = "NAME=VALUE", value_parser = variable)]
    pub variables: Vec<(String, String)>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
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
    pub key: Option<String>,
}

/// `watchword send`.
#[derive(Debug, Args)]
pub struct SendArguments {
    /// Where and who.
    #[command(flatten)]
    pub server: Server,
    /// How the code is sent.
    #[arg(value_parser = ["sms", "email"])]
    pub channel: String,
    /// The number or the address.
    pub to: String,
    /// The account that asks; without it the recipient counts as the account.
    #[arg(long)]
    pub subject: Option<String>,
    /// What the code is for.
    #[arg(long)]
    pub purpose: Option<String>,
    /// The language of the message.
    #[arg(long)]
    pub locale: Option<String>,
    /// Print JSON, as without this option.
    #[arg(long)]
    pub json: bool,
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
    /// The account that must be the request's.
    #[arg(long)]
    pub subject: Option<String>,
    /// The purpose that must be the request's.
    #[arg(long)]
    pub purpose: Option<String>,
    /// Print JSON, as without this option.
    #[arg(long)]
    pub json: bool,
}
