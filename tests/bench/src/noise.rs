//! Detection of noisy rounds: the share of the machine that other processes took, and the deviation
//! of the lean pipeline from its median.

use std::fs;

use watchword_tests::process::descendants;

use crate::cost;
use crate::figures::{Figures, median};

/// Maximum share of the machine that other processes may take in a round.
const OTHERS: f64 = 0.1;
/// Maximum relative deviation of a lean pipeline's rate from its median.
const OFF: f64 = 0.15;

/// Snapshot of the CPU time of the machine, in ticks of all processors.
pub struct Watch {
    total: f64,
    busy: f64,
    ours: f64,
}

impl Watch {
    /// Takes a snapshot.
    pub fn begin() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = stat.lines().next().unwrap_or_default();
        let ticks = line.split_whitespace().skip(1).take(8);
        let ticks: Vec<f64> = ticks.filter_map(|ticks| ticks.parse().ok()).collect();
        let at = |place: usize| ticks.get(place).copied().unwrap_or_default();
        // User, nice, system and stolen time. Interrupts are left out, because those of the
        // loopback device cannot be attributed to a process.
        let busy = at(0) + at(1) + at(2) + at(7);
        Self {
            total: ticks.iter().sum(),
            busy,
            ours: ours(),
        }
    }

    /// Returns the share of the machine that other processes have taken since the snapshot.
    pub fn others(&self) -> f64 {
        let now = Self::begin();
        let others = (now.busy - self.busy) - (now.ours - self.ours);
        others.max(0.0) / (now.total - self.total).max(1.0)
    }
}

/// Returns the ticks of this process and its descendants, including those that have ended.
fn ours() -> f64 {
    let us = std::process::id();
    let mut all = descendants(us);
    all.push(us);
    all.sort_unstable();
    all.dedup();
    let times = all.into_iter().filter_map(cost::times);
    times.map(|times| times.iter().sum::<f64>()).sum()
}

/// Marks each round as noisy or not. Returns one line for each noisy round.
pub fn mark(figures: &mut Figures) -> Vec<String> {
    // Check both lean pipelines, because ratios use both, and report the larger deviation.
    let leans = ["lean.per_s", "lean_calls.per_s"].map(|name| {
        let rates = figures.rounds(name).to_vec();
        (median(&rates), rates)
    });
    let others = figures.rounds("noise.others_share").to_vec();
    let mut lines = Vec::new();
    figures.drop("noise.noisy");
    for (round, others) in others.into_iter().enumerate() {
        let offs = leans
            .iter()
            .filter_map(|(usual, rates)| Some(rates.get(round)? / usual - 1.0));
        let off = offs.fold(
            0.0,
            |most: f64, off| if off.abs() > most.abs() { off } else { most },
        );
        let is_noisy = others > OTHERS || off.abs() > OFF;
        figures.add("noise.noisy", f64::from(u8::from(is_noisy)));
        if is_noisy {
            lines.push(format!(
                "round {} is noisy: others took {:.0} % of the machine, a lean pipeline is {:+.0} % from its median",
                round + 1,
                others * 100.0,
                off * 100.0
            ));
        }
    }
    lines
}
