//! The connection to Redis: calls with a deadline over a connection that a supervisor keeps alive.
//! A command that may have run is never repeated.

mod address;
mod dial;
pub(crate) mod examine;
mod scan;
mod supervisor;
mod values;

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Cmd, ErrorKind, ServerErrorKind, Value};
use tokio::time::timeout;
use watchword_core::{Live, SecretString};

use crate::telemetry::Call;
use crate::{Arg, Script, StorageError, StorageMetrics};
pub use address::RedisUrlError;
use address::{Address, Kind};
use supervisor::{Link, Supervisor};

/// Time that an approval waits for a replica. Later calls on the same connection wait with it.
const REPLICA_WAIT_MS: u32 = 100;

/// Address, credentials and deadlines of Redis.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// `redis://host:port/db`, `rediss://…`, `redis+sentinel://h1:p1,h2:p2/service/db`, or
    /// `redis+cluster://h1:p1,h2:p2`; the last two also with `rediss`. It may contain user and
    /// password.
    pub url: SecretString,
    /// A password that takes precedence over one in the URL.
    pub password: Option<SecretString>,
    /// Whether `redis://` may lead to a host beyond loopback.
    pub allow_cleartext: bool,
    /// Deadline of one call, in milliseconds.
    pub command_timeout_ms: u64,
    /// Deadline of connecting, in milliseconds.
    pub connect_timeout_ms: u64,
}

impl RedisSettings {
    /// Creates settings for `url` with deadlines of one second.
    pub const fn new(url: SecretString) -> Self {
        Self {
            url,
            password: None,
            allow_cleartext: false,
            command_timeout_ms: 1_000,
            connect_timeout_ms: 1_000,
        }
    }

    /// Checks whether the URL can be used.
    pub fn check(&self) -> Result<(), RedisUrlError> {
        Address::parse(self).map(|_| ())
    }
}

/// The address and settings for the next connection.
struct Target {
    address: Address,
    settings: RedisSettings,
}

impl Target {
    fn new(settings: RedisSettings) -> Result<Self, StorageError> {
        let address = Address::parse(&settings)?;
        Ok(Self { address, settings })
    }

    const fn command_deadline(&self) -> Duration {
        Duration::from_millis(self.settings.command_timeout_ms)
    }
}

/// A handle to Redis; cheap to clone.
#[derive(Clone)]
pub struct Redis {
    supervisor: Arc<Supervisor>,
    target: Live<Target>,
    deadline: Duration,
    /// Whether sentinels may promote a replica that lacks the latest writes.
    may_fail_over: bool,
    /// Metrics for the calls; `None` counts nothing.
    metrics: Option<StorageMetrics>,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis")
            .field("healthy", &self.is_healthy())
            .finish_non_exhaustive()
    }
}

impl Redis {
    /// Connects, checks version and eviction policy, and keeps the connection alive from then on.
    /// Returns `Unavailable` if the store is not reachable (try again), and `Config` if it must not
    /// be used.
    pub async fn connect(settings: RedisSettings) -> Result<Self, StorageError> {
        let target = Target::new(settings)?;
        let deadline = target.command_deadline();
        let first = dial::dial(&target).await?;
        dial::inspect(first.clone(), deadline).await?;
        let may_fail_over = matches!(target.address.kind, Kind::Sentinel { .. });
        let target = Live::new(target);
        let supervisor = Supervisor::start(target.clone(), first);
        Ok(Self {
            supervisor,
            target,
            deadline,
            may_fail_over,
            metrics: None,
        })
    }

    /// Uses `settings` from the next connection on, for example after the password changed.
    /// Changing the kind of store requires a restart, and is rejected here.
    pub fn redirect(&self, settings: RedisSettings) -> Result<(), StorageError> {
        let target = Target::new(settings)?;
        let before = self.target.get();
        let is_same = std::mem::discriminant(&target.address.kind)
            == std::mem::discriminant(&before.address.kind);
        if !is_same {
            let problem = "redis.url: changing the kind of store requires a restart";
            return Err(StorageError::Config(problem.to_owned()));
        }
        self.target.replace(target);
        Ok(())
    }

    /// Returns the same handle with its calls counted in `metrics`.
    #[must_use]
    pub fn counted(mut self, metrics: StorageMetrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Returns the current connection, for calls that must go over the same one.
    pub fn pinned(&self) -> Result<Pinned<'_>, StorageError> {
        let link = self.supervisor.current();
        let Some(link) = link else {
            let error = StorageError::Unavailable("not connected");
            self.called(Call::Command, Instant::now(), Some(&error));
            return Err(error);
        };
        Ok(Pinned { redis: self, link })
    }

    /// Runs [`Pinned::script`] over the current connection.
    pub async fn script(
        &self,
        script: &Script,
        keys: &[String],
        args: &[Arg<'_>],
    ) -> Result<Value, StorageError> {
        self.pinned()?.script(script, keys, args).await
    }

    fn called(&self, call: Call, begun: Instant, error: Option<&StorageError>) {
        if let Some(metrics) = &self.metrics {
            metrics.called(call, begun, error);
        }
    }

    /// Runs one command that counts nothing.
    pub async fn command(&self, command: &Cmd) -> Result<Value, StorageError> {
        self.pinned()?.command(command).await
    }

    /// Checks that the store answers.
    pub async fn ping(&self) -> Result<(), StorageError> {
        self.command(&redis::cmd("PING")).await.map(|_| ())
    }

    /// Whether the store answered recently. Every call and a ping each second update this.
    pub fn is_healthy(&self) -> bool {
        self.supervisor.is_healthy()
    }
}

/// A single connection to Redis. When it is lost, calls over it fail, even if [`Redis`] has a new
/// one.
pub struct Pinned<'a> {
    redis: &'a Redis,
    link: Arc<Link>,
}

impl Pinned<'_> {
    /// Runs `script` on `keys`, which must be in one slot, at most once. The script is sent again
    /// only if the server answered that it does not know the hash, so it has not run.
    pub async fn script(
        &self,
        script: &Script,
        keys: &[String],
        args: &[Arg<'_>],
    ) -> Result<Value, StorageError> {
        match self
            .run(
                Call::Script,
                &evaluate("EVALSHA", script.hash(), keys, args),
            )
            .await
        {
            Err(Failure::NoScript) => self
                .run(Call::Script, &evaluate("EVAL", script.source(), keys, args))
                .await
                .map_err(Failure::into_error),
            answer => answer.map_err(Failure::into_error),
        }
    }

    /// Waits until a replica has everything that this connection has written, if sentinels may
    /// promote a replica. Replication is asynchronous: a failover loses writes that have not
    /// reached a replica.
    ///
    /// Returns `Timeout` if no replica confirms in time; the writes may then be lost. The server
    /// tracks the replication offset per connection, so this works only on the connection that
    /// wrote.
    pub async fn replicated(&self) -> Result<(), StorageError> {
        if !self.redis.may_fail_over {
            return Ok(());
        }
        let mut wait = redis::cmd("WAIT");
        wait.arg(1).arg(REPLICA_WAIT_MS);
        if matches!(self.command(&wait).await?, Value::Int(1..)) {
            return Ok(());
        }
        tracing::warn!("no Redis replica confirmed a write in time; a failover would lose it");
        Err(StorageError::Timeout)
    }

    async fn command(&self, command: &Cmd) -> Result<Value, StorageError> {
        let answer = self.run(Call::Command, command).await;
        answer.map_err(Failure::into_error)
    }

    async fn run(&self, call: Call, command: &Cmd) -> Result<Value, Failure> {
        let begun = Instant::now();
        let (supervisor, link) = (&self.redis.supervisor, &self.link);
        let deadline = self.redis.deadline;
        let mut is_closed = false;
        let answer = match timeout(deadline, link.connection.query(command)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                Err(Failure::NoScript)
            }
            Ok(Err(error)) => {
                // The cluster client reconnects its sockets; a single connection is replaced by the
                // supervisor.
                is_closed = error.is_connection_dropped() && !supervisor.is_cluster();
                Err(Failure::Error(StorageError::from_redis(&error)))
            }
            Err(_) => Err(Failure::Error(StorageError::Timeout)),
        };
        match &answer {
            Err(_) if is_closed => supervisor.closed(link),
            Err(Failure::Error(error)) => supervisor.failed(link, error),
            _ => supervisor.answered(),
        }
        let error = match &answer {
            Err(Failure::Error(error)) => Some(error),
            _ => None,
        };
        self.redis.called(call, begun, error);
        answer
    }
}

enum Failure {
    NoScript,
    Error(StorageError),
}

impl Failure {
    fn into_error(self) -> StorageError {
        match self {
            Self::NoScript => StorageError::Rejected("the script is unknown"),
            Self::Error(error) => error,
        }
    }
}

fn evaluate(verb: &str, script: &str, keys: &[String], args: &[Arg<'_>]) -> Cmd {
    let bytes = args.iter().map(Arg::room).sum::<usize>() + script.len() + 64 * (keys.len() + 1);
    let mut command = Cmd::with_capacity(args.len() + keys.len() + 3, bytes);
    command
        .arg(verb)
        .arg(script)
        .arg(keys.len())
        .arg(keys)
        .arg(args);
    command
}
