//! Attackers who read what the product leaves behind or send it hostile input: crashes, memory,
//! connections, keys of other roles, hostile bodies, slow callers, timing.

mod crash;
mod crowds;
mod hostile;
mod keys;
mod secrets;
mod timing;

use watchword_tests::{Pipeline, Settings};

async fn embedded() -> Pipeline {
    let mut settings = Settings::embedded();
    settings.service = "[services.test.limits]\nservice_per_minute = 100000".into();
    let mut pipeline = Pipeline::configure(&settings);
    pipeline.start("all", &[]).await;
    pipeline
}

/// Returns the resident memory of the process in KiB.
fn memory_kib(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap()
}
