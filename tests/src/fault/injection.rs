//! What can be done to an installation, and how it is undone. Signals go to process ids that the
//! stand started.

use std::fmt;
use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use watchword_failpoint::Point;

use super::certificate::Flaw;
use super::stand::{Kind, Stand, Wire};
use super::strangers::{Destination, Strangers};
use crate::load::Temper;
use crate::proxy::Flow;
use crate::rabbitmq::USER;
use crate::sink::Script;
use crate::wait::until;
use tokio::task::block_in_place;
use tokio::time::sleep;

/// What a wire suffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing passes, nothing is lost.
    Paused,
    /// Every piece takes so many milliseconds more, each way.
    Slow(u64),
    /// Connections are cut and refused.
    Cut,
    /// What the client says vanishes; at the end the connection is cut.
    MuteForth,
    /// What the server says vanishes, though it did what it was told; at the end it is cut.
    MuteBack,
}

/// What a relay does at a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayTrouble {
    /// Says nothing any more.
    Hangs,
    /// Says this.
    Says(&'static str),
    /// Closes the connection.
    Cuts,
    /// Keeps the mail and closes the connection.
    CutsAfterAccept,
}

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A role is killed and, at the end, started again.
    Kill(&'static str),
    /// A role stands still.
    Stop(&'static str),
    /// A role dies when it comes to a place for the n-th time.
    Die(&'static str, Point, u32),
    /// The broker is killed and started again.
    BrokerKilled,
    /// The broker stands still.
    BrokerStopped,
    /// The broker is short of memory.
    MemoryAlarm,
    /// The broker is short of disk.
    DiskAlarm,
    /// The queues take no more.
    QueuesFull,
    /// The queues are fed no more.
    QueuesUnbound,
    /// The broker's user lost its rights.
    RightsLost,
    /// The store is killed and started again on its file.
    StoreKilled,
    /// The store stands still.
    StoreStopped,
    /// The store is out of memory.
    StoreFull,
    /// The store is read-only.
    StoreReadOnly,
    /// The store forgot all scripts.
    ScriptsForgotten,
    /// The store's primary is killed for good; sentinels put the replica in its place.
    Failover,
    /// The same with a replica that was cut off three seconds before: what was written since is gone.
    FailoverBehind,
    /// A wire is in trouble.
    Wire(Wire, Trouble),
    /// The gateway has another temper.
    Gateway(Temper),
    /// The relay misbehaves at a verb.
    Relay(&'static str, RelayTrouble),
    /// Four requests a second for a destination that the provider refuses.
    Refused(Destination),
    /// STARTTLS is taken out of the relay's greeting.
    StarttlsHidden,
    /// Every peer shows a certificate with this flaw.
    Certificates(Flaw),
    /// A clock is so many seconds off; `redis` is the store's.
    Clock(&'static str, i64),
    /// A role has no file descriptor left.
    Descriptors(&'static str),
    /// The small disk is full.
    DiskFull,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Fault {
    /// Before the load begins.
    pub async fn prepare(self, stand: &mut Stand) {
        if let Self::Die(name, point, times) = self {
            kill(stand, name);
            stand.launch(name, Some(format!("{}:{times}", point.as_str())));
            stand.pipeline.ready(name).await;
        }
    }

    /// Begins.
    pub async fn begin(self, stand: &mut Stand) {
        match self {
            Self::Kill(name) => kill(stand, name),
            Self::Stop(name) => stand.pipeline.processes[name].process.signal("STOP"),
            Self::Die(name, point, _) => died(stand, name, point).await,
            Self::BrokerKilled => block_in_place(|| stand.broker().kill()),
            Self::BrokerStopped => stand.broker().pause(true),
            Self::MemoryAlarm => block_in_place(|| stand.broker().memory_alarm(true)),
            Self::DiskAlarm => block_in_place(|| stand.broker().disk_alarm(true)),
            Self::QueuesFull => {
                let body = json!({
                    "pattern": "^watchword\\.(sms|email)$", "apply-to": "queues",
                    "definition": { "max-length": 0 },
                });
                stand
                    .manage(Method::PUT, "policies/%2f/full", Some(body))
                    .await;
            }
            Self::QueuesUnbound => {
                for channel in ["sms", "email"] {
                    let path =
                        format!("bindings/%2f/e/watchword.send/q/watchword.{channel}/{channel}");
                    stand.manage(Method::DELETE, &path, None).await;
                }
            }
            Self::RightsLost => {
                stand
                    .manage(Method::DELETE, &format!("permissions/%2f/{USER}"), None)
                    .await;
                for wire in [Wire::IssuerBroker, Wire::SmsBroker, Wire::EmailBroker] {
                    stand.wires[&wire].cut();
                }
            }
            Self::StoreKilled => stand.store().kill(),
            Self::StoreStopped => stand.store().pause(true),
            Self::StoreFull => {
                stand
                    .tell_store(&["CONFIG", "SET", "maxmemory", "1mb"])
                    .await;
            }
            Self::StoreReadOnly => stand.tell_store(&["REPLICAOF", "127.0.0.1", "1"]).await,
            Self::ScriptsForgotten => stand.tell_store(&["SCRIPT", "FLUSH"]).await,
            Self::Failover => stand.sentinels.as_mut().expect("sentinels").primary.kill(),
            Self::FailoverBehind => {
                let sentinels = stand.sentinels.as_mut().expect("sentinels");
                let replica = &sentinels.replica;
                // A password that the primary does not want keeps it from coming back.
                replica.command(&["CONFIG", "SET", "masterauth", "x"]).await;
                replica.command(&["CLIENT", "KILL", "TYPE", "master"]).await;
                sleep(Duration::from_secs(3)).await;
                sentinels.primary.kill();
                let replica = &sentinels.replica;
                replica.command(&["CONFIG", "SET", "masterauth", ""]).await;
            }
            Self::Wire(wire, trouble) => interfere(stand, wire, Some(trouble)),
            Self::Gateway(temper) => stand.gateway.set(temper),
            Self::Relay(verb, trouble) => stand.relay.habit(verb, Some(script(trouble))),
            Self::Refused(destination) => Strangers::begin(stand, destination),
            Self::StarttlsHidden => stand.relay.hide_starttls(true),
            Self::Certificates(flaw) => show(stand, flaw),
            Self::Clock(name, seconds) => stand.step(name, seconds),
            Self::Descriptors(name) => descriptors(stand, name, true),
            Self::DiskFull => block_in_place(|| stand.disk.as_ref().expect("a small disk").fill()),
        }
    }

    /// Ends: the peer is back when this returns.
    pub async fn end(self, stand: &mut Stand) {
        match self {
            Self::Kill(name) | Self::Die(name, ..) => {
                stand.launch(name, None);
                stand.pipeline.ready(name).await;
            }
            Self::Stop(name) => stand.pipeline.processes[name].process.signal("CONT"),
            Self::BrokerKilled => stand.broker().launch().await,
            Self::BrokerStopped => stand.broker().pause(false),
            Self::MemoryAlarm => block_in_place(|| stand.broker().memory_alarm(false)),
            Self::DiskAlarm => block_in_place(|| stand.broker().disk_alarm(false)),
            Self::QueuesFull => {
                stand
                    .manage(Method::DELETE, "policies/%2f/full", None)
                    .await;
            }
            // It is mended by whoever finds it.
            Self::QueuesUnbound
            | Self::ScriptsForgotten
            | Self::Failover
            | Self::FailoverBehind => {}
            Self::RightsLost => {
                let body = json!({ "configure": ".*", "write": ".*", "read": ".*" });
                stand
                    .manage(Method::PUT, &format!("permissions/%2f/{USER}"), Some(body))
                    .await;
            }
            Self::StoreKilled => stand.store().launch().await,
            Self::StoreStopped => stand.store().pause(false),
            Self::StoreFull => stand.tell_store(&["CONFIG", "SET", "maxmemory", "0"]).await,
            Self::StoreReadOnly => stand.tell_store(&["REPLICAOF", "NO", "ONE"]).await,
            Self::Wire(wire, _) => interfere(stand, wire, None),
            Self::Gateway(_) => stand.gateway.set(Temper::Sound),
            Self::Relay(verb, _) => stand.relay.habit(verb, None),
            Self::Refused(_) => Strangers::end(stand),
            Self::StarttlsHidden => stand.relay.hide_starttls(false),
            Self::Certificates(_) => show(stand, Flaw::None),
            Self::Clock(name, _) => stand.step(name, 0),
            Self::Descriptors(name) => descriptors(stand, name, false),
            Self::DiskFull => {
                stand.disk.as_ref().expect("a small disk").free();
                stand.revive_peers().await;
            }
        }
    }

    /// The role that is expected to have another process afterwards.
    pub const fn restarts(self) -> Option<&'static str> {
        match self {
            Self::Kill(name) | Self::Die(name, ..) => Some(name),
            _ => None,
        }
    }

    /// Whether it is over as soon as it has begun: what was on its way then is all it can repeat.
    pub const fn is_instant(self) -> bool {
        matches!(self, Self::Kill(_) | Self::Die(..))
    }

    /// Two faults of one target cannot be there at once.
    pub fn target(self) -> String {
        match self {
            Self::Kill(name) | Self::Stop(name) | Self::Die(name, ..) | Self::Descriptors(name) => {
                name.to_owned()
            }
            Self::Clock(name, _) => format!("clock {name}"),
            Self::BrokerKilled
            | Self::BrokerStopped
            | Self::MemoryAlarm
            | Self::DiskAlarm
            | Self::QueuesFull
            | Self::QueuesUnbound
            | Self::RightsLost => "broker".to_owned(),
            Self::StoreKilled
            | Self::StoreStopped
            | Self::StoreFull
            | Self::StoreReadOnly
            | Self::ScriptsForgotten
            | Self::Failover
            | Self::FailoverBehind => "store".to_owned(),
            Self::Wire(wire, _) => wire.name().to_owned(),
            Self::Gateway(_) => "gateway's temper".to_owned(),
            Self::Relay(..) | Self::StarttlsHidden => "relay's temper".to_owned(),
            Self::Refused(_) => "strangers".to_owned(),
            Self::Certificates(_) => "certificates".to_owned(),
            Self::DiskFull => "disk".to_owned(),
        }
    }
}

/// SIGKILL, unless it has died already: its number may be another's by then.
pub(super) fn kill(stand: &mut Stand, name: &str) {
    let role = stand.pipeline.processes.get_mut(name).expect("a role");
    if role.process.ended().is_some() {
        return;
    }
    role.process.signal("KILL");
    block_in_place(|| role.process.wait(10));
}

async fn died(stand: &mut Stand, name: &str, point: Point) {
    let role = stand.pipeline.processes.get_mut(name).expect("a role");
    let process = std::sync::Mutex::new(&mut role.process);
    let what = format!("{name} dies at {}", point.as_str());
    // As long as it takes its share of the load to bring it there; which share is the broker's affair.
    until(60, &what, || async {
        process.lock().expect("a process").ended().map(|_| ())
    })
    .await;
}

fn interfere(stand: &Stand, wire: Wire, trouble: Option<Trouble>) {
    let proxy = &stand.wires[&wire];
    let flows = match trouble {
        None | Some(Trouble::Cut) => (Flow::Free, Flow::Free),
        Some(Trouble::Paused) => (Flow::Held, Flow::Held),
        Some(Trouble::Slow(delay_ms)) => (Flow::Slow(delay_ms), Flow::Slow(delay_ms)),
        Some(Trouble::MuteForth) => (Flow::Swallowed, Flow::Free),
        Some(Trouble::MuteBack) => (Flow::Free, Flow::Swallowed),
    };
    let mut swallowed = false;
    proxy.set(|weather| {
        swallowed = [weather.forth, weather.back].contains(&Flow::Swallowed);
        (weather.forth, weather.back) = flows;
        weather.refuses = trouble == Some(Trouble::Cut);
    });
    // A stream with a hole in it is of no use.
    if trouble == Some(Trouble::Cut) || swallowed {
        proxy.cut();
    }
}

const fn script(trouble: RelayTrouble) -> Script {
    match trouble {
        RelayTrouble::Hangs => Script::Hang,
        RelayTrouble::Says(line) => Script::Reply(line),
        RelayTrouble::Cuts => Script::Cut,
        RelayTrouble::CutsAfterAccept => Script::CutAfterAccept,
    }
}

/// Certificates count when a connection begins: all are begun anew.
fn show(stand: &Stand, flaw: Flaw) {
    for (wire, proxy) in &stand.wires {
        if *wire != Wire::Relay {
            proxy.show(stand.authority.server(flaw));
        }
        proxy.cut();
    }
    stand.relay.offer_starttls(stand.authority.server(flaw));
}

/// Takes away what is not in use, or gives all back.
fn descriptors(stand: &Stand, name: &str, exhausted: bool) {
    let id = stand.pipeline.processes[name].process.id();
    let used = std::fs::read_dir(format!("/proc/{id}/fd")).map_or(0, Iterator::count);
    let limit = if exhausted { used } else { 1_024 };
    let status = Command::new("prlimit")
        .args(["--pid", &id.to_string(), &format!("--nofile={limit}:")])
        .status();
    assert!(status.is_ok_and(|status| status.success()), "prlimit");
}

impl Stand {
    /// The broker of a stand that has one.
    pub fn broker(&mut self) -> &mut crate::RabbitMq {
        self.rabbitmq.as_mut().expect("a broker")
    }

    /// The store of a stand that has one.
    pub fn store(&mut self) -> &mut crate::RedisServer {
        self.redis.as_mut().expect("a store")
    }

    async fn manage(&self, method: Method, path: &str, body: Option<serde_json::Value>) {
        let broker = self.rabbitmq.as_ref().expect("a broker");
        let done = broker.call(method.clone(), path, body).await;
        assert!(done.is_some(), "{method} {path}");
    }

    async fn tell_store(&self, words: &[&str]) {
        let reply = self.redis.as_ref().expect("a store").command(words).await;
        assert!(!reply.starts_with('-'), "{words:?}: {reply}");
    }

    fn broker_has_ended(&mut self) -> bool {
        self.rabbitmq
            .as_mut()
            .is_some_and(crate::RabbitMq::has_ended)
    }

    /// A peer that gave up on a full disk is started again, as its operator would.
    async fn revive_peers(&mut self) {
        if self.kind == Kind::Embedded {
            return;
        }
        // Its log may have given up on the full disk, and its queues with it, while the broker
        // itself goes on and says nothing of it: so its operator starts it again.
        if !self.broker_has_ended() {
            block_in_place(|| self.broker().kill());
        }
        self.broker().launch().await;
        if self
            .redis
            .as_mut()
            .is_some_and(crate::RedisServer::has_ended)
        {
            self.store().launch().await;
        }
    }
}
