//! What processes cost, by the kernel's own account.

use std::fs;

/// The kernel's clock tick in `/proc/*/stat`, fixed in its interface to user space.
const TICK_US: f64 = 10_000.0;

/// Processor time of `processes` so far, in microseconds.
pub fn processor_us(processes: &[u32]) -> f64 {
    processes.iter().filter_map(|id| ticks(*id)).sum::<f64>() * TICK_US
}

fn ticks(id: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // User and system time are the 14th and 15th field, the 12th and 13th after the name.
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some(next()? + next()?)
}

/// The largest share of memory of one of `processes` (PSS), in megabytes of 10^6 bytes.
pub fn memory_mb(processes: &[u32]) -> f64 {
    let one = |id: &u32| {
        let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).ok()?;
        let line = rollup.lines().find(|line| line.starts_with("Pss:"))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok()
    };
    let kib = processes.iter().filter_map(one);
    kib.fold(0.0, f64::max) * 1_024.0 / 1e6
}
