//! `watchword doctor`: connects to everything that the configuration names, and reports problems
//! and how to fix them. Sends no message, declares no queue and prints no secret.

mod broker;
mod local;
mod providers;
mod receipts;
mod running;
mod store;

use std::path::Path;

use serde_json::json;

use crate::cli::Role;
use crate::config::{EngineKind, Warning};
use crate::needs::Needs;
use crate::output::{self, counted};
use crate::validation::looked_at;

/// The results of all checks, in the order of the output.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

/// A line of the output.
#[derive(Debug)]
struct Finding {
    state: State,
    about: String,
    what: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No problem.
    Fine,
    /// A problem that does not stop the service, or may stop it later.
    Careful,
    /// An error that must be fixed.
    Wrong,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Careful => "warn",
            Self::Wrong => "FAIL",
        }
    }
}

impl Findings {
    fn add(&mut self, state: State, about: &str, what: impl Into<String>) {
        self.0.push(Finding {
            state,
            about: about.to_owned(),
            what: what.into(),
        });
    }

    fn fine(&mut self, about: &str, what: impl Into<String>) {
        self.add(State::Fine, about, what);
    }

    fn careful(&mut self, about: &str, what: impl Into<String>) {
        self.add(State::Careful, about, what);
    }

    fn wrong(&mut self, about: &str, what: impl Into<String>) {
        self.add(State::Wrong, about, what);
    }

    fn count(&self, state: State) -> usize {
        self.0.iter().filter(|one| one.state == state).count()
    }
}

/// Checks the dependencies of a process with these roles, or with all if none is named. Returns an
/// error if a check failed.
pub async fn run(path: &Path, roles: &[Role], as_json: bool) -> anyhow::Result<()> {
    let needs = Needs::of(roles);
    let (config, warnings) = looked_at(path, needs)?;
    let mut findings = Findings::default();
    findings.fine("config", format!("{} is valid", path.display()));
    for Warning { key, text } in warnings {
        let section = key.split('.').next().unwrap_or_default();
        findings.careful(section, format!("{key}: {text}"));
    }
    local::look(&config, needs, &mut findings);
    if config.engine == EngineKind::Distributed {
        if needs.queues {
            broker::look(&config, &mut findings).await;
        }
        store::look(&config, &mut findings).await;
    }
    providers::look(&config, needs, &mut findings).await;
    receipts::look(&config, needs, &mut findings).await;
    running::look(path, &config, roles, &mut findings).await;
    let (wrong, careful) = (findings.count(State::Wrong), findings.count(State::Careful));
    if as_json {
        let lines = findings.0.iter().map(|Finding { state, about, what }| {
            json!({ "state": state.word().to_ascii_lowercase(), "about": about, "what": what })
        });
        output::json(
            &json!({ "errors": wrong, "warnings": careful, "findings": lines.collect::<Vec<_>>() }),
        )?;
    } else {
        for Finding { state, about, what } in &findings.0 {
            let line = format!("{:<4} {about:<20} {what}", state.word());
            if *state == State::Wrong {
                output::data(&format!("{line}\n"));
            } else {
                println!("{line}");
            }
        }
        println!(
            "\n{}, {}",
            counted(wrong, "error"),
            counted(careful, "warning")
        );
    }
    anyhow::ensure!(
        wrong == 0,
        "The doctor found {}. Fix the lines marked FAIL.",
        counted(wrong, "error")
    );
    Ok(())
}
