//! Remembered answers on Redis: one string per request, kept for a day.

use async_trait::async_trait;
use watchword_core::Timestamp;
use watchword_storage::redis::{Value, cmd};
use watchword_storage::{Redis, Script, StorageError};

use super::{REMEMBERED_MS, RequestKey, RequestLog};

/// Stores the answer unless one is stored; the first one stays.
const REMEMBER: &str = "#!lua
local first = redis.call('GET', KEYS[1])
if first then return first end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
";

/// Answers by request, on Redis.
#[derive(Debug)]
pub struct RedisRequests {
    redis: Redis,
    remember: Script,
}

impl RedisRequests {
    /// Creates a log over `redis`.
    pub fn new(redis: Redis) -> Self {
        Self {
            redis,
            remember: Script::new("issuer.remember", REMEMBER),
        }
    }
}

#[async_trait]
impl RequestLog for RedisRequests {
    async fn answer(
        &self,
        key: RequestKey,
        _now: Timestamp,
    ) -> Result<Option<String>, StorageError> {
        let mut get = cmd("GET");
        get.arg(name(key));
        match self.redis.command(&get).await? {
            Value::Nil => Ok(None),
            answer => text(answer).map(Some),
        }
    }

    async fn remember(
        &self,
        key: RequestKey,
        answer: String,
        _now: Timestamp,
    ) -> Result<String, StorageError> {
        let args = [answer.as_str().into(), REMEMBERED_MS.into()];
        text(
            self.redis
                .script(&self.remember, &[name(key)], &args)
                .await?,
        )
    }
}

fn name(key: RequestKey) -> String {
    format!("ww:{{{}}}:q", key.0)
}

fn text(value: Value) -> Result<String, StorageError> {
    let foreign = || StorageError::Rejected("a key holds another value");
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).map_err(|_| foreign()),
        Value::SimpleString(text) => Ok(text),
        _ => Err(foreign()),
    }
}
