//! A whole installation for fault injection: the peers, a proxy on every connection, the roles as
//! processes, and providers that record the messages they get. It runs one load at a time.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::certificate::{Authority, Flaw};
use super::disk::Disk;
use super::sentinel::Sentinels;
use super::strangers::Strangers;
use crate::load::{Load, Mailbox, SmsGateway, Target};
use crate::pipeline::KEY;
use crate::{Pipeline, RabbitMq, RedisServer, Settings, Sink, SteppedClock, TcpProxy};

/// Lifetime of the load's codes: the shortest a policy allows, so that deadlines matter.
pub const LIFETIME: Duration = Duration::from_secs(30);

/// The kind of an installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Five processes on `RabbitMQ` and Redis.
    Distributed,
    /// Distributed, with TLS on every connection.
    Tls,
    /// Distributed, with clocks that can be stepped.
    Clocks,
    /// Distributed, with the peers' files on a small disk.
    SmallDisk,
    /// Distributed, with a second relay that always works.
    TwoRelays,
    /// Distributed, on a primary, a replica and sentinels.
    Sentinel,
    /// A single process on a `SQLite` file on a small disk, with a clock that can be stepped.
    Embedded,
}

/// A connection through a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wire {
    /// Issuer to broker.
    IssuerBroker,
    /// SMS workers to broker.
    SmsBroker,
    /// Email worker to broker.
    EmailBroker,
    /// Issuer to store.
    IssuerStore,
    /// Verifier to store.
    VerifierStore,
    /// SMS workers to store.
    SmsStore,
    /// Email worker to store.
    EmailStore,
    /// SMS workers to gateway.
    Gateway,
    /// Email worker to relay.
    Relay,
}

impl Wire {
    /// All connections, in the order of the table.
    pub const ALL: [Self; 9] = [
        Self::IssuerBroker,
        Self::SmsBroker,
        Self::EmailBroker,
        Self::IssuerStore,
        Self::VerifierStore,
        Self::SmsStore,
        Self::EmailStore,
        Self::Gateway,
        Self::Relay,
    ];

    /// Returns the name in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IssuerBroker => "issuer-broker",
            Self::SmsBroker => "sms worker-broker",
            Self::EmailBroker => "email worker-broker",
            Self::IssuerStore => "issuer-store",
            Self::VerifierStore => "verifier-store",
            Self::SmsStore => "sms worker-store",
            Self::EmailStore => "email worker-store",
            Self::Gateway => "gateway",
            Self::Relay => "relay",
        }
    }

    const fn leads_to_broker(self) -> bool {
        matches!(
            self,
            Self::IssuerBroker | Self::SmsBroker | Self::EmailBroker
        )
    }
}

/// The processes of a distributed installation: name, role, connections to broker and store.
const ROLES: [(&str, &str, Wire, Wire); 5] = [
    ("issuer", "issuer", Wire::IssuerBroker, Wire::IssuerStore),
    (
        "verifier",
        "verifier",
        Wire::IssuerBroker,
        Wire::VerifierStore,
    ),
    ("sms-1", "sms-worker", Wire::SmsBroker, Wire::SmsStore),
    ("sms-2", "sms-worker", Wire::SmsBroker, Wire::SmsStore),
    (
        "email-1",
        "email-worker",
        Wire::EmailBroker,
        Wire::EmailStore,
    ),
];

/// A running installation.
pub struct Stand {
    /// The kind of the installation.
    pub kind: Kind,
    /// The messages that the providers got.
    pub mailbox: Arc<Mailbox>,
    /// The SMS gateway.
    pub gateway: SmsGateway,
    /// The SMTP relay.
    pub relay: Sink,
    /// The second relay, if the row has one.
    pub second: Sink,
    /// Requests of other people beside the load.
    pub strangers: Option<Strangers>,
    /// Number of the requests of other people.
    pub others: Arc<AtomicUsize>,
    /// The broker; `None` on the embedded engine.
    pub rabbitmq: Option<RabbitMq>,
    /// The store; `None` on the embedded engine and with sentinels.
    pub redis: Option<RedisServer>,
    /// The store with sentinels.
    pub sentinels: Option<Sentinels>,
    /// The proxies, by connection.
    pub wires: BTreeMap<Wire, TcpProxy>,
    /// The authority that signs the peers' certificates.
    pub authority: Authority,
    /// The processes of the product.
    pub pipeline: Pipeline,
    /// The small disk. The last field, so that it is unmounted after every process that uses it has
    /// been dropped.
    pub disk: Option<Disk>,
}

impl Stand {
    /// Starts peers, proxies and roles, and waits until all roles are ready.
    pub async fn start(kind: Kind) -> Self {
        crate::tls();
        let disk = matches!(kind, Kind::SmallDisk | Kind::Embedded).then(|| Disk::mount(256));
        let files = disk
            .as_ref()
            .map_or_else(std::env::temp_dir, |disk| disk.path().to_owned());
        let mailbox = Arc::<Mailbox>::default();
        let (gateway, relay, second) = (
            SmsGateway::start(mailbox.clone()).await,
            Sink::start().await,
            Sink::start().await,
        );
        relay.deliver_to(mailbox.clone());
        second.deliver_to(mailbox.clone());
        let rabbitmq = match kind {
            Kind::Embedded => None,
            _ => Some(RabbitMq::within(&files).await),
        };
        let redis = match kind {
            Kind::Embedded | Kind::Sentinel => None,
            _ => Some(RedisServer::within(&files, &["--appendonly", "yes"]).await),
        };
        let sentinels = match kind {
            Kind::Sentinel => Some(Sentinels::start().await),
            _ => None,
        };
        let authority = Authority::new();
        let mut wires = BTreeMap::new();
        for wire in Wire::ALL {
            let target = match wire {
                Wire::Gateway => Some(gateway.port()),
                Wire::Relay => Some(relay.port()),
                _ if wire.leads_to_broker() => rabbitmq.as_ref().map(RabbitMq::port),
                _ => redis.as_ref().map(RedisServer::port),
            };
            let Some(target) = target else { continue };
            let proxy = match kind {
                // The relay negotiates TLS itself, with STARTTLS.
                Kind::Tls if wire != Wire::Relay => {
                    TcpProxy::start_tls(target, authority.server(Flaw::None)).await
                }
                _ => TcpProxy::start(target).await,
            };
            wires.insert(wire, proxy);
        }
        if kind == Kind::Tls {
            relay.offer_starttls(authority.server(Flaw::None));
        }
        let pipeline = configure(kind, &wires, &authority, disk.as_ref(), second.port());
        let mut stand = Self {
            kind,
            mailbox,
            gateway,
            relay,
            second,
            strangers: None,
            others: Arc::default(),
            rabbitmq,
            redis,
            sentinels,
            wires,
            authority,
            pipeline,
            disk,
        };
        for name in stand.names() {
            stand.launch(name, None);
        }
        for name in stand.names() {
            stand.pipeline.ready(name).await;
        }
        stand
    }

    /// Returns the names of the processes.
    pub fn names(&self) -> Vec<&'static str> {
        match self.kind {
            Kind::Embedded => vec!["all"],
            _ => ROLES.iter().map(|(name, ..)| *name).collect(),
        }
    }

    /// Starts the process `name`, optionally with an armed failpoint.
    pub fn launch(&mut self, name: &'static str, failpoint: Option<String>) {
        let mut variables = self.clock_variables(name);
        let mut roles = Vec::new();
        if let Some((_, role, broker, store)) = ROLES.iter().find(|(other, ..)| *other == name) {
            roles.push(*role);
            variables.extend(self.peers(*broker, *store));
        }
        variables.extend(failpoint.map(|point| ("WATCHWORD_FAILPOINT".to_owned(), point)));
        self.pipeline
            .own_variables
            .insert(name.to_owned(), variables);
        self.pipeline.launch(name, &roles);
    }

    fn peers(&self, broker: Wire, store: Wire) -> Vec<(String, String)> {
        let tls = if self.kind == Kind::Tls { "s" } else { "" };
        let broker = self.wires[&broker].port();
        let store = match &self.sentinels {
            Some(sentinels) => sentinels.url(),
            None => format!("redis{}://127.0.0.1:{}/0", tls, self.wires[&store].port()),
        };
        let (user, password) = (crate::rabbitmq::USER, crate::rabbitmq::PASSWORD);
        let broker = format!("amqp{tls}://{user}:{password}@127.0.0.1:{broker}/%2f");
        vec![
            ("WATCHWORD_RABBITMQ__URL".to_owned(), broker),
            ("WATCHWORD_REDIS__URL".to_owned(), store),
        ]
    }

    fn clock_variables(&self, name: &str) -> Vec<(String, String)> {
        if matches!(self.kind, Kind::Clocks | Kind::Embedded) {
            self.clock(name).variables()
        } else {
            Vec::new()
        }
    }

    fn clock(&self, name: &str) -> SteppedClock {
        SteppedClock::of(self.pipeline.folder(), name)
    }

    /// Sets the clock of `name` off by so many seconds. The process notices it within a second.
    pub fn step(&self, name: &str, seconds: i64) {
        self.clock(name).step(seconds);
    }

    /// Returns the environment variables with which an operator's command finds the peers.
    pub fn operator(&self) -> Vec<(String, String)> {
        match self.kind {
            Kind::Embedded => Vec::new(),
            _ => self.peers(Wire::IssuerBroker, Wire::IssuerStore),
        }
    }

    /// Starts a load of `per_second` verifications.
    pub fn load(&mut self, per_second: u32) -> Load {
        let target = self.target();
        let has_slow_typists = self.kind == Kind::Sentinel;
        let mailbox = self.mailbox.clone();
        self.others = Arc::default();
        let load = Load::start(target, mailbox, per_second, LIFETIME, has_slow_typists);
        load.beside(self.others.clone())
    }

    /// Returns the addresses and the key that a load uses.
    pub fn target(&mut self) -> Target {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let (issuer, verifier) = match self.kind {
            Kind::Embedded => ("all", "all"),
            _ => ("issuer", "verifier"),
        };
        Target {
            issuer: url(self.pipeline.ports(issuer).0),
            verifier: url(self.pipeline.ports(verifier).0),
            key: KEY.to_owned(),
        }
    }

    /// Returns the process ids by name; `None` for a process that has ended.
    pub fn running(&mut self) -> BTreeMap<String, Option<u32>> {
        let processes = self.pipeline.processes.iter_mut();
        processes
            .map(|(name, role)| {
                let id = role.process.id();
                (name.clone(), role.process.ended().is_none().then_some(id))
            })
            .collect()
    }
}

fn configure(
    kind: Kind,
    wires: &BTreeMap<Wire, TcpProxy>,
    authority: &Authority,
    disk: Option<&Disk>,
    second: u16,
) -> Pipeline {
    let (gateway, relay) = (wires[&Wire::Gateway].port(), wires[&Wire::Relay].port());
    let mut settings = match (kind, disk) {
        (Kind::Embedded, Some(disk)) => Settings {
            engine: format!(
                "engine = \"embedded\"\n[embedded]\npath = \"{}/watchword.db\"\n",
                disk.path().display()
            ),
            level: "info".into(),
            ..Settings::default()
        },
        // The processes get the real URLs from their environment; see [`Stand::launch`].
        _ => Settings::distributed("amqp://replaced", "redis://replaced"),
    };
    let (scheme, tls) = match kind {
        Kind::Tls => ("https", "starttls"),
        _ => ("http", "none"),
    };
    let ca = match kind {
        Kind::Tls => "ca_file = \"FOLDER/ca.pem\"\n",
        _ => "",
    };
    settings.providers = format!(
        r#"
[sms.providers.gateway]
kind = "http"
sender = "Test"
timeout_seconds = 3
[sms.providers.gateway.request]
method = "POST"
url = "{scheme}://127.0.0.1:{gateway}/messages"
json = {{ to = "{{to}}", text = "{{text}}", reference = "{{message_id}}" }}
[sms.providers.gateway.response]
id = {{ json = "/id" }}
rules = [
  {{ status = ["202"], class = "accepted" }},
  {{ json = {{ "/error" = ["busy"] }}, class = "transient" }},
]
[email.providers.relay]
kind = "smtp"
host = "127.0.0.1"
port = {relay}
tls = "{tls}"
{ca}timeout_seconds = 5
from = "Test <no-reply@mail.example.org>"
"#
    );
    if kind == Kind::TwoRelays {
        let both = format!(
            r#"
[email.providers.second]
kind = "smtp"
host = "127.0.0.1"
port = {second}
tls = "none"
timeout_seconds = 5
from = "Test <no-reply@mail.example.org>"
[[email.routes]]
providers = ["relay", "second"]
"#
        );
        settings.providers = [settings.providers, both].concat();
    }
    settings.service = format!(
        "[services.test.limits]\nservice_per_minute = 100000\n[services.test.policy]\nlifetime_seconds = {}\n",
        LIFETIME.as_secs()
    );
    let mut pipeline = Pipeline::configure(&settings);
    if kind == Kind::Tls {
        let path = pipeline.folder().join("ca.pem");
        fs::write(&path, authority.pem()).expect("a file");
        let path = path.display().to_string();
        pipeline.variables.push(("SSL_CERT_FILE".into(), path));
    }
    pipeline
}
