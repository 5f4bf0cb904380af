//! The engines under test: two stores over one state, and a way to damage what they keep.

use tempfile::TempDir;
use watchword_core::SecretString;
use watchword_storage::redis::{Value, cmd};
use watchword_storage::{Redis, RedisSettings, Sqlite};
use watchword_tests::RedisServer;
use watchword_verifier::store::{
    MIGRATIONS, RedisVerifications, SqliteVerifications, VerificationStore,
};

/// Two stores over one state, and where that is.
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
    pub fn sqlite() -> Self {
        let folder = TempDir::with_prefix("watchword-verifier-").unwrap();
        let sqlite = Sqlite::open(&folder.path().join("state.db"), &MIGRATIONS).unwrap();
        let store = || Box::new(SqliteVerifications::new(sqlite.clone()));
        Self {
            stores: [store(), store()],
            place: Place::Sqlite { sqlite, folder },
        }
    }

    /// A store over the same file that remembers nothing.
    pub fn again(&self) -> SqliteVerifications {
        match &self.place {
            Place::Sqlite { sqlite, .. } => SqliteVerifications::new(sqlite.clone()),
            Place::Redis { .. } => panic!("a test about SQLite"),
        }
    }

    /// Both stores have connections of their own.
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

    /// The store that request number `n` comes to.
    pub fn any(&self, n: usize) -> &dyn VerificationStore {
        &*self.stores[n % 2]
    }

    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// The Redis of a test that is about Redis.
    pub fn link(&self) -> &Redis {
        match &self.place {
            Place::Redis { link, .. } => link,
            Place::Sqlite { .. } => panic!("a test about Redis"),
        }
    }
}

/// A link that gives a slow machine time.
pub async fn link(url: &str) -> Redis {
    let settings = RedisSettings {
        command_timeout_ms: 20_000,
        ..RedisSettings::new(SecretString::new(url.to_owned()))
    };
    Redis::connect(settings).await.unwrap()
}

/// Runs one command given as words.
pub async fn run(link: &Redis, words: &[&str]) -> Value {
    let (verb, rest) = words.split_first().unwrap();
    let mut command = cmd(verb);
    command.arg(rest);
    link.command(&command).await.unwrap()
}

/// All keys, sorted.
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
