//! Scans all keys of a pattern. On a cluster it scans each primary in turn, because the client
//! sends a `SCAN` without a route to a random node.

use redis::Value;
use redis::cluster_routing::{
    MultipleNodeRoutingInfo, ResponsePolicy, RoutingInfo, SingleNodeRoutingInfo,
};
use tokio::time::timeout;

use super::Redis;
use super::dial::{Connection, field};
use crate::StorageError;

/// Number of hash slots of a cluster.
const SLOTS: &str = "16384";

impl Redis {
    /// Returns about `count` of the keys that match `pattern`, starting at `cursor`, and the next
    /// cursor, or `None` at the end.
    ///
    /// Keys that are added or removed during the scan may be missing or returned twice. If a
    /// primary of a cluster is not reachable, the result is `Unavailable`: its keys are never
    /// omitted silently.
    pub async fn scan(
        &self,
        cursor: Option<&str>,
        pattern: &str,
        count: usize,
    ) -> Result<(Vec<String>, Option<String>), StorageError> {
        let link = self.pinned()?.link;
        let mut command = redis::cmd("SCAN");
        let (node, place) = match cursor.map(|cursor| cursor.rsplit_once(' ')) {
            Some(Some((node, place))) => (node.to_owned(), place),
            Some(None) => return Err(StorageError::Rejected("an invalid scan cursor")),
            None => (String::new(), "0"),
        };
        command
            .arg(place)
            .arg("MATCH")
            .arg(pattern)
            .arg("COUNT")
            .arg(count);
        let Connection::Cluster(cluster) = &link.connection else {
            let (place, keys) = scanned(self.command(&command).await?)?;
            return Ok((keys, (place != "0").then(|| format!("{node} {place}"))));
        };
        let primaries = self.primaries(&link.connection).await?;
        let first = primaries.first().cloned().unwrap_or_default();
        let node = if cursor.is_none() { first } else { node };
        let own = primaries.iter().position(|primary| *primary == node);
        let own = own.ok_or(StorageError::Unavailable(
            "the cluster changed during the scan",
        ))?;
        let (mut cluster, route) = (cluster.clone(), to(&node)?);
        let answer = timeout(self.deadline, cluster.route_command(command, route));
        let answer = answer.await.map_err(|_| StorageError::Timeout)?;
        let answer = answer.map_err(|error| StorageError::from_redis(&error))?;
        let (place, keys) = scanned(answer)?;
        let next = if place == "0" {
            primaries.get(own + 1).map(|next| format!("{next} 0"))
        } else {
            Some(format!("{node} {place}"))
        };
        Ok((keys, next))
    }

    /// Returns the sorted addresses of all primaries of a cluster.
    async fn primaries(&self, connection: &Connection) -> Result<Vec<String>, StorageError> {
        const AWAY: StorageError =
            StorageError::Unavailable("a primary of the cluster is not reachable");
        let Connection::Cluster(cluster) = connection else {
            return Ok(Vec::new());
        };
        let mut command = redis::cmd("CLUSTER");
        command.arg("INFO");
        let all = RoutingInfo::MultiNode((
            MultipleNodeRoutingInfo::AllMasters,
            Some(ResponsePolicy::Special),
        ));
        let mut cluster = cluster.clone();
        let answer = timeout(self.deadline, cluster.route_command(command, all));
        let answer = answer.await.map_err(|_| AWAY)?.map_err(|_| AWAY)?;
        let Value::Map(pairs) = answer else {
            return Err(AWAY);
        };
        let mut primaries = Vec::with_capacity(pairs.len());
        for (address, info) in &pairs {
            let (address, info) = (text(address).ok_or(AWAY)?, text(info).ok_or(AWAY)?);
            // The client omits a primary that it has no connection to, without an error. Compare
            // the number of answers with the cluster's size.
            let size = field(&info, "cluster_size").and_then(|size| size.parse().ok());
            let is_whole = field(&info, "cluster_state") == Some("ok")
                && field(&info, "cluster_slots_ok") == Some(SLOTS);
            if size != Some(pairs.len()) || !is_whole {
                return Err(AWAY);
            }
            primaries.push(address);
        }
        primaries.sort();
        Ok(primaries)
    }
}

fn to(node: &str) -> Result<RoutingInfo, StorageError> {
    let (host, port) = (node.rsplit_once(':'))
        .and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)))
        .ok_or(StorageError::Rejected("an invalid node address"))?;
    let node = SingleNodeRoutingInfo::ByAddress { host, port };
    Ok(RoutingInfo::SingleNode(node))
}

/// Splits the reply of `SCAN` into the next cursor and the keys.
fn scanned(answer: Value) -> Result<(String, Vec<String>), StorageError> {
    const FOREIGN: StorageError = StorageError::Rejected("a malformed SCAN reply");
    let Value::Array(parts) = answer else {
        return Err(FOREIGN);
    };
    let [cursor, Value::Array(keys)] = &parts[..] else {
        return Err(FOREIGN);
    };
    let keys = keys.iter().map(|key| text(key).ok_or(FOREIGN));
    let keys = keys.collect::<Result<_, _>>()?;
    Ok((text(cursor).ok_or(FOREIGN)?, keys))
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        _ => None,
    }
}
