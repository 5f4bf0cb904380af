//! What processes cost, by the kernel's own account.

use std::fs;

/// The kernel's clock tick in `/proc/*/stat`, fixed in its interface to user space.
pub const TICK_US: f64 = 10_000.0;

/// Processor time of `processes` so far, in microseconds.
pub fn processor_us(processes: &[u32]) -> f64 {
    processes.iter().filter_map(|id| ticks(*id)).sum::<f64>() * TICK_US
}

fn ticks(id: u32) -> Option<f64> {
    let [user, system, ..] = times(id)?;
    Some(user + system)
}

/// User and system time of process `id`, then those of its children that have ended, in ticks.
pub fn times(id: u32) -> Option<[f64; 4]> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The 14th to the 17th field, from the 12th after the name on.
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some([next()?, next()?, next()?, next()?])
}

/// Bytes that `processes` have made the kernel write to a disk (`write_bytes` of `/proc/*/io`):
/// whole pages, when they are first changed; nothing of sockets, pipes and files in memory.
pub fn written_bytes(processes: &[u32]) -> f64 {
    let one = |id: &u32| {
        let text = fs::read_to_string(format!("/proc/{id}/io")).ok()?;
        let mut lines = text.lines();
        let bytes = lines.find_map(|line| line.strip_prefix("write_bytes: "))?;
        bytes.trim().parse::<f64>().ok()
    };
    processes.iter().filter_map(one).sum()
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

/// What each side of a measurement spends: the measured system, its broker, its store, the load.
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
    /// A meter of these sides that counts from now on.
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

    /// Counts from now on.
    pub fn begin(&mut self) {
        for side in &mut self.sides {
            side.from_us = processor_us(&side.processes);
            side.from_bytes = written_bytes(&side.processes);
        }
    }

    /// What one of `count` codes took since: `own_us`, `own_disk_bytes`, and so for each side.
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
