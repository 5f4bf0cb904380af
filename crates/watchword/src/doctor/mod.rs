//! `watchword doctor`: connects to everything the configuration names and says what is wrong and
//! how to mend it. Refuses to send a message, to declare a queue and to print a secret.

mod broker;
mod local;
mod providers;
mod store;

use std::path::Path;

use crate::cli::Role;
use crate::config::EngineKind;
use crate::needs::Needs;
use crate::run::checked;

/// What the doctor found, a line each.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

/// One line.
#[derive(Debug)]
struct Finding {
    state: State,
    about: String,
    what: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// As it should be.
    Fine,
    /// It works, and will be trouble.
    Careful,
    /// It does not work.
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

/// Looks at everything that a process of these roles needs, none means all; an error if something
/// is wrong.
pub async fn run(path: &Path, roles: &[Role]) -> anyhow::Result<()> {
    let needs = Needs::of(roles);
    let config = checked(path, needs)?;
    let mut findings = Findings::default();
    findings.fine("config", format!("{} is valid", path.display()));
    local::look(&config, needs, &mut findings);
    if config.engine == EngineKind::Distributed {
        if needs.queues {
            broker::look(&config, &mut findings).await;
        }
        store::look(&config, &mut findings).await;
    }
    providers::look(&config, needs, &mut findings).await;
    for Finding { state, about, what } in &findings.0 {
        println!("{:<4} {about:<20} {what}", state.word());
    }
    let (wrong, careful) = (findings.count(State::Wrong), findings.count(State::Careful));
    println!("\n{wrong} wrong, {careful} to be careful about");
    anyhow::ensure!(wrong == 0, "something is wrong");
    Ok(())
}
