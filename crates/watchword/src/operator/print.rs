//! The text output of reports.

use serde::{Deserialize, Serialize};
use watchword_admin::operate::{
    AuditReport, ChangeReport, ChannelHour, DeadLetterState, DeadLettersReport, FindReport,
    ProviderReport, StatusReport, VerificationReport,
};
use watchword_admin::trail::TrailRecord;
use watchword_delivery::Circuit;

use crate::output::counted;

/// The most open and the most lost messages that are printed.
const NAMED: usize = 20;

/// The audit trail, newest first.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TrailReport {
    pub(super) records: Vec<TrailRecord>,
}

pub(super) fn print(report: &TrailReport) {
    for record in &report.records {
        let TrailRecord {
            at,
            key,
            action,
            target,
            reason,
            result,
        } = record;
        let why = if reason.is_empty() {
            String::new()
        } else {
            format!(" ({reason})")
        };
        println!("{at} {key:<16} {action:<20} {result:<16} {target}{why}");
    }
    println!("{}", counted(report.records.len(), "record"));
}

pub(super) fn found(report: &FindReport) {
    for (place, one) in report.verifications.iter().enumerate() {
        if place > 0 {
            println!();
        }
        verification(one);
    }
    if report.verifications.is_empty() {
        println!("none found");
    }
    if report.truncated {
        println!("there may be more: the search reached its limits");
    }
}

pub(super) fn verification(report: &VerificationReport) {
    println!("{}", report.diagnosis);
    println!("id           {}", report.id);
    println!("service      {}", report.service);
    println!("status       {}", report.status);
    println!("to           {} {}", report.channel, report.to);
    println!("purpose      {}", report.purpose);
    println!("expires      {}", report.expires_at);
    println!("messages     {}", report.sends);
    println!("checks left  {}", report.checks_left);
    if let Some(until) = &report.subject_locked_until {
        println!("locked until {until}");
    }
    for entry in &report.timeline {
        let delivery = entry.delivery.as_ref();
        let message = delivery.map_or_else(String::new, |id| format!("message {}: ", id.send()));
        println!("  {} {message}{}", entry.at, entry.event);
    }
}

pub(super) fn dead_letters(report: &DeadLettersReport) {
    truncated(&report.truncated);
    for one in &report.dead_letters {
        let state = match one.state {
            DeadLetterState::Replayable => "can be replayed",
            DeadLetterState::Expired => "expired, discard it",
            DeadLetterState::Note => "note, discard it; the sender must repeat the request",
        };
        let age = one.age_seconds;
        let age = age.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds} s"));
        let user = one.broker_user.as_ref();
        let user = user.map_or_else(String::new, |user| format!(" (broker user {user})"));
        println!(
            "{:<9} {:<36} {:<18} {:<12} {age:>9} {state}{user}",
            one.queue,
            one.id,
            one.reason,
            one.service.as_deref().unwrap_or("-"),
        );
    }
    println!("{}", counted(report.dead_letters.len(), "dead letter"));
}

/// Prints the queues that were not read to the end, before the dead letters: the newest are
/// missing.
fn truncated(queues: &[String]) {
    for queue in queues {
        println!("{queue}: only the oldest dead letters were read. Raise --limit to read more.");
    }
}

pub(super) fn changed(report: &ChangeReport, replays: bool) {
    truncated(&report.truncated);
    let ChangeReport {
        done,
        expired,
        notes,
        ..
    } = report;
    if replays {
        println!(
            "{done} replayed, {expired} not replayed: past their deadline, {notes} not replayed: \
             notes about requests"
        );
    } else {
        println!("{done} discarded");
    }
}

pub(super) fn audit(report: &AuditReport) {
    println!("verifications {}", report.verifications);
    println!("accepted      {}", report.accepted);
    for (outcome, count) in &report.ended {
        println!("  {outcome:<11} {count}");
    }
    println!("  {:<11} {}", "open", report.open);
    for message in report.open_named.iter().take(NAMED) {
        println!("    {} {}", message.id, message.outcome);
    }
    println!("  {:<11} {}", "lost", report.lost);
    for id in report.lost_named.iter().take(NAMED) {
        println!("    {id}");
    }
    if !report.dead_letters_read {
        println!("not all dead letters could be read: lost messages may be dead-lettered");
    }
}

pub(super) fn providers(providers: &[ProviderReport]) {
    println!(
        "{:<9} {:<20} {:<10} {:>5}  destinations open",
        "channel", "provider", "circuit", "share"
    );
    for one in providers {
        let circuit = match one.circuit {
            Circuit::Closed => "closed",
            Circuit::HalfOpen => "half-open",
            Circuit::Open => "open",
        };
        let by_hand = one.by_hand.as_ref();
        let by_hand = by_hand.map_or_else(String::new, |held| {
            format!("  by hand until {}", held.until)
        });
        println!(
            "{:<9} {:<20} {circuit:<10} {:>4}%  {} of {}{by_hand}",
            one.channel.as_str(),
            one.name.as_str(),
            u16::from(one.share_tenths) * 10,
            one.destinations_open,
            one.destinations
        );
    }
}

pub(super) fn status(report: &StatusReport) {
    let is_ready = if report.ready { "ready" } else { "NOT READY" };
    println!(
        "watchword {} {is_ready}: {}",
        report.version,
        report.roles.join(", ")
    );
    for (name, up) in &report.dependencies {
        println!("  {name:<10} {}", if *up { "up" } else { "DOWN" });
    }
    for warning in &report.warnings {
        println!("warning: {warning}");
    }
    if !report.queues.is_empty() {
        println!(
            "\n{:<9} {:>8} {:>8} {:>12} {:>9}",
            "queue", "ready", "waiting", "dead letters", "consumers"
        );
    }
    for queue in &report.queues {
        println!(
            "{:<9} {:>8} {:>8} {:>12} {:>9}",
            queue.queue,
            known(queue.ready),
            known(queue.waiting),
            known(queue.dead_letters),
            known(queue.consumers)
        );
    }
    if !report.providers.is_empty() {
        println!();
        providers(&report.providers);
    }
    println!(
        "\nlast {} min {:>8} {:>9} {:>10} {:>9} {:>13}",
        report.covers_seconds / 60,
        "opened",
        "approved",
        "conversion",
        "accepted",
        "not delivered"
    );
    for hour in &report.last_hour {
        print_hour(hour);
    }
}

/// Returns the count, or `-` if it is unknown.
fn known(count: Option<u64>) -> String {
    count.map_or_else(|| "-".to_owned(), |count| count.to_string())
}

fn print_hour(hour: &ChannelHour) {
    let conversion = hour.conversion;
    let conversion = conversion.map_or_else(|| "-".to_owned(), |c| format!("{:.0} %", c * 100.0));
    println!(
        "{:<11} {:>8} {:>9} {conversion:>10} {:>9} {:>13}",
        hour.channel.as_str(),
        known(hour.opened),
        known(hour.approved),
        known(hour.accepted),
        known(hour.not_delivered)
    );
}
