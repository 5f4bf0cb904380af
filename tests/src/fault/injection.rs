//! The faults that can be injected into an installation, and how each is undone. Signals go only to
//! processes that the installation started.

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

/// A fault of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing passes, nothing is lost.
    Paused,
    /// Delays each chunk by so many milliseconds, in both directions.
    Slow(u64),
    /// Open connections are cut and new ones are refused.
    Cut,
    /// Bytes from the client vanish. The connection is cut when the fault ends.
    MuteForth,
    /// Bytes from the server vanish, although it processed the request. The connection is cut when
    /// the fault ends.
    MuteBack,
}

/// The behavior of a relay at an SMTP verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelayTrouble {
    /// Sends nothing more and leaves the connection open.
    Hangs,
    /// Sends this reply.
    Says(&'static str),
    /// Closes the connection.
    Cuts,
    /// Accepts the mail and closes the connection without a reply.
    CutsAfterAccept,
}

/// A fault to inject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Kills a role; starts it again at the end.
    Kill(&'static str),
    /// Suspends a role (SIGSTOP).
    Stop(&'static str),
    /// A role dies when it passes a failpoint for the n-th time.
    Die(&'static str, Point, u32),
    /// Kills the broker; starts it again at the end.
    BrokerKilled,
    /// Suspends the broker.
    BrokerStopped,
    /// Raises the broker's memory alarm.
    MemoryAlarm,
    /// Raises the broker's disk alarm.
    DiskAlarm,
    /// The SMS and email queues refuse every message (`max-length` 0).
    QueuesFull,
    /// Deletes the bindings of the SMS and email queues. The product restores them.
    QueuesUnbound,
    /// Revokes the permissions of the broker's user.
    RightsLost,
    /// Kills the store; starts it again on its append-only file.
    StoreKilled,
    /// Suspends the store.
    StoreStopped,
    /// The store is out of memory.
    StoreFull,
    /// Makes the store a replica of a server that does not exist, so it is read-only.
    StoreReadOnly,
    /// The store forgets all scripts (`SCRIPT FLUSH`).
    ScriptsForgotten,
    /// Kills the store's primary for good; the sentinels promote the replica.
    Failover,
    /// The same with a replica that was disconnected for three seconds: the writes of these seconds
    /// are lost.
    FailoverBehind,
    /// Interferes with one connection.
    Wire(Wire, Trouble),
    /// Changes how the gateway answers.
    Gateway(Temper),
    /// Changes the relay's behavior at a verb.
    Relay(&'static str, RelayTrouble),
    /// Adds four requests a second for a destination that the provider refuses.
    Refused(Destination),
    /// Removes STARTTLS from the relay's greeting.
    StarttlsHidden,
    /// Every peer presents a certificate with this flaw.
    Certificates(Flaw),
    /// Sets the clock of a process off by so many seconds.
    Clock(&'static str, i64),
    /// Lowers the file descriptor limit of a role to the number it has open.
    Descriptors(&'static str),
    /// Fills the small disk.
    DiskFull,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Fault {
    /// Prepares the fault before the load begins.
    pub async fn prepare(self, stand: &mut Stand) {
        if let Self::Die(name, point, times) = self {
            kill(stand, name);
            stand.launch(name, Some(format!("{}:{times}", point.as_str())));
            stand.pipeline.ready(name).await;
        }
    }

    /// Injects the fault.
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
                // The primary rejects a replica that authenticates with a password it does not
                // have, so the replica cannot reconnect.
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

    /// Undoes the fault. The peer is back when this returns.
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
            // The product or the sentinels recover from these by themselves.
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

    /// Returns the role that runs as another process afterwards.
    pub const fn restarts(self) -> Option<&'static str> {
        match self {
            Self::Kill(name) | Self::Die(name, ..) => Some(name),
            _ => None,
        }
    }

    /// Whether the fault is over as soon as it has begun. Only messages in flight at that moment
    /// can then be repeated.
    pub const fn is_instant(self) -> bool {
        matches!(self, Self::Kill(_) | Self::Die(..))
    }

    /// Returns the target of the fault. Two faults of one target cannot be active at once.
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

/// Sends SIGKILL unless the process has ended already; by then its id may belong to another
/// process.
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
    // The role dies when enough messages have reached it. The broker decides how many it gets, so
    // the wait is generous.
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
    // A stream that has lost bytes is useless to both sides.
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

/// Replaces the certificates and cuts all connections, because a certificate is checked only during
/// the handshake.
fn show(stand: &Stand, flaw: Flaw) {
    for (wire, proxy) in &stand.wires {
        if *wire != Wire::Relay {
            proxy.show(stand.authority.server(flaw));
        }
        proxy.cut();
    }
    stand.relay.offer_starttls(stand.authority.server(flaw));
}

/// Lowers the descriptor limit to the number in use, or restores it.
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
    /// Returns the broker of an installation that has one.
    pub fn broker(&mut self) -> &mut crate::RabbitMq {
        self.rabbitmq.as_mut().expect("a broker")
    }

    /// Returns the store of an installation that has one.
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

    /// Restarts a peer that gave up on a full disk, as its operator would.
    async fn revive_peers(&mut self) {
        if self.kind == Kind::Embedded {
            return;
        }
        // The broker's log and queues may have given up on the full disk while the broker itself
        // keeps running and reports nothing. An operator restarts it then.
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
