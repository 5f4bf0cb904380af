#![doc = include_str!("../README.md")]

mod behaviour;
mod gateway;
mod receipts;
mod relay;
mod world;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub use behaviour::{
    Latency, Outcome, ReceiptBehaviour, SimulatorConfig, SmsBehaviour, SmtpBehaviour,
};
pub use world::SimulatedMessage;
use world::World;

/// An error of starting the simulator.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// The file cannot be read or is invalid; the text names the place.
    #[error("{0}")]
    Config(String),
    /// Binding an address failed.
    #[error("{key}: cannot listen on {address}")]
    Listen {
        /// The config key of the address.
        key: &'static str,
        /// The configured address.
        address: SocketAddr,
        /// The error of the operating system.
        source: std::io::Error,
    },
}

/// A running simulator; dropping it stops it.
pub struct Simulator {
    world: World,
    sms: Option<SocketAddr>,
    smtp: Option<SocketAddr>,
    tasks: JoinSet<()>,
}

impl Simulator {
    /// Listens on the addresses of `config`; port 0 picks a free port.
    pub async fn start(config: SimulatorConfig) -> Result<Self, SimulatorError> {
        let world = World::new(&config);
        let mut tasks = JoinSet::new();
        let mut addresses = [None, None];
        let listens = [
            config.sms.as_ref().map(|sms| sms.listen),
            config.smtp.as_ref().map(|smtp| smtp.listen),
        ];
        for (index, listen) in listens.into_iter().enumerate() {
            let Some(listen) = listen else { continue };
            let failed = |source| SimulatorError::Listen {
                key: ["sms.listen", "smtp.listen"][index],
                address: listen,
                source,
            };
            let listener = TcpListener::bind(listen).await.map_err(failed)?;
            addresses[index] = Some(listener.local_addr().map_err(failed)?);
            let world = world.clone();
            if index == 0 {
                tasks.spawn(gateway::serve(listener, world));
            } else {
                tasks.spawn(relay::serve(listener, world));
            }
        }
        Ok(Self {
            world,
            sms: addresses[0],
            smtp: addresses[1],
            tasks,
        })
    }

    /// Returns the gateway's listen address.
    pub const fn sms_address(&self) -> Option<SocketAddr> {
        self.sms
    }

    /// Returns the relay's listen address.
    pub const fn smtp_address(&self) -> Option<SocketAddr> {
        self.smtp
    }

    /// Changes the gateway's behavior from now on.
    pub fn set_sms(&self, behaviour: SmsBehaviour) {
        self.world.set_sms(behaviour);
    }

    /// Changes the relay's behavior from now on.
    pub fn set_smtp(&self, behaviour: SmtpBehaviour) {
        self.world.set_smtp(behaviour);
    }

    /// Returns the accepted messages, oldest first.
    pub fn messages(&self) -> Vec<SimulatedMessage> {
        self.world.messages(0)
    }

    /// Runs until the listeners end, which happens only when the simulator is dropped.
    pub async fn wait(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Runs the simulator configured by the file at `path`, or one that accepts everything, until
/// `stop` resolves.
pub async fn run(
    path: Option<&Path>,
    stop: impl Future<Output = ()>,
) -> Result<(), SimulatorError> {
    let config = path.map_or_else(|| Ok(SimulatorConfig::default()), read)?;
    let mut simulator = Simulator::start(config).await?;
    if let Some(address) = simulator.smtp {
        tracing::info!(%address, "the SMTP relay listens");
    }
    if let Some(address) = simulator.sms {
        tracing::info!(%address, "the SMS gateway listens: POST /messages");
        tracing::info!(
            "read the messages and their codes: curl -H 'Authorization: Bearer TOKEN' \
             http://{address}/control/messages, where TOKEN is sms.token (simulator unless the file sets it)"
        );
    }
    tokio::select! {
        () = stop => {}
        () = simulator.wait() => {}
    }
    Ok(())
}

fn read(path: &Path) -> Result<SimulatorConfig, SimulatorError> {
    let wrong = |problem: String| SimulatorError::Config(format!("{}{problem}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => wrong(
            " not found. 'watchword init DIR --with-simulator' writes one; without a file the simulator accepts \
             everything."
                .to_owned(),
        ),
        kind => wrong(format!(" cannot be read: {kind}")),
    })?;
    toml::from_str(&text).map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = text[..start].split('\n').count();
        let message = error.message().lines().next().unwrap_or_default();
        wrong(format!(", line {line}: {message}"))
    })
}
