//! Checks of the store: login, version, eviction policy, persistence, memory, and clock skew.

use watchword_chassis::SystemClock;
use watchword_core::Clock;
use watchword_storage::{Server, StorageError, examine};

use super::Findings;
use crate::config::Config;
use crate::engine::distributed::redis_settings;

/// The skew that is an error. The shortest lifetime of a code is 30 s.
const SKEW_WRONG_MS: u64 = 2_000;
const SKEW_CAREFUL_MS: u64 = 500;

pub(super) async fn look(config: &Config, findings: &mut Findings) {
    let settings = match redis_settings(config) {
        Ok(settings) => settings,
        Err(error) => return findings.wrong("redis", error.to_string()),
    };
    let examined = match examine(settings).await {
        Ok(examined) => examined,
        Err(error @ StorageError::Config(_)) => return findings.wrong("redis", error.to_string()),
        Err(error) => {
            return findings.wrong(
                "redis",
                format!("{error}; is it running at redis.url, and is the password right?"),
            );
        }
    };
    for server in &examined.servers {
        report(server, findings);
    }
    let Some(theirs) = examined.clock else {
        return findings.careful("clock", "the store does not report its time");
    };
    let ours = SystemClock.now();
    let skew_ms = ours.millis_since(theirs).max(theirs.millis_since(ours));
    let what = format!("{skew_ms} ms from the store's clock");
    match skew_ms {
        0..SKEW_CAREFUL_MS => findings.fine("clock", what),
        SKEW_CAREFUL_MS..SKEW_WRONG_MS => {
            findings.careful("clock", format!("{what}: synchronize both with a time server"));
        }
        _ => findings.wrong(
            "clock",
            format!("{what}: codes live shorter or longer than configured; synchronize both with a time server (`chronyc tracking`)"),
        ),
    }
}

fn report(server: &Server, findings: &mut Findings) {
    findings.fine(
        "redis",
        format!(
            "{}, noeviction, {} replicas",
            server.version, server.replicas
        ),
    );
    if !server.appends {
        findings.careful(
            "redis",
            "it does not log each change to a file (appendonly no): a crash loses codes and counts since the last snapshot",
        );
    }
    let percent = (server.used_bytes * 100).checked_div(server.max_bytes);
    let used_mb = server.used_bytes / 1_000_000;
    match percent {
        None => findings.careful(
            "redis",
            format!(
                "{used_mb} MB in use and maxmemory is not set: the machine's memory is the limit"
            ),
        ),
        Some(percent @ 80..) => findings.wrong(
            "redis",
            format!(
                "{percent} % of maxmemory in use: when it is full no code can be sent; raise it"
            ),
        ),
        Some(percent) => findings.fine("redis", format!("{percent} % of maxmemory in use")),
    }
}
