//! Connecting, and requirements on the server: Redis 7.0 or Valkey 7.2 with the policy
//! `noeviction`. A store that evicts keys would forget codes and, worse, guess counts.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, ResponsePolicy, RoutingInfo};
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{AsyncConnectionConfig, Client, Cmd, IntoConnectionInfo, RedisError, TlsMode, Value};
use tokio::time::timeout;
use watchword_dial::TlsFault;

use super::Target;
use super::address::{Address, Kind, Node};
use crate::StorageError;

/// A connection to a single server or to a cluster; clones share it.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    pub(super) async fn query(&self, command: &Cmd) -> Result<Value, RedisError> {
        match self {
            Self::Single(connection) => command.query_async(&mut connection.clone()).await,
            // Boxed: this future is several times larger than the other, and every call would carry
            // its size.
            Self::Cluster(connection) => {
                Box::pin(command.query_async(&mut connection.clone())).await
            }
        }
    }
}

/// Connects within the connect deadline.
pub(super) async fn dial(target: &Target) -> Result<Connection, StorageError> {
    let deadline = Duration::from_millis(target.settings.connect_timeout_ms);
    let (address, command) = (&target.address, target.command_deadline());
    let dialled = timeout(deadline * 2, async {
        match &address.kind {
            Kind::Single(node) => single(node, address, deadline)
                .await
                .map(Connection::Single),
            Kind::Sentinel { nodes, service } => sentinel(nodes, service, address, deadline)
                .await
                .map(Connection::Single),
            Kind::Cluster(nodes) => cluster(nodes, address, deadline, command)
                .await
                .map(Connection::Cluster),
        }
    });
    match dialled.await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(match StorageError::from_redis(&error) {
            StorageError::Timeout => StorageError::Unavailable(
                TlsFault::of(&error).map_or("the connection failed", TlsFault::advice),
            ),
            StorageError::Rejected(_) => StorageError::Unavailable("the connection was refused"),
            other => other,
        }),
        Err(_) => Err(StorageError::Unavailable("connecting timed out")),
    }
}

/// TCP options: no delay for small writes, and a connection fails when the peer acknowledges
/// nothing for 5 s.
fn tcp() -> TcpSettings {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(5));
    let settings = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(Duration::from_secs(5));
    settings
}

/// Disables the client's response timeout: every call has a deadline here.
fn config(connect: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(connect))
        .set_response_timeout(None)
}

async fn single(
    node: &Node,
    address: &Address,
    connect: Duration,
) -> Result<MultiplexedConnection, RedisError> {
    let info = node
        .address(address.tls)
        .into_connection_info()?
        .set_tcp_settings(tcp())
        .set_redis_settings(address.login());
    Client::open(info)?
        .get_multiplexed_async_connection_with_config(&config(connect))
        .await
}

async fn sentinel(
    nodes: &[Node],
    service: &str,
    address: &Address,
    connect: Duration,
) -> Result<MultiplexedConnection, RedisError> {
    let sentinels = nodes.iter().map(|node| node.address(address.tls));
    let mut builder = SentinelClientBuilder::new(sentinels, service, SentinelServerType::Master)?
        .set_client_to_redis_db(address.database)
        .set_client_to_redis_tcp_settings(tcp())
        .set_client_to_sentinel_tcp_settings(tcp());
    if address.tls {
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_sentinel_tls_mode(TlsMode::Secure);
    }
    if let Some(user) = &address.user {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = &address.password {
        builder = builder.set_client_to_redis_password(password);
    }
    builder
        .build()?
        .get_async_connection_with_config(&config(connect))
        .await
}

/// Connects to a cluster with the client's retries disabled: the client repeats a command after a
/// timeout, and a script that counts would count twice.
async fn cluster(
    nodes: &[Node],
    address: &Address,
    connect: Duration,
    command: Duration,
) -> Result<ClusterConnection, RedisError> {
    let nodes = nodes
        .iter()
        .map(|node| node.address(address.tls).into_connection_info());
    let mut builder = ClusterClient::builder(nodes.collect::<Result<Vec<_>, _>>()?)
        .retries(0)
        .connection_timeout(connect)
        .response_timeout(command + Duration::from_millis(500))
        .tcp_settings(tcp());
    if address.tls {
        builder = builder.tls(TlsMode::Secure);
    }
    if let Some(user) = &address.user {
        builder = builder.username(user);
    }
    if let Some(password) = &address.password {
        builder = builder.password(password);
    }
    builder.build()?.get_async_connection().await
}

/// Checks version, eviction policy and role of every primary.
pub(super) async fn inspect(
    connection: Connection,
    deadline: Duration,
) -> Result<(), StorageError> {
    let texts = infos(connection, deadline).await?;
    if texts.is_empty() {
        return Err(StorageError::Config(
            "the server does not report its version".to_owned(),
        ));
    }
    texts.iter().try_for_each(|info| inspect_info(info))?;
    if texts
        .iter()
        .any(|info| info.lines().any(|line| line.trim() == "role:slave"))
    {
        return Err(StorageError::Unavailable("read-only"));
    }
    Ok(())
}

/// Returns the INFO text of every primary.
pub(super) async fn infos(
    connection: Connection,
    deadline: Duration,
) -> Result<Vec<String>, StorageError> {
    let mut command = redis::cmd("INFO");
    command.arg("everything");
    let answer = match connection {
        Connection::Single(mut connection) => {
            timeout(deadline, command.query_async::<Value>(&mut connection)).await
        }
        Connection::Cluster(mut connection) => {
            let primaries = RoutingInfo::MultiNode((
                MultipleNodeRoutingInfo::AllMasters,
                Some(ResponsePolicy::Special),
            ));
            timeout(deadline, connection.route_command(command, primaries)).await
        }
    };
    let answer = answer.map_err(|_| StorageError::Unavailable("the server does not answer"))?;
    let answer = answer.map_err(|error| match StorageError::from_redis(&error) {
        StorageError::Timeout => StorageError::Unavailable("the server does not answer"),
        other => other,
    })?;
    let mut texts = Vec::new();
    collect_texts(&answer, &mut texts);
    Ok(texts)
}

/// Collects the INFO texts of a reply, which is one text or a map by node.
fn collect_texts(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::BulkString(bytes) => {
            let text = String::from_utf8_lossy(bytes).into_owned();
            // The keys of a map by node are addresses, which have no such field.
            if text.contains("redis_version:") {
                texts.push(text);
            }
        }
        Value::VerbatimString { text, .. } => texts.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| collect_texts(value, texts)),
        Value::Map(pairs) => pairs
            .iter()
            .for_each(|(_, value)| collect_texts(value, texts)),
        _ => {}
    }
}

/// Returns the value of the field `name` in an INFO text.
pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

fn inspect_info(info: &str) -> Result<(), StorageError> {
    let field = |name: &str| field(info, name);
    let (name, version, least) = match field("valkey_version") {
        Some(version) => ("Valkey", version, (7, 2)),
        None => ("Redis", field("redis_version").unwrap_or("0"), (7, 0)),
    };
    let mut parts = version
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if found < least {
        return Err(StorageError::Config(format!(
            "{name} {}.{} or newer is required",
            least.0, least.1
        )));
    }
    match field("maxmemory_policy") {
        Some("noeviction") => Ok(()),
        Some(_) => Err(StorageError::Config(
            "its maxmemory-policy must be noeviction: other policies evict codes and guess counts"
                .to_owned(),
        )),
        None => Err(StorageError::Config(
            "it does not report its maxmemory-policy".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_evicting_servers_are_refused() {
        let info = |version: &str, policy: &str| {
            format!("# Server\r\n{version}\r\nmaxmemory_policy:{policy}\r\n")
        };
        assert_eq!(
            inspect_info(&info("redis_version:7.0.15", "noeviction")),
            Ok(())
        );
        assert_eq!(
            inspect_info(&info(
                "redis_version:7.2.4\r\nvalkey_version:8.1.0",
                "noeviction"
            )),
            Ok(())
        );
        for (version, policy) in [
            ("redis_version:6.2.9", "noeviction"),
            ("redis_version:7.0.15", "allkeys-lru"),
            ("redis_version:7.0.15", "volatile-ttl"),
            ("x:1", "noeviction"),
        ] {
            assert!(
                matches!(
                    inspect_info(&info(version, policy)),
                    Err(StorageError::Config(_))
                ),
                "{version} {policy}"
            );
        }
    }
}
