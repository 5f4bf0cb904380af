//! The audit trail: who did what, when and why. The store keeps the newest 10,000 changes and,
//! separately, the newest 1,000 reads, so that reads do not push changes out. Records older than 90
//! days are not returned, and the next record of their kind deletes them. A record names its target
//! by the id of a verification or dead letter, by the name of a provider, or by the keyed hash of a
//! subject or recipient.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use watchword_chassis::config::AdminRole;
use watchword_chassis::{Problem, ProblemCode, SystemClock};
use watchword_core::{Clock, Malformed, Timestamp};
use watchword_storage::redis::{Value, cmd};
use watchword_storage::rusqlite::params;
use watchword_storage::{Migration, Redis, Script, Sqlite, StorageError};

use crate::http::Action;

const MOST_CHANGES: usize = 10_000;
const MOST_LOOKS: usize = 1_000;
/// The most records that the store keeps.
pub const MOST_RECORDS: usize = MOST_CHANGES + MOST_LOOKS;
const KEPT_MS: u64 = 90 * 24 * 3_600_000;

/// The migration that creates the trail's table.
pub const MIGRATION: Migration = Migration {
    name: "admin-1",
    sql: "
    CREATE TABLE admin_trail (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at_ms INTEGER NOT NULL,
        record TEXT NOT NULL
    ) STRICT;",
};

/// An action of an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrailRecord {
    /// When the action ended, RFC 3339.
    pub at: String,
    /// The name of the key; `(command line)` for a command that worked on the store directly.
    pub key: String,
    /// The name of the [`Action`].
    pub action: String,
    /// The target: `verification ID`, `subject TAG`, `recipient TAG`, `provider NAME`.
    pub target: String,
    /// The operator's reason.
    pub reason: String,
    /// `ok`, or the code of the problem.
    pub result: String,
}

/// A store of the audit trail.
#[async_trait]
pub trait AuditTrail: Send + Sync {
    /// Adds a record at `now`, and deletes records of its kind that are too old or too many.
    async fn append(&self, record: &TrailRecord, now: Timestamp) -> Result<(), StorageError>;

    /// Returns up to `limit` records of the last 90 days, newest first.
    async fn newest(&self, limit: usize) -> Result<Vec<TrailRecord>, StorageError>;
}

impl TrailRecord {
    /// Whether the action is a read: one that a viewer may take.
    fn is_look(&self) -> bool {
        Action::ALL
            .iter()
            .any(|action| action.as_str() == self.action && action.role() == AdminRole::Viewer)
    }

    /// Logs the record with the target `watchword::admin_audit`.
    pub fn log(&self) {
        let Self {
            at: _,
            key,
            action,
            target,
            reason,
            result,
        } = self;
        tracing::info!(
            target: "watchword::admin_audit", key, action, concerns = target, reason, result,
            "admin action"
        );
    }
}

/// Returns a problem if `reason` is empty or too long, or could contain a recipient: neither the
/// trail nor the log may hold one.
pub fn check_reason(reason: &str) -> Result<(), Problem> {
    let invalid = |rule| {
        let rule = Malformed::new(rule);
        Err(Problem::field(ProblemCode::InvalidRequest, "reason", &rule))
    };
    if !(1..=200).contains(&reason.chars().count()) || reason.chars().any(char::is_control) {
        return invalid("must be 1 to 200 characters without control characters");
    }
    if reason.trim().is_empty() {
        return invalid("must say why");
    }
    if holds_address(reason) {
        return invalid(
            "must hold no mail address and no number of nine or more digits: it goes into the log",
        );
    }
    Ok(())
}

/// Whether `text` may contain a mail address, or nine or more digits that could be a phone number.
pub(crate) fn holds_address(text: &str) -> bool {
    let mut digits = 0;
    for letter in text.chars() {
        if letter == '@' {
            return true;
        }
        if letter.is_numeric() {
            digits += 1;
        } else if !matches!(letter, ' ' | '-' | '.' | '/' | '(' | ')') {
            digits = 0;
        }
        if digits >= 9 {
            return true;
        }
    }
    false
}

fn written(record: &TrailRecord) -> Result<String, StorageError> {
    let unwritable = |_| StorageError::Rejected("a record of the trail cannot be written");
    serde_json::to_string(record).map_err(unwritable)
}

/// Parses records and skips those that cannot be parsed.
fn readable(texts: impl Iterator<Item = String>) -> Vec<TrailRecord> {
    texts
        .filter_map(|text| serde_json::from_str(&text).ok())
        .collect()
}

/// The trail in the `SQLite` file. Changes have ascending positive ids and reads descending
/// negative ids, so that each kind is trimmed by a range of the primary key.
pub struct SqliteTrail {
    sqlite: Sqlite,
    clock: Arc<dyn Clock>,
}

impl SqliteTrail {
    /// Creates a trail in `sqlite`, which must have been opened with [`MIGRATION`].
    pub fn new(sqlite: Sqlite) -> Self {
        let clock = Arc::new(SystemClock);
        Self { sqlite, clock }
    }
}

#[async_trait]
impl AuditTrail for SqliteTrail {
    async fn append(&self, record: &TrailRecord, now: Timestamp) -> Result<(), StorageError> {
        let text = written(record)?;
        let (at, oldest) = (now.as_millis(), now.minus_millis(KEPT_MS).as_millis());
        let (insert, trim, most) = if record.is_look() {
            (
                "INSERT INTO admin_trail (id, at_ms, record) \
                 SELECT min(coalesce(min(id), 0), 0) - 1, ?1, ?2 FROM admin_trail",
                "DELETE FROM admin_trail WHERE (id < 0 AND id >= ?1 + ?2) OR at_ms < ?3",
                MOST_LOOKS,
            )
        } else {
            (
                "INSERT INTO admin_trail (at_ms, record) VALUES (?1, ?2)",
                "DELETE FROM admin_trail WHERE (id > 0 AND id <= ?1 - ?2) OR at_ms < ?3",
                MOST_CHANGES,
            )
        };
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let write = self.sqlite.write(move |connection| {
            connection.execute(insert, params![at, text])?;
            let id = connection.last_insert_rowid();
            connection.execute(trim, params![id, most, oldest])
        });
        write.await.map(|_| ())
    }

    async fn newest(&self, limit: usize) -> Result<Vec<TrailRecord>, StorageError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let oldest = self.clock.now().minus_millis(KEPT_MS).as_millis();
        let read = self.sqlite.read(move |connection| {
            let mut statement = connection.prepare(
                "SELECT record FROM admin_trail WHERE at_ms >= ?1 \
                 ORDER BY at_ms DESC, abs(id) DESC LIMIT ?2",
            )?;
            let rows = statement.query_map([oldest, limit], |row| row.get::<_, String>(0))?;
            rows.collect::<Result<Vec<_>, _>>()
        });
        Ok(readable(read.await?.into_iter()))
    }
}

const CHANGES: &str = "ww:{admin}:trail";
const LOOKS: &str = "ww:{admin}:trail:looks";

/// The trail in two lists on Redis.
pub struct RedisTrail {
    redis: Redis,
    append: Script,
    clock: Arc<dyn Clock>,
}

impl RedisTrail {
    /// Creates a trail that uses the connection `redis`.
    pub fn new(redis: Redis) -> Self {
        // All times have the same format and length, so the script can compare them as strings.
        let source = "#!lua\n\
            redis.call('LPUSH', KEYS[1], ARGV[1])\n\
            redis.call('LTRIM', KEYS[1], 0, ARGV[2] - 1)\n\
            redis.call('PEXPIRE', KEYS[1], ARGV[3])\n\
            while true do\n\
            local last = redis.call('LINDEX', KEYS[1], -1)\n\
            if not last then break end\n\
            local is_read, record = pcall(cjson.decode, last)\n\
            if is_read and tostring(record.at) >= ARGV[4] then break end\n\
            redis.call('RPOP', KEYS[1])\n\
            end\n\
            return 1\n";
        Self {
            redis,
            append: Script::new("admin.trail", source),
            clock: Arc::new(SystemClock),
        }
    }

    async fn newest_of(&self, key: &str, limit: usize) -> Result<Vec<TrailRecord>, StorageError> {
        let mut command = cmd("LRANGE");
        command.arg(key).arg(0).arg(limit.saturating_sub(1));
        let Value::Array(values) = self.redis.command(&command).await? else {
            return Err(StorageError::Rejected("the trail cannot be read"));
        };
        let texts = values.into_iter().filter_map(|value| match value {
            Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
            _ => None,
        });
        Ok(readable(texts))
    }
}

#[async_trait]
impl AuditTrail for RedisTrail {
    async fn append(&self, record: &TrailRecord, now: Timestamp) -> Result<(), StorageError> {
        let text = written(record)?;
        let (key, most) = if record.is_look() {
            (LOOKS, MOST_LOOKS)
        } else {
            (CHANGES, MOST_CHANGES)
        };
        let oldest = now.minus_millis(KEPT_MS).to_rfc3339();
        let args = [
            text.as_str().into(),
            (most as u64).into(),
            KEPT_MS.into(),
            oldest.as_str().into(),
        ];
        let keys = [key.to_owned()];
        self.redis.script(&self.append, &keys, &args).await?;
        Ok(())
    }

    async fn newest(&self, limit: usize) -> Result<Vec<TrailRecord>, StorageError> {
        let mut records = self.newest_of(CHANGES, limit).await?;
        records.extend(self.newest_of(LOOKS, limit).await?);
        let oldest = self.clock.now().minus_millis(KEPT_MS).to_rfc3339();
        records.retain(|record| record.at >= oldest);
        records.sort_by(|one, other| other.at.cmp(&one.at));
        records.truncate(limit);
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use watchword_core::ManualClock;

    use super::*;

    #[test]
    fn a_reason_says_why_and_names_nobody() {
        for (reason, is_fine) in [
            ("the person called, ticket 48151623", true),
            ("T\u{fc}r defekt", true),
            ("", false),
            ("   ", false),
            ("a\nb", false),
            ("jane@example.org called", false),
            ("called from +4915112345678", false),
            ("called from +49 (151) 123-45 678", false),
            ("called from ٤٩١٥١١٢٣٤٥", false),
        ] {
            assert_eq!(check_reason(reason).is_ok(), is_fine, "{reason}");
        }
        assert!(check_reason(&"é".repeat(200)).is_ok());
        assert!(check_reason(&"é".repeat(201)).is_err());
    }

    fn record(action: &str, number: usize) -> TrailRecord {
        TrailRecord {
            at: String::new(),
            key: "jane".to_owned(),
            action: action.to_owned(),
            target: number.to_string(),
            reason: "a call".to_owned(),
            result: "ok".to_owned(),
        }
    }

    fn trail(folder: &tempfile::TempDir, now: Timestamp) -> (SqliteTrail, Arc<ManualClock>) {
        let sqlite = Sqlite::open(&folder.path().join("trail.db"), &[MIGRATION]).unwrap();
        let clock = Arc::new(ManualClock::at(now));
        let trail = SqliteTrail {
            sqlite,
            clock: clock.clone(),
        };
        (trail, clock)
    }

    #[tokio::test]
    async fn looks_push_no_change_out() {
        let folder = tempfile::tempdir().unwrap();
        let now = Timestamp::from_millis(1_800_000_000_000);
        let (trail, _) = trail(&folder, now);
        trail.append(&record("unlock", 0), now).await.unwrap();
        for number in 0..MOST_LOOKS + 5 {
            let at = now.plus_millis(number as u64 + 1);
            trail.append(&record("find", number), at).await.unwrap();
        }
        let last = now.plus_millis(5_000);
        trail.append(&record("cancel", 1), last).await.unwrap();
        let kept = trail.newest(MOST_RECORDS).await.unwrap();
        assert_eq!(kept.len(), MOST_LOOKS + 2);
        assert_eq!(kept[0], record("cancel", 1));
        assert_eq!(kept[1], record("find", MOST_LOOKS + 4));
        assert_eq!(kept[MOST_LOOKS], record("find", 5));
        assert_eq!(kept[MOST_LOOKS + 1], record("unlock", 0));
        assert_eq!(trail.newest(2).await.unwrap(), kept[..2]);
    }

    #[tokio::test]
    async fn the_newest_changes_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let now = Timestamp::from_millis(1_800_000_000_000);
        let (trail, _) = trail(&folder, now);
        trail.append(&record("find", 0), now).await.unwrap();
        let fill = trail.sqlite.write(|connection| {
            connection.execute(
                "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number LIMIT ?1) \
                 INSERT INTO admin_trail (at_ms, record) SELECT 1800000000000, '{}' FROM number",
                [i64::try_from(MOST_CHANGES).unwrap()],
            )
        });
        fill.await.unwrap();
        for number in 0..3 {
            trail.append(&record("unlock", number), now).await.unwrap();
        }
        let count = trail.sqlite.read(|connection| {
            let count = "SELECT count(*) FROM admin_trail WHERE id > 0";
            connection.query_row(count, [], |row| row.get::<_, i64>(0))
        });
        assert_eq!(usize::try_from(count.await.unwrap()), Ok(MOST_CHANGES));
        let kept = trail.newest(usize::MAX).await.unwrap();
        assert_eq!(kept.len(), 4);
        assert!(kept.contains(&record("find", 0)));
    }

    #[tokio::test]
    async fn records_older_than_90_days_are_neither_returned_nor_kept() {
        let folder = tempfile::tempdir().unwrap();
        let now = Timestamp::from_millis(1_800_000_000_000);
        let (trail, clock) = trail(&folder, now);
        trail.append(&record("unlock", 0), now).await.unwrap();
        trail.append(&record("find", 1), now).await.unwrap();
        clock.advance_millis(i64::try_from(KEPT_MS).unwrap());
        assert_eq!(trail.newest(9).await.unwrap().len(), 2);
        clock.advance_millis(1);
        assert_eq!(trail.newest(9).await.unwrap(), []);
        trail.append(&record("find", 2), clock.now()).await.unwrap();
        let count = trail.sqlite.read(|connection| {
            connection.query_row("SELECT count(*) FROM admin_trail", [], |row| {
                row.get::<_, i64>(0)
            })
        });
        assert_eq!(count.await.unwrap(), 1);
    }
}
