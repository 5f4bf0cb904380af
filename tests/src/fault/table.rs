//! The rows of the fault table, and the faults that cannot be injected here.

use std::time::Duration;

use watchword_failpoint::Point;

use super::certificate::Flaw;
use super::injection::{Fault, RelayTrouble, Trouble};
use super::row::{Report, Row};
use super::stand::{Kind, Wire};
use super::strangers::Destination;
use crate::load::Temper;

/// How long faults last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Some seconds each; the whole table takes about ten minutes.
    Quick,
    /// Longer than heartbeats, leases and the first backoff of a circuit breaker.
    Full,
}

/// Faults that the table does not cover, and why.
pub const NOT_SHOWN: [&str; 7] = [
    "power loss of the store, which loses its last second of writes: a killed process loses nothing that it has written",
    "a broker cluster that loses its majority: the table has one node; `tests/tests/engines/cluster.rs` kills a node of each cluster",
    "DNS faults: every peer is addressed by IP here",
    "packet loss, reordering and corruption: the kernel here has no netem; a proxy delays, swallows and cuts streams",
    "a step of the broker's clock: its runtime corrects for steps, and its timers are monotonic",
    "a network that delivers data after the sender gave up: Watchword stops before the deadline, but data held elsewhere may arrive later",
    "a queue deleted with messages in it: they are gone, and `watchword audit` names them",
];

impl Pace {
    const fn seconds(self, quick: u64, full: u64) -> Duration {
        Duration::from_secs(match self {
            Self::Quick => quick,
            Self::Full => full,
        })
    }
}

/// A part of the table and the function that adds its rows.
type Group = (&'static str, fn(&mut Vec<Row>, Pace));

const GROUPS: [Group; 8] = [
    ("roles killed, stopped, starved", roles),
    ("death at each failpoint", places),
    ("broker", broker),
    ("store", store),
    ("connections", wires),
    ("providers", providers),
    ("certificates, clocks, disk", others),
    ("embedded engine", embedded),
];

/// Returns all rows with the durations of `pace`.
pub fn rows(pace: Pace) -> Vec<Row> {
    let mut rows = Vec::new();
    for (group, add) in GROUPS {
        let first = rows.len();
        add(&mut rows, pace);
        for row in &mut rows[first..] {
            row.group = group;
        }
    }
    rows
}

fn row(name: impl Into<String>, kind: Kind, faults: Vec<Fault>, lasts: Duration) -> Row {
    Row {
        group: "",
        name: name.into(),
        kind,
        faults,
        lasts,
        is_harmless: false,
    }
}

/// Builds a row whose fault must not affect the load.
fn harmless(name: impl Into<String>, kind: Kind, fault: Fault, lasts: Duration) -> Row {
    Row {
        is_harmless: true,
        ..row(name, kind, vec![fault], lasts)
    }
}

const NAMES: [&str; 4] = ["issuer", "verifier", "sms-1", "email-1"];

fn roles(rows: &mut Vec<Row>, pace: Pace) {
    for name in NAMES {
        let kind = Kind::Distributed;
        let killed = vec![Fault::Kill(name)];
        rows.push(row(
            format!("kill -9 {name}"),
            kind,
            killed,
            pace.seconds(2, 10),
        ));
        let stopped = vec![Fault::Stop(name)];
        rows.push(row(
            format!("SIGSTOP {name}"),
            kind,
            stopped,
            pace.seconds(5, 60),
        ));
        let starved = vec![Fault::Descriptors(name)];
        rows.push(row(
            format!("no file descriptors {name}"),
            kind,
            starved,
            pace.seconds(4, 20),
        ));
    }
    // All workers stop until the deadline of every queued order has passed.
    let workers = ["sms-1", "sms-2", "email-1"];
    let stopped: Vec<_> = workers.into_iter().map(Fault::Stop).collect();
    rows.push(row(
        "SIGSTOP all workers past the deadline",
        Kind::Distributed,
        stopped.clone(),
        Duration::from_secs(32),
    ));
    // Orders that wait for a retry expire while every worker is stopped.
    let mut refused = vec![
        Fault::Gateway(Temper::Fails(503)),
        Fault::Relay("MAIL", RelayTrouble::Says("451 4.3.0 later")),
    ];
    refused.extend(stopped);
    rows.push(row(
        "503, then SIGSTOP past the deadline",
        Kind::Distributed,
        refused,
        Duration::from_secs(32),
    ));
}

/// Adds a row for each failpoint and each role that passes it.
fn places(rows: &mut Vec<Row>, pace: Pace) {
    for point in Point::ALL {
        let names: &[&str] = match point {
            Point::IssuerOpened
            | Point::IssuerReserved
            | Point::IssuerPublished
            | Point::IssuerMarked => &["issuer"],
            Point::VerifierChecked => &["verifier"],
            Point::DeliveryTaken
            | Point::DeliveryClaimed
            | Point::DeliveryAttempted
            | Point::DeliveryRecorded
            | Point::DeliveryReported
            | Point::BrokerMoved => &["sms-1", "email-1"],
            Point::StorageWritten | Point::StorageCommitted => &[],
        };
        for name in names {
            let mut faults = Vec::new();
            if point == Point::BrokerMoved {
                // A message is moved to a wait queue only for a retry, so the providers must fail.
                faults.push(Fault::Gateway(Temper::Fails(503)));
                faults.push(Fault::Relay("MAIL", RelayTrouble::Says("451 4.3.0 later")));
            }
            faults.push(Fault::Die(name, point, 20));
            rows.push(row(
                format!("{name} dies at {}", point.as_str()),
                Kind::Distributed,
                faults,
                pace.seconds(1, 5),
            ));
        }
    }
}

fn broker(rows: &mut Vec<Row>, pace: Pace) {
    let kind = Kind::Distributed;
    let one = |fault| vec![fault];
    let table = [
        ("broker kill -9", Fault::BrokerKilled, 1, 5),
        ("broker SIGSTOP", Fault::BrokerStopped, 6, 60),
        ("broker memory alarm", Fault::MemoryAlarm, 4, 40),
        ("broker disk alarm", Fault::DiskAlarm, 4, 40),
        ("broker queues full", Fault::QueuesFull, 4, 20),
        ("broker queues unbound", Fault::QueuesUnbound, 2, 5),
        ("broker user without rights", Fault::RightsLost, 4, 20),
    ];
    for (name, fault, quick, full) in table {
        rows.push(row(name, kind, one(fault), pace.seconds(quick, full)));
    }
    if pace == Pace::Full {
        // Longer than the eleven minutes for which the AMQP client library itself would retry.
        rows.push(row(
            "broker away for 12 minutes",
            kind,
            one(Fault::BrokerKilled),
            Duration::from_secs(720),
        ));
    }
}

fn store(rows: &mut Vec<Row>, pace: Pace) {
    let kind = Kind::Distributed;
    let table = [
        ("store kill -9, AOF everysec", Fault::StoreKilled, 2, 10),
        ("store SIGSTOP", Fault::StoreStopped, 5, 30),
        ("store out of memory", Fault::StoreFull, 3, 20),
        ("store read-only", Fault::StoreReadOnly, 3, 20),
        ("store SCRIPT FLUSH", Fault::ScriptsForgotten, 1, 1),
    ];
    for (name, fault, quick, full) in table {
        rows.push(row(name, kind, vec![fault], pace.seconds(quick, full)));
    }
    for (name, fault) in [
        ("store Sentinel failover", Fault::Failover),
        (
            "store Sentinel failover, replica 3 s behind",
            Fault::FailoverBehind,
        ),
    ] {
        rows.push(row(name, Kind::Sentinel, vec![fault], pace.seconds(8, 12)));
    }
}

fn wires(rows: &mut Vec<Row>, pace: Pace) {
    let troubles = [
        ("paused", Trouble::Paused),
        ("200 ms slower", Trouble::Slow(200)),
        ("cut", Trouble::Cut),
        ("mute to the peer", Trouble::MuteForth),
        ("mute from the peer", Trouble::MuteBack),
    ];
    for wire in Wire::ALL {
        for (how, trouble) in troubles {
            rows.push(row(
                format!("{} {how}", wire.name()),
                Kind::Distributed,
                vec![Fault::Wire(wire, trouble)],
                pace.seconds(3, 30),
            ));
        }
    }
}

fn providers(rows: &mut Vec<Row>, pace: Pace) {
    let kind = Kind::Distributed;
    let lasts = pace.seconds(3, 30);
    let tempers = [
        ("hangs", Temper::Hangs),
        ("429, Retry-After 2", Temper::Throttles(2)),
        ("500", Temper::Fails(500)),
        ("503", Temper::Fails(503)),
        ("redirects", Temper::Redirects),
        ("cuts after accept", Temper::CutsAfterAccept),
        ("accepts and mumbles", Temper::Mumbles),
        ("200 with an error", Temper::LiesInTheStatus),
        ("answers a byte a second", Temper::Drips),
    ];
    for (how, temper) in tempers {
        let faults = vec![Fault::Gateway(temper)];
        rows.push(row(format!("gateway {how}"), kind, faults, lasts));
    }
    for verb in ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "."] {
        let name = if verb == "." { "the final dot" } else { verb };
        let faults = vec![Fault::Relay(verb, RelayTrouble::Hangs)];
        rows.push(row(format!("relay hangs at {name}"), kind, faults, lasts));
    }
    let replies = [
        (
            "relay 421 at CONNECT",
            "CONNECT",
            RelayTrouble::Says("421 4.3.2 closing"),
        ),
        (
            "relay 450 at RCPT",
            "RCPT",
            RelayTrouble::Says("450 4.2.0 later"),
        ),
        (
            "relay 554 after DATA",
            ".",
            RelayTrouble::Says("554 5.6.0 refused"),
        ),
        ("relay cuts in DATA", "DATA", RelayTrouble::Cuts),
        (
            "relay cuts after accept",
            ".",
            RelayTrouble::CutsAfterAccept,
        ),
    ];
    for (name, verb, trouble) in replies {
        rows.push(row(name, kind, vec![Fault::Relay(verb, trouble)], lasts));
    }
    let refused = [
        ("gateway refuses one country with 403", Destination::Country),
        (
            "relay refuses one domain with 550 5.7.1",
            Destination::Domain("550 5.7.1 not here"),
        ),
    ];
    let lasts_long = pace.seconds(10, 60);
    for (name, destination) in refused {
        let fault = Fault::Refused(destination);
        rows.push(harmless(name, kind, fault, lasts_long));
    }
    let refuses_us = [
        ("our HELO", "RCPT", "504 5.5.2 Helo rejected"),
        ("our sender", "RCPT", "550 5.1.8 sender's domain not found"),
        ("our quota", "RCPT", "550 5.4.5 daily quota exceeded"),
        (
            "our address list",
            ".",
            "554 Message rejected: not verified",
        ),
    ];
    for (what, verb, reply) in refuses_us {
        let fault = Fault::Relay(verb, RelayTrouble::Says(reply));
        let name = format!("relay refuses {what}, a second relay is sound");
        rows.push(harmless(name, Kind::TwoRelays, fault, lasts));
    }
    let hidden = vec![
        Fault::StarttlsHidden,
        Fault::Wire(Wire::Relay, Trouble::Cut),
    ];
    rows.push(row("relay hides STARTTLS", Kind::Tls, hidden, lasts));
}

fn others(rows: &mut Vec<Row>, pace: Pace) {
    let lasts = pace.seconds(5, 30);
    for (name, flaw) in [
        ("certificates expired", Flaw::Expired),
        ("certificates of another name", Flaw::WrongName),
        (
            "certificates of an unknown authority",
            Flaw::UnknownAuthority,
        ),
    ] {
        rows.push(row(name, Kind::Tls, vec![Fault::Certificates(flaw)], lasts));
    }
    for name in NAMES {
        for seconds in [3_600, -3_600] {
            let faults = vec![Fault::Clock(name, seconds)];
            let name = format!("clock of {name} {:+} h", seconds / 3_600);
            rows.push(row(name, Kind::Clocks, faults, pace.seconds(4, 20)));
        }
    }
    let full = vec![Fault::DiskFull];
    let name = "disk of broker and store full, broker started again";
    rows.push(row(name, Kind::SmallDisk, full, pace.seconds(5, 30)));
}

fn embedded(rows: &mut Vec<Row>, pace: Pace) {
    let kind = Kind::Embedded;
    let one = |fault| vec![fault];
    for point in Point::ALL {
        if point == Point::BrokerMoved {
            continue; // the embedded engine moves a message in one transaction
        }
        let times = match point {
            Point::StorageWritten | Point::StorageCommitted => 200,
            _ => 20,
        };
        let name = format!("embedded dies at {}", point.as_str());
        rows.push(row(
            name,
            kind,
            one(Fault::Die("all", point, times)),
            pace.seconds(1, 5),
        ));
    }
    let table = [
        ("embedded kill -9", Fault::Kill("all"), 2, 10),
        ("embedded SIGSTOP", Fault::Stop("all"), 5, 60),
        ("embedded disk full", Fault::DiskFull, 4, 30),
        ("embedded clock +1 h", Fault::Clock("all", 3_600), 4, 20),
        ("embedded clock -1 h", Fault::Clock("all", -3_600), 4, 20),
        (
            "embedded no file descriptors",
            Fault::Descriptors("all"),
            4,
            20,
        ),
    ];
    for (name, fault, quick, full) in table {
        rows.push(row(name, kind, one(fault), pace.seconds(quick, full)));
    }
}

/// Prints the tables of `docs/faults.md`: a line per group, then a line per row.
pub fn print(reports: &[Report]) -> String {
    use std::fmt::Write;
    let mut text = String::from(
        "| faults | rows | accepted | lost | late | approved twice | duplicates | normal after, worst (s) |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for group in reports.chunk_by(|one, next| one.group == next.group) {
        let sum = |count: fn(&Report) -> usize| group.iter().map(count).sum::<usize>();
        let worst = group
            .iter()
            .map(|report| report.recovery_s)
            .fold(0.0, f64::max);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {worst:.1} |",
            group[0].group,
            group.len(),
            sum(|report| report.accepted),
            sum(|report| report.lost),
            sum(|report| report.late),
            sum(|report| report.double_approvals),
            sum(|report| report.duplicates),
        );
    }
    text.push_str(
        "\n| row | load /s | accepted | handed over | ended otherwise | lost | late | approved twice | duplicates (at most) | normal after s |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for report in reports {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} ({}) | {:.1} |",
            report.row,
            report.load,
            report.accepted,
            report.handed_over,
            report.ended - report.handed_over,
            report.lost,
            report.late,
            report.double_approvals,
            report.duplicates,
            report.duplicates_at_most,
            report.recovery_s,
        );
    }
    text
}
