//! Systems under measurement, started for each measurement: the lean pipeline and Watchword, on the
//! same broker and store.

use std::process::Command;
use std::time::Duration;

use tokio::time::sleep;
use watchword_tests::pipeline::KEY;
use watchword_tests::{Pipeline, Process, free_port, until};

use crate::cost::Meter;
use crate::load::Target;
use crate::peers::Peers;
use crate::provider::Provider;
use crate::setup::Setup;

/// Time for a started system to finish its start-up before it counts as idle.
const SETTLES: Duration = Duration::from_millis(700);
/// Name of the process with all roles.
pub const ALL: &str = "all";

/// System under measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Lean pipeline of the same crates without Watchword's guarantees.
    Lean,
    /// Lean pipeline with the store and broker calls that the guarantees require.
    LeanCalls,
    /// Watchword on RabbitMQ and Redis, all roles in one process.
    One,
    /// Watchword on RabbitMQ and Redis, one process per role.
    Four,
    /// Watchword on one `SQLite` file.
    Embedded,
}

impl Kind {
    /// All systems, in the order of the tables.
    pub const ALL: [Self; 5] = [
        Self::Lean,
        Self::LeanCalls,
        Self::One,
        Self::Four,
        Self::Embedded,
    ];

    /// Returns the name in tables and keys.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lean => "lean",
            Self::LeanCalls => "lean_calls",
            Self::One => "one_process",
            Self::Four => "four_processes",
            Self::Embedded => "embedded",
        }
    }
}

enum Held {
    Lean(Process),
    Ours(Box<Pipeline>),
}

/// Running system.
pub struct System {
    /// Target for the load.
    pub target: Target,
    /// Process ids.
    pub processes: Vec<u32>,
    held: Held,
}

impl System {
    /// Starts `kind` with `provider` as SMS provider and waits until it is idle.
    pub async fn start(kind: Kind, peers: &Peers, provider: &Provider) -> anyhow::Result<Self> {
        let setup = match kind {
            Kind::Lean | Kind::LeanCalls => {
                peers.clear().await;
                let system = lean(kind, peers, provider).await?;
                sleep(SETTLES).await;
                return Ok(system);
            }
            Kind::One => Setup::default(),
            Kind::Four => Setup {
                roles: &["issuer", "verifier", "sms-worker", "email-worker"],
                ..Setup::default()
            },
            Kind::Embedded => Setup {
                is_embedded: true,
                ..Setup::default()
            },
        };
        Ok(Self::ours(&setup, peers, provider).await)
    }

    /// Starts Watchword with `setup` and waits until it is idle.
    pub async fn ours(setup: &Setup, peers: &Peers, provider: &Provider) -> Self {
        peers.clear().await;
        let mut pipeline = Pipeline::configure(&setup.settings(peers, provider));
        for role in setup.roles {
            let named = (*role != ALL).then_some(*role);
            pipeline.start(role, named.as_slice()).await;
        }
        // If there is no verifier no checks are made; use the issuer's port for both.
        let port = |names: &[&str]| {
            let mut found = names
                .iter()
                .filter_map(|name| pipeline.processes.get(*name));
            found.next().map_or(0, |role| role.http)
        };
        let target = Target {
            ask: port(&["issuer", ALL]),
            check: port(&["verifier", "issuer", ALL]),
            key: KEY,
            channel: setup.channel,
        };
        let mut system = Self {
            target,
            processes: Vec::new(),
            held: Held::Ours(Box::new(pipeline)),
        };
        system.count();
        sleep(SETTLES).await;
        system
    }

    /// Starts a process `name` with `role` without waiting for it. Returns its process id.
    pub fn launch(&mut self, name: &str, role: &str) -> u32 {
        let Held::Ours(pipeline) = &mut self.held else {
            return 0;
        };
        pipeline.launch(name, &[role]);
        let id = pipeline.processes[name].process.id();
        self.count();
        id
    }

    /// Waits until the process `name` is ready.
    pub async fn ready(&self, name: &str) {
        if let Held::Ours(pipeline) = &self.held {
            pipeline.ready(name).await;
        }
    }

    /// Returns the sum of the metric `name` with all `labels` over all processes.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        match &self.held {
            Held::Ours(pipeline) => pipeline.total(name, labels).await,
            Held::Lean(_) => 0,
        }
    }

    fn count(&mut self) {
        if let Held::Ours(pipeline) = &self.held {
            let processes = pipeline.processes.values();
            self.processes = processes.map(|role| role.process.id()).collect();
        }
    }

    /// Starts a meter for this system, `peers` and the load.
    pub fn meter(&self, peers: &Peers) -> Meter {
        Meter::new(&[
            ("own", &self.processes),
            ("broker", &peers.broker_processes),
            ("store", &peers.store_processes),
            ("driver", &[std::process::id()]),
        ])
    }

    /// Returns the warnings, errors and panics logged so far.
    pub fn complaints(&self) -> Vec<String> {
        let text = match &self.held {
            Held::Lean(process) => process.output(),
            Held::Ours(pipeline) => pipeline.logs(),
        };
        let is_complaint = |line: &&str| {
            line.contains("WARN") || line.contains("ERROR") || line.contains("panicked")
        };
        text.lines()
            .filter(is_complaint)
            .map(str::to_owned)
            .collect()
    }
}

async fn lean(kind: Kind, peers: &Peers, provider: &Provider) -> anyhow::Result<System> {
    let port = free_port();
    let mut command = Command::new(std::env::current_exe()?);
    command.args([
        "lean",
        "--amqp",
        &peers.broker.url(),
        "--redis",
        &peers.store.url(),
    ]);
    command.args([
        "--provider",
        &provider.port().to_string(),
        "--listen",
        &port.to_string(),
    ]);
    command.args((kind == Kind::LeanCalls).then_some("--calls"));
    let output = std::env::temp_dir().join(format!("watchword-lean-{port}.log"));
    let process = Process::start(command, &output);
    until(20, "the lean pipeline listens", || async {
        tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .ok()
    })
    .await;
    let _ = std::fs::remove_file(output);
    Ok(System {
        target: Target {
            ask: port,
            check: port,
            key: KEY,
            channel: "sms",
        },
        processes: vec![process.id()],
        held: Held::Lean(process),
    })
}
