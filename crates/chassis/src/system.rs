//! System clocks and random generator. Other code takes a `Clock` or an `Entropy`; `clippy.toml`
//! disallows direct access.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::TryRng;
use rand::rngs::SysRng;
use rustix::time::{ClockId, clock_gettime};
use watchword_core::{Clock, Entropy, EntropyError, Timestamp};

/// Wall-clock time.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the one wrapper around it"
        )]
        let elapsed = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::from_millis(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
    }
}

/// Time since boot, including suspension. Setting the wall clock does not change it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Uptime;

impl Clock for Uptime {
    fn now(&self) -> Timestamp {
        let since_boot = clock_gettime(ClockId::Boottime);
        let seconds_ms = since_boot.tv_sec.saturating_mul(1_000);
        Timestamp::from_millis(seconds_ms.saturating_add(since_boot.tv_nsec / 1_000_000))
    }
}

/// Returns the id of the current boot. A container sees the id of its host.
pub fn boot_id() -> std::io::Result<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim_end().to_owned())
}

/// Random generator of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        SysRng.try_fill_bytes(bytes).map_err(|_| EntropyError)
    }
}
