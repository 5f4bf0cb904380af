//! What is measured, started anew for each measurement: the lean pipeline and ours, on the same
//! broker and store.

use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use tokio::time::sleep;
use watchword_tests::pipeline::KEY;
use watchword_tests::process::descendants;
use watchword_tests::{Pipeline, Process, RabbitMq, RedisServer, Settings, free_port, until};

use crate::load::Target;
use crate::provider::Provider;

/// How long a system that has started may finish its start-up before it is idle.
const SETTLES: Duration = Duration::from_millis(700);

/// One of the pipelines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The same crates without our promises.
    Lean,
    /// Ours on RabbitMQ and Redis, all roles in one process.
    One,
    /// Ours on RabbitMQ and Redis, each role a process.
    Four,
    /// Ours on one `SQLite` file.
    Embedded,
}

impl Kind {
    /// In the order of the tables.
    pub const ALL: [Self; 4] = [Self::Lean, Self::One, Self::Four, Self::Embedded];

    /// Its name in tables and keys.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lean => "lean",
            Self::One => "one_process",
            Self::Four => "four_processes",
            Self::Embedded => "embedded",
        }
    }
}

/// The broker and the store, and their processes.
pub struct Peers {
    broker: RabbitMq,
    store: RedisServer,
    /// Processes of the broker.
    pub broker_processes: Vec<u32>,
    /// Processes of the store.
    pub store_processes: Vec<u32>,
}

impl Peers {
    /// Starts both.
    pub async fn start() -> Self {
        let us = std::process::id();
        let store = RedisServer::start().await;
        let store_processes = descendants(us);
        let broker = RabbitMq::start().await;
        let mut broker_processes = descendants(us);
        broker_processes.retain(|id| !store_processes.contains(id));
        Self {
            broker,
            store,
            broker_processes,
            store_processes,
        }
    }

    /// Forgets what the last system left.
    pub async fn clear(&self) {
        self.store.command(&["FLUSHALL"]).await;
    }

    /// Bytes that the store's values take.
    pub async fn store_bytes(&self) -> anyhow::Result<f64> {
        let info = self.store.command(&["INFO", "memory"]).await;
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("used_memory:"));
        line.and_then(|bytes| bytes.trim().parse().ok())
            .context("the store's memory")
    }
}

enum Held {
    Lean(Process),
    Ours(Box<Pipeline>),
}

/// A running pipeline.
pub struct System {
    /// How it is reached.
    pub target: Target,
    /// Its processes.
    pub processes: Vec<u32>,
    held: Held,
}

impl System {
    /// Starts `kind` with `provider` for messages, and lets it settle.
    pub async fn start(kind: Kind, peers: &Peers, provider: &Provider) -> anyhow::Result<Self> {
        peers.clear().await;
        let system = match kind {
            Kind::Lean => lean(peers, provider).await?,
            Kind::One => {
                let mut pipeline = ours(distributed(peers), provider);
                pipeline.start("all", &[]).await;
                Self::of(pipeline, "all", "all")
            }
            Kind::Four => {
                let mut pipeline = ours(distributed(peers), provider);
                for role in ["issuer", "verifier", "sms-worker", "email-worker"] {
                    pipeline.start(role, &[role]).await;
                }
                Self::of(pipeline, "issuer", "verifier")
            }
            Kind::Embedded => {
                let mut pipeline = ours(Settings::embedded(), provider);
                pipeline.start("all", &[]).await;
                Self::of(pipeline, "all", "all")
            }
        };
        sleep(SETTLES).await;
        Ok(system)
    }

    fn of(pipeline: Pipeline, ask: &str, check: &str) -> Self {
        let port = |name: &str| pipeline.processes[name].http;
        let target = Target {
            ask: port(ask),
            check: port(check),
            key: KEY,
            channel: "sms",
        };
        let processes = pipeline
            .processes
            .values()
            .map(|role| role.process.id())
            .collect();
        Self {
            target,
            processes,
            held: Held::Ours(Box::new(pipeline)),
        }
    }

    /// What it has logged so far that is not information; nothing of the lean one.
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

fn distributed(peers: &Peers) -> Settings {
    Settings::distributed(&peers.broker.url(), &peers.store.url())
}

/// Every limit, event and metric is on; limits are wide enough for the load.
fn ours(mut settings: Settings, provider: &Provider) -> Pipeline {
    settings.service = "[services.test.limits]\nservice_per_minute = 10000000".into();
    settings.providers = format!(
        "[sms.providers.bench]\nkind = \"http\"\nsender = \"Test\"\n\
         [sms.providers.bench.request]\nmethod = \"POST\"\nurl = \"http://127.0.0.1:{}/messages\"\n\
         json = {{ to = \"{{to}}\", text = \"{{text}}\", reference = \"{{message_id}}\" }}\n\
         [sms.providers.bench.response]\nid = {{ json = \"/id\" }}\n\
         rules = [{{ status = [\"202\"], class = \"accepted\" }}]\n\
         [email.providers.relay]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = 9\ntls = \"none\"\n\
         from = \"Test <no-reply@mail.example.org>\"\n",
        provider.port()
    );
    Pipeline::configure(&settings)
}

async fn lean(peers: &Peers, provider: &Provider) -> anyhow::Result<System> {
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
