//! Cost of processes as the kernel counts it.

use std::fs;

/// Duration of a clock tick in `/proc/*/stat`, which is fixed at 10 ms in the user-space interface.
pub const TICK_US: f64 = 10_000.0;

/// Returns the CPU time of `processes` so far, in microseconds.
pub fn processor_us(processes: &[u32]) -> f64 {
    processes.iter().filter_map(|id| ticks(*id)).sum::<f64>() * TICK_US
}

fn ticks(id: u32) -> Option<f64> {
    let [user, system, ..] = times(id)?;
    Some(user + system)
}

/// Returns user and system time of process `id`, then those of its children that have ended, in
/// ticks.
pub fn times(id: u32) -> Option<[f64; 4]> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // Fields 14 to 17, which are fields 12 to 15 after the process name.
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some([next()?, next()?, next()?, next()?])
}

/// Returns the bytes that `processes` caused to be written to disk (`write_bytes` of `/proc/*/io`).
/// The kernel counts whole pages when they are first dirtied, and no sockets, pipes or files in
/// memory.
pub fn written_bytes(processes: &[u32]) -> f64 {
    let one = |id: &u32| {
        let text = fs::read_to_string(format!("/proc/{id}/io")).ok()?;
        let mut lines = text.lines();
        let bytes = lines.find_map(|line| line.strip_prefix("write_bytes: "))?;
        bytes.trim().parse::<f64>().ok()
    };
    processes.iter().filter_map(one).sum()
}

/// Returns the largest proportional set size (PSS) of `processes`, in units of 10^6 bytes.
pub fn memory_mb(processes: &[u32]) -> f64 {
    let one = |id: &u32| {
        let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).ok()?;
        let line = rollup.lines().find(|line| line.starts_with("Pss:"))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok()
    };
    let kib = processes.iter().filter_map(one);
    kib.fold(0.0, f64::max) * 1_024.0 / 1e6
}

/// Meter of the cost of each side of a measurement: the measured system, its broker, its store, the
/// load.
pub struct Meter {
    sides: Vec<Side>,
}

struct Side {
    name: &'static str,
    processes: Vec<u32>,
    from_us: f64,
    from_bytes: f64,
}

impl Meter {
    /// Creates a meter that counts from now on.
    pub fn new(sides: &[(&'static str, &[u32])]) -> Self {
        let sides = sides.iter().map(|(name, processes)| Side {
            name,
            processes: processes.to_vec(),
            from_us: 0.0,
            from_bytes: 0.0,
        });
        let mut meter = Self {
            sides: sides.collect(),
        };
        meter.begin();
        meter
    }

    /// Restarts the meter.
    pub fn begin(&mut self) {
        for side in &mut self.sides {
            side.from_us = processor_us(&side.processes);
            side.from_bytes = written_bytes(&side.processes);
        }
    }

    /// Returns the cost per code for `count` codes: `own_us`, `own_disk_bytes`, and likewise for
    /// each side.
    pub fn each(&self, count: f64) -> Vec<(String, f64)> {
        let one = |side: &Side| {
            let us = processor_us(&side.processes) - side.from_us;
            let bytes = written_bytes(&side.processes) - side.from_bytes;
            [
                (format!("{}_us", side.name), us / count),
                (format!("{}_disk_bytes", side.name), bytes / count),
            ]
        };
        self.sides.iter().flat_map(one).collect()
    }
}
