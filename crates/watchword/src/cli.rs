//! The command line of the program. The doc comments are its help texts.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::config::EngineKind;

const EXIT_CODES: &str = "\
Exit codes:
  0    success
  1    failure, or a negative answer (check, config check, doctor, status, audit)
  2    usage error: an option or argument is missing, unknown or malformed
  141  the reader of the output closed the pipe

Variables: WATCHWORD_CONFIG, WATCHWORD_URL and WATCHWORD_KEY set --config, --url and --key.
NO_COLOR turns colors off.";

const SIMULATE: &str = "\
Run a simulated SMS gateway and SMTP relay, whose faults a file scripts, to test routes.

Read the messages and their codes with
curl -H 'Authorization: Bearer simulator' http://127.0.0.1:9925/control/messages
where `simulator` is sms.token and 127.0.0.1:9925 is sms.listen of the file.";

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
    /// Print only errors and requested data; the exit code gives the result.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The command to run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run all roles on the embedded engine in a temporary folder, with an inbox page.
    Demo {
        /// Stop after one SMS and one email verification; exit code 0 if both succeeded.
        #[arg(long)]
        exit: bool,
    },
    /// Write a configuration, its keys, an API key and an admin key.
    ///
    /// Existing files are not overwritten. On a terminal it asks for the gateway, the sender and
    /// the countries unless options name them.
    Init(InitArguments),
    /// Run roles in this process; all roles if none is named.
    ///
    /// On the distributed engine `watchword run issuer verifier` serves the whole API at one
    /// address.
    Run {
        /// The roles to run.
        roles: Vec<Role>,
    },
    /// Check the configuration.
    Config {
        /// The subcommand.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Check everything that a process connects to, and explain how to fix each problem.
    ///
    /// Checks the dependencies of the named roles, or of all roles. Sends no message and changes
    /// nothing. Exit code 0 if there is no error.
    Doctor {
        /// The roles to check.
        roles: Vec<Role>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the broker's exchanges and queues as JSON, or declare them.
    Topology {
        /// Declare the exchanges and queues at the configured broker.
        #[arg(long)]
        apply: bool,
        /// Print the commands that grant each broker user its permissions instead.
        #[arg(long, conflicts_with = "apply")]
        permissions: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show a running process: roles, queues, providers, the last hour; exit code 0 if it is ready.
    Status(AdminArguments),
    /// Find verifications and show what happened to them.
    #[command(override_usage = FIND)]
    Find(FindArguments),
    /// Resend the code of a verification through a running issuer.
    Resend(ByIdArguments),
    /// Cancel a verification, so that its code is no longer accepted.
    Cancel(ByIdArguments),
    /// Reset the counts of a subject or recipient, so that it can receive and try codes again:
    /// wrong codes and messages of the subject, messages to the recipient and its number block.
    /// Takes effect in a running issuer within 5 s.
    #[command(override_usage = UNLOCK)]
    Unlock(UnlockArguments),
    /// List, show, replay or discard dead letters. Shows no content.
    DeadLetters {
        /// The subcommand.
        #[command(subcommand)]
        command: DeadLettersCommand,
    },
    /// Compare accepted messages with their outcomes; exit code 0 if all could be read and each has
    /// one.
    Audit(AdminArguments),
    /// Show the providers of a running worker, or hold the circuit of one.
    Providers(ProvidersArguments),
    /// Show who used the admin API or these commands, when and why.
    AuditTrail(AdminArguments),
    /// Copy the embedded engine's file to a new file, even while the service runs.
    Backup {
        /// The file to create (mode 0600). An existing file is not overwritten.
        file: PathBuf,
    },
    /// Restore the embedded engine's file from a backup. Stop the service and move the existing
    /// file away first. Codes that were live in the backup are no longer valid.
    Restore {
        /// A file made by `watchword backup`.
        file: PathBuf,
    },
    /// Print every series of `/metrics` with its meaning and the action to take when it changes.
    Metrics {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Test a provider.
    Provider {
        /// The subcommand.
        #[command(subcommand)]
        command: ProviderCommand,
    },
    /// Run a simulated SMS gateway and SMTP relay, whose faults a file scripts, to test routes.
    #[command(long_about = SIMULATE)]
    Simulate {
        /// The script; without it both accept every message.
        file: Option<PathBuf>,
    },
    /// Request a code from a running issuer.
    Send(SendArguments),
    /// Check a code at a running verifier; exit code 0 if it is approved.
    Check(CheckArguments),
    /// Print the completion script for a shell.
    ///
    /// For example: watchword completions bash >
    /// ~/.local/share/bash-completion/completions/watchword
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the man pages into a folder.
    Man {
        /// The folder; created if it does not exist.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

/// Arguments of `watchword init`.
#[derive(Debug, Args)]
pub struct InitArguments {
    /// The folder to create or to write into.
    #[arg(value_name = "DIR", default_value = "config")]
    pub folder: PathBuf,
    /// The engine that holds state and queues.
    #[arg(long, value_enum, default_value_t = EngineKind::Embedded)]
    pub engine: EngineKind,
    /// The folder of the embedded engine's file; by default the folder of the configuration.
    #[arg(long, value_name = "DATA_DIR")]
    pub data: Option<PathBuf>,
    /// Send through `watchword simulate`; its script is written as well.
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

/// A command about the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Parse and validate the configuration for the named roles, or all, and print a summary
    /// without secrets.
    Check {
        /// The roles to check for.
        roles: Vec<Role>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Address and key of the admin API. If nothing listens there, the command works on the store
/// directly.
#[derive(Debug, Args)]
pub struct AdminArguments {
    /// The address of the admin listener; by default `admin.listen` of the configuration.
    #[arg(long, global = true, env = "WATCHWORD_ADMIN_URL")]
    pub admin_url: Option<String>,
    /// A file with the admin key; by default the variable `WATCHWORD_ADMIN_KEY` is used.
    #[arg(long, global = true)]
    pub key_file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// Arguments of a command that changes state.
#[derive(Debug, Args)]
pub struct ChangeArguments {
    /// Address and key of the admin API.
    #[command(flatten)]
    pub admin: AdminArguments,
    /// The reason, for the audit trail: at most 200 characters, no mail address or phone number.
    #[arg(long, default_value = "not given")]
    pub why: String,
}

/// Arguments of `watchword find`.
#[derive(Debug, Args)]
pub struct FindArguments {
    /// Address and key of the admin API.
    #[command(flatten)]
    pub admin: AdminArguments,
    /// The id of a verification.
    pub id: Option<String>,
    /// The service; required with --subject or --recipient.
    #[arg(long)]
    pub service: Option<String>,
    /// The account that the codes were requested for.
    #[arg(long)]
    pub subject: Option<String>,
    /// The number or mail address. Does not find approved, canceled and used-up verifications,
    /// which keep no recipient.
    #[arg(long)]
    pub recipient: Option<String>,
}

/// Arguments of `watchword resend` and `watchword cancel`.
#[derive(Debug, Args)]
pub struct ByIdArguments {
    /// The admin API and the reason.
    #[command(flatten)]
    pub change: ChangeArguments,
    /// The id of the verification.
    pub id: String,
}

/// Arguments of `watchword unlock`.
#[derive(Debug, Args)]
pub struct UnlockArguments {
    /// The admin API and the reason.
    #[command(flatten)]
    pub change: ChangeArguments,
    /// The service that requested the codes.
    pub service: Option<String>,
    /// The account, or the recipient if the service's requests name no account.
    pub subject: Option<String>,
    /// A number or mail address that has received too many messages.
    #[arg(long)]
    pub recipient: Option<String>,
}

/// A command about dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// List dead letters.
    List {
        /// Address and key of the admin API.
        #[command(flatten)]
        admin: AdminArguments,
        /// The dead letters to list.
        #[command(flatten)]
        filter: DeadLetterArguments,
    },
    /// Show the reason and history of a dead letter, without its content.
    Show {
        /// Address and key of the admin API.
        #[command(flatten)]
        admin: AdminArguments,
        /// The id of the dead letter.
        id: String,
    },
    /// Move dead letters back into their queues, except expired ones.
    Replay(DeadLetterChange),
    /// Delete dead letters.
    Discard(DeadLetterChange),
}

/// Arguments of `watchword dead-letters replay` and `discard`.
#[derive(Debug, Args)]
pub struct DeadLetterChange {
    /// The admin API and the reason.
    #[command(flatten)]
    pub change: ChangeArguments,
    /// The dead letters to change.
    #[command(flatten)]
    pub filter: DeadLetterArguments,
    /// All dead letters; required if no filter is given.
    #[arg(long)]
    pub all: bool,
}

/// A filter of dead letters.
#[derive(Debug, Args)]
pub struct DeadLetterArguments {
    /// The queue: `requests`, `sms`, `email`, `receipts` or `timers`.
    #[arg(long)]
    pub queue: Option<String>,
    /// The reason for dead-lettering.
    #[arg(long)]
    pub reason: Option<String>,
    /// The service that the messages belong to.
    #[arg(long)]
    pub service: Option<String>,
    /// The message id.
    #[arg(long)]
    pub id: Option<String>,
    /// The minimum time since dead-lettering or, if that is unknown, since acceptance.
    #[arg(long)]
    pub older_than_seconds: Option<u64>,
    /// The most dead letters to read from each queue: 1 to 20,000.
    #[arg(long, default_value_t = 1_000)]
    pub limit: usize,
}

/// Arguments of `watchword providers`.
#[derive(Debug, Args)]
pub struct ProvidersArguments {
    /// Address and key of the admin API.
    #[command(flatten)]
    pub admin: AdminArguments,
    /// The subcommand; without one the providers are listed.
    #[command(subcommand)]
    pub command: Option<ProvidersCommand>,
}

/// A command about the providers of a running worker.
#[derive(Debug, Subcommand)]
pub enum ProvidersCommand {
    /// Hold a circuit open (the provider is not called) or closed (it gets its full share), or make
    /// it automatic again. A hold ends after --for-seconds or with the process, and does not apply
    /// to other workers.
    Circuit {
        /// The name of the provider.
        name: String,
        /// The state to hold.
        state: CircuitWord,
        /// The channel; required if an SMS and a mail provider share the name.
        #[arg(long, value_parser = ["sms", "email"])]
        channel: Option<String>,
        /// The duration of the hold, up to a day.
        #[arg(long, default_value_t = 3_600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
        for_seconds: u64,
        /// The reason, for the audit trail: at most 200 characters, no mail address or phone
        /// number.
        #[arg(long, default_value = "not given")]
        why: String,
    },
}

/// The state in which to hold a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CircuitWord {
    /// The provider is not called.
    Open,
    /// The provider gets its full share.
    Closed,
    /// The outcomes of calls decide.
    Automatic,
}

/// A command about a configured provider.
#[derive(Debug, Subcommand)]
pub enum ProviderCommand {
    /// Show the request it would make, secrets masked; with --to, send one message and show the
    /// answer.
    Test(ProviderTestArguments),
}

/// Arguments of `watchword provider test`.
#[derive(Debug, Args)]
pub struct ProviderTestArguments {
    /// The name of the provider.
    pub name: String,
    /// A number or mail address that receives a real message.
    #[arg(long)]
    pub to: Option<String>,
    /// A template variable: NAME=VALUE. Other variables get a sample value.
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

/// A role of the pipeline that a process can run.
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
    /// All roles.
    pub const ALL: [Self; 4] = [
        Self::Issuer,
        Self::Verifier,
        Self::SmsWorker,
        Self::EmailWorker,
    ];

    /// Returns the name on the command line, in logs and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Issuer => "issuer",
            Self::Verifier => "verifier",
            Self::SmsWorker => "sms-worker",
            Self::EmailWorker => "email-worker",
        }
    }
}

/// Address and key of the API.
#[derive(Debug, Args)]
pub struct Server {
    /// The URL of the API.
    #[arg(long, env = "WATCHWORD_URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// The API key.
    #[arg(long, env = "WATCHWORD_KEY", hide_env_values = true)]
    pub key: Option<String>,
}

/// Arguments of `watchword send`.
#[derive(Debug, Args)]
pub struct SendArguments {
    /// Address and key of the API.
    #[command(flatten)]
    pub server: Server,
    /// The channel that carries the code.
    #[arg(value_parser = ["sms", "email"])]
    pub channel: String,
    /// The number or mail address.
    pub to: String,
    /// The account that requests the code; by default the recipient counts as the account.
    #[arg(long)]
    pub subject: Option<String>,
    /// The purpose of the code, such as login.
    #[arg(long)]
    pub purpose: Option<String>,
    /// The language of the message.
    #[arg(long)]
    pub locale: Option<String>,
    /// Print JSON, as without this option.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `watchword check`.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// Address and key of the API.
    #[command(flatten)]
    pub server: Server,
    /// The id of the verification, as printed by `send`.
    pub id: String,
    /// The code that the person entered.
    pub code: String,
    /// The account; must equal that of the request.
    #[arg(long)]
    pub subject: Option<String>,
    /// The purpose; must equal that of the request.
    #[arg(long)]
    pub purpose: Option<String>,
    /// Print JSON, as without this option.
    #[arg(long)]
    pub json: bool,
}
