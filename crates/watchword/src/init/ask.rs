//! The answers that `init` needs: from options, from questions on a terminal, or defaults.

use std::io::{IsTerminal, Write, stdin, stdout};

use anyhow::Context;
use watchword_sms_worker::PRESETS;

use crate::cli::InitArguments;

/// The gateway, the sender and the countries.
pub(super) struct Answers {
    pub(super) gateway: String,
    pub(super) sender: String,
    pub(super) countries: Vec<String>,
}

const SENDER: &str = "Example";

/// Returns the answers that the options give and, on a terminal, asks for the others.
pub(super) fn answers(arguments: &InitArguments) -> anyhow::Result<Answers> {
    let is_person = stdin().is_terminal() && stdout().is_terminal();
    let asks = is_person && !arguments.with_simulator && !arguments.json;
    let gateway = match &arguments.gateway {
        Some(gateway) => gateway.clone(),
        None if asks => ask_gateway()?,
        None => "inbox".to_owned(),
    };
    // The inbox shows no sender and sends nothing, so sender and countries do not matter.
    let asks = asks && gateway != "inbox";
    let sender = match &arguments.sender {
        Some(sender) => sender.clone(),
        None if asks => ask("Sender, a name of up to 11 characters or a number", SENDER)?,
        None => SENDER.to_owned(),
    };
    let countries = if arguments.countries.is_empty() && asks {
        let answer = ask("Countries whose numbers get SMS, for example DE,AT", "")?;
        let countries = answer.split(',').map(|one| one.trim().to_uppercase());
        countries.filter(|one| !one.is_empty()).collect()
    } else {
        arguments.countries.clone()
    };
    Ok(Answers {
        gateway,
        sender,
        countries,
    })
}

fn ask_gateway() -> anyhow::Result<String> {
    let presets = PRESETS.iter().map(|(name, _)| *name);
    let presets: Vec<_> = presets.filter(|name| *name != "simulator").collect();
    println!(
        "SMS gateways: {}; inbox keeps messages in memory.",
        presets.join(", ")
    );
    loop {
        let answer = ask("SMS gateway", "inbox")?;
        if answer == "inbox" || presets.contains(&answer.as_str()) {
            return Ok(answer);
        }
        println!("There is no preset of that name.");
    }
}

/// Prints `question` and returns the answer. An empty answer means `default`.
fn ask(question: &str, default: &str) -> anyhow::Result<String> {
    let mut out = stdout();
    let shown = if default.is_empty() {
        String::new()
    } else {
        format!(" [{default}]")
    };
    write!(out, "{question}{shown}: ")?;
    out.flush()?;
    let mut answer = String::new();
    let count = stdin().read_line(&mut answer).context("no answer")?;
    anyhow::ensure!(
        count > 0,
        "The input ended before the answer. Options answer all questions: watchword init --help."
    );
    let answer = answer.trim();
    Ok(if answer.is_empty() { default } else { answer }.to_owned())
}
