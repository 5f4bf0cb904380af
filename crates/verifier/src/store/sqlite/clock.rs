//! The clock of the embedded engine, which stays steady when the wall clock is set and across
//! restarts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use watchword_core::{Clock, SteadyTime, Timestamp};
use watchword_storage::rusqlite::{Connection, OptionalExtension, Result, Row, params};
use watchword_storage::{Sqlite, StorageError};

use super::table;

/// The table of the clock. Its single row holds the newest time that was written, the time since
/// boot that belongs to it, and the epoch. A code opened in an earlier epoch has ended.
pub(super) const SCHEMA: &str = "
    CREATE TABLE verifier_clock (
        one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
        epoch INTEGER NOT NULL,
        newest_ms INTEGER NOT NULL,
        uptime_ms INTEGER NOT NULL,
        boot TEXT NOT NULL
    ) STRICT;";

/// How much older the time on disk may be than the current one. Writing it for every code would
/// cost another page write each.
const SAVED_EVERY_MS: u64 = 1_000;

/// The clocks of the machine that the process runs on.
#[derive(Debug, Clone)]
pub struct MachineClocks {
    /// Wall-clock time, which may be set back.
    pub wall: Arc<dyn Clock>,
    /// Time since boot, which is monotonic.
    pub uptime: Arc<dyn Clock>,
    /// The id of this boot; `None` if unknown.
    pub boot: Option<String>,
}

/// The time that decides one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    /// The later of the caller's clock and the steady clock.
    pub(super) now: Timestamp,
    steady: SteadyTime,
}

impl Moment {
    /// Returns the clock's epoch. Codes that were opened in an earlier epoch have ended.
    pub(super) const fn epoch(self) -> u32 {
        self.steady.epoch
    }
}

/// The clock of the embedded engine, which the whole process uses.
///
/// It is monotonic within an epoch; see [`SteadyTime`]. A correction starts a new epoch, in which
/// the store refuses every code that was opened before.
#[derive(Debug)]
pub struct SteadyClock {
    machine: MachineClocks,
    steady: Mutex<SteadyTime>,
    /// The newest reading on disk.
    saved: Mutex<Option<SteadyTime>>,
}

impl SteadyClock {
    /// Reads the newest time on disk from `sqlite` and continues from there.
    pub async fn load(sqlite: &Sqlite, machine: MachineClocks) -> Result<Arc<Self>, StorageError> {
        let saved = sqlite.read(read).await?;
        let (now, uptime) = (machine.wall.now(), machine.uptime.now());
        let steady = saved.as_ref().map_or(
            SteadyTime {
                now,
                uptime,
                epoch: 0,
            },
            |saved| saved.since_boot(machine.boot.as_deref(), uptime),
        );
        Ok(Arc::new(Self {
            machine,
            steady: Mutex::new(steady),
            saved: Mutex::new(saved.map(|saved| saved.steady)),
        }))
    }

    /// Returns the time that decides a call whose caller's clock shows `caller`.
    pub(super) fn moment(&self, caller: Timestamp) -> Moment {
        let steady = self.read();
        let now = steady.now.max(caller);
        Moment { now, steady }
    }

    fn read(&self) -> SteadyTime {
        let mut steady = lock(&self.steady);
        let next = steady.next(self.machine.wall.now(), self.machine.uptime.now());
        if next.epoch != steady.epoch {
            tracing::warn!(
                "the clock of this machine was set back by more than 30 s; codes that were sent before it can no longer be used"
            );
        }
        *steady = next;
        next
    }

    /// Writes the time together with a decision, unless the time on disk is recent enough.
    pub(super) fn save(&self, connection: &Connection, moment: Moment) -> Result<()> {
        let steady = moment.steady;
        if self.is_saved(steady) {
            return Ok(());
        }
        if lock(&self.saved).is_none_or(|saved| saved.epoch < steady.epoch) {
            // No guess was made later than now: move later ones back, or a wrong time would lock a
            // subject for too long.
            table::limit_guess_times(connection, steady.now)?;
            // Use the time that also decides when a row is deleted.
            table::limit_retention(connection, moment.now)?;
        }
        write(connection, steady, self.machine.boot.as_deref())
    }

    /// Records that the transaction of `moment` was committed.
    pub(super) fn committed(&self, moment: Moment) {
        if !self.is_saved(moment.steady) {
            *lock(&self.saved) = Some(moment.steady);
        }
    }

    /// Returns whether the time on disk is recent enough.
    fn is_saved(&self, steady: SteadyTime) -> bool {
        lock(&self.saved).is_some_and(|saved| {
            let is_recent = steady.now.millis_since(saved.now) < SAVED_EVERY_MS;
            steady.epoch < saved.epoch || steady.epoch == saved.epoch && is_recent
        })
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        self.read().now
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The time in the file.
struct Saved {
    steady: SteadyTime,
    boot: String,
}

impl Saved {
    /// Returns the reading from which to continue at `uptime` of the boot `boot`. After a reboot
    /// nothing tells how long the machine was off, so only the newest time on disk counts.
    fn since_boot(&self, boot: Option<&str>, uptime: Timestamp) -> SteadyTime {
        if boot == Some(self.boot.as_str()) {
            return self.steady;
        }
        SteadyTime {
            uptime,
            ..self.steady
        }
    }
}

fn read(connection: &Connection) -> Result<Option<Saved>> {
    let saved = |row: &Row<'_>| {
        Ok(Saved {
            steady: SteadyTime {
                epoch: row.get(0)?,
                now: Timestamp::from_millis(row.get(1)?),
                uptime: Timestamp::from_millis(row.get(2)?),
            },
            boot: row.get(3)?,
        })
    };
    connection
        .query_row(
            "SELECT epoch, newest_ms, uptime_ms, boot FROM verifier_clock",
            [],
            saved,
        )
        .optional()
}

fn write(connection: &Connection, moment: SteadyTime, boot: Option<&str>) -> Result<()> {
    // A call that was delayed behind a correction must not undo it.
    connection
        .prepare_cached(
            "INSERT INTO verifier_clock (one, epoch, newest_ms, uptime_ms, boot)
             VALUES (1, ?1, ?2, ?3, ?4)
             ON CONFLICT (one) DO UPDATE SET epoch = excluded.epoch,
                 newest_ms = excluded.newest_ms, uptime_ms = excluded.uptime_ms,
                 boot = excluded.boot
             WHERE excluded.epoch >= epoch",
        )?
        .execute(params![
            moment.epoch,
            moment.now.as_millis(),
            moment.uptime.as_millis(),
            boot.unwrap_or_default()
        ])
        .map(|_| ())
}

/// Ends every live code in this file. Called for a restored file, because codes may have been used
/// after the backup.
pub fn end_live_codes(connection: &Connection) -> Result<()> {
    connection
        .execute(
            "INSERT INTO verifier_clock (one, epoch, newest_ms, uptime_ms, boot)
             VALUES (1, 1, 0, 0, '') ON CONFLICT (one) DO UPDATE SET epoch = epoch + 1",
            [],
        )
        .map(|_| ())
}
