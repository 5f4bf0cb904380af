//! The engines under test: two stores on the same state, and access for damaging their records.

use std::sync::Arc;

use tempfile::TempDir;
use watchword_core::{ManualClock, SecretString, Timestamp, VerificationId};
use watchword_storage::redis::{Value, cmd};
use watchword_storage::rusqlite::Connection;
use watchword_storage::{Redis, RedisSettings, Sqlite};
use watchword_tests::RedisServer;
use watchword_verifier::store::{
    MIGRATIONS, MachineClocks, RedisVerifications, SqliteVerifications, SteadyClock,
    VerificationStore,
};

/// A machine whose clocks the test sets.
#[derive(Clone)]
pub struct Machine {
    pub wall: Arc<ManualClock>,
    pub uptime: Arc<ManualClock>,
    pub boot: &'static str,
}

impl Machine {
    pub fn at(wall: Timestamp) -> Self {
        let clock = |at| Arc::new(ManualClock::at(at));
        Self {
            wall: clock(wall),
            uptime: clock(Timestamp::from_millis(1_000)),
            boot: "boot-1",
        }
    }

    /// Advances all clocks.
    pub fn pass(&self, ms: i64) {
        self.wall.advance_millis(ms);
        self.uptime.advance_millis(ms);
    }

    /// Steps the wall clock; negative values set it back.
    pub fn step(&self, ms: i64) {
        self.wall.advance_millis(ms);
    }

    /// Starts a process on this machine and file.
    pub async fn start(&self, sqlite: &Sqlite) -> SqliteVerifications {
        let clocks = MachineClocks {
            wall: self.wall.clone(),
            uptime: self.uptime.clone(),
            boot: Some(self.boot.to_owned()),
        };
        let clock = SteadyClock::load(sqlite, clocks).await.unwrap();
        SqliteVerifications::new(sqlite.clone(), clock)
    }
}

/// Starts a process whose machine's clock is earlier than all cases, so that the callers' clock
/// decides.
pub async fn start(sqlite: &Sqlite) -> SqliteVerifications {
    Machine::at(Timestamp::from_millis(0)).start(sqlite).await
}

/// Two stores on the same state, and its location.
pub struct Engine {
    stores: [Box<dyn VerificationStore>; 2],
    place: Place,
}

pub enum Place {
    /// The file is removed with its folder.
    Sqlite { sqlite: Sqlite, folder: TempDir },
    /// The server is stopped when it is dropped.
    Redis { link: Redis, server: RedisServer },
}

impl Engine {
    pub async fn sqlite() -> Self {
        let folder = TempDir::with_prefix("watchword-verifier-").unwrap();
        let sqlite = Sqlite::open(&folder.path().join("state.db"), &MIGRATIONS).unwrap();
        Self {
            stores: [
                Box::new(start(&sqlite).await),
                Box::new(start(&sqlite).await),
            ],
            place: Place::Sqlite { sqlite, folder },
        }
    }

    /// Returns the file, for tests of SQLite.
    pub fn file(&self) -> &Sqlite {
        match &self.place {
            Place::Sqlite { sqlite, .. } => sqlite,
            Place::Redis { .. } => panic!("a test about SQLite"),
        }
    }

    /// Each store has its own connections.
    pub async fn redis() -> Self {
        let server = RedisServer::with(&["--appendonly", "no"]).await;
        let url = server.url();
        let stores: [Box<dyn VerificationStore>; 2] = [
            Box::new(RedisVerifications::new(link(&url).await)),
            Box::new(RedisVerifications::new(link(&url).await)),
        ];
        let link = link(&url).await;
        Self {
            stores,
            place: Place::Redis { link, server },
        }
    }

    pub fn store(&self) -> &dyn VerificationStore {
        &*self.stores[0]
    }

    /// Returns the store that handles request number `n`.
    pub fn any(&self, n: usize) -> &dyn VerificationStore {
        &*self.stores[n % 2]
    }

    /// Returns the stored record of a verification.
    pub async fn record(&self, id: &VerificationId) -> Vec<u8> {
        match &self.place {
            Place::Sqlite { sqlite, .. } => {
                let id = id.to_string();
                let select = "SELECT record FROM verifier_verification WHERE id = ?1";
                let read = move |file: &Connection| {
                    file.query_row(select, [id], |row| row.get::<_, String>(0))
                };
                sqlite.read(read).await.unwrap().into_bytes()
            }
            Place::Redis { link, .. } => {
                let mark = format!("{}}}:v:", id.tag());
                let found = keys(link).await;
                let key = found.iter().find(|key| key.contains(&mark)).unwrap();
                match run(link, &["GET", key]).await {
                    Value::BulkString(record) => record,
                    other => panic!("a record, not {other:?}"),
                }
            }
        }
    }

    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// Returns the link, for tests of Redis.
    pub fn link(&self) -> &Redis {
        match &self.place {
            Place::Redis { link, .. } => link,
            Place::Sqlite { .. } => panic!("a test about Redis"),
        }
    }
}

/// Opens a link with deadlines that suit a slow machine.
pub async fn link(url: &str) -> Redis {
    let settings = RedisSettings {
        command_timeout_ms: 20_000,
        ..RedisSettings::new(SecretString::new(url.to_owned()))
    };
    Redis::connect(settings).await.unwrap()
}

/// Runs one command.
pub async fn run(link: &Redis, words: &[&str]) -> Value {
    let (verb, rest) = words.split_first().unwrap();
    let mut command = cmd(verb);
    command.arg(rest);
    link.command(&command).await.unwrap()
}

/// Returns all keys, sorted.
pub async fn keys(link: &Redis) -> Vec<String> {
    let Value::Array(keys) = run(link, &["KEYS", "*"]).await else {
        panic!("KEYS gives an array")
    };
    let mut keys: Vec<_> = keys
        .into_iter()
        .map(|key| match key {
            Value::BulkString(key) => String::from_utf8(key).unwrap(),
            other => panic!("a key is a string, not {other:?}"),
        })
        .collect();
    keys.sort();
    keys
}

pub fn integer(value: &Value) -> i64 {
    match value {
        Value::Int(number) => *number,
        other => panic!("a number, not {other:?}"),
    }
}
