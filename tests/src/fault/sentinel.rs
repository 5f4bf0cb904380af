//! A Redis primary, a replica, and three sentinels that promote the replica.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use crate::RedisServer;
use crate::process::Process;
use crate::wait::{free_port, until};

/// The servers of one failover.
pub struct Sentinels {
    /// The primary at the start.
    pub primary: RedisServer,
    /// The replica that the sentinels promote.
    pub replica: RedisServer,
    ports: Vec<u16>,
    _processes: Vec<Process>,
    _folder: TempDir,
}

impl Sentinels {
    /// Starts all servers and waits until the sentinels know each other and the replica.
    pub async fn start() -> Self {
        let primary = RedisServer::start().await;
        let port = primary.port().to_string();
        let replica = RedisServer::with(&[
            "--appendonly",
            "yes",
            "--replicaof",
            &format!("127.0.0.1 {port}"),
            "--repl-diskless-sync-delay",
            "0",
        ])
        .await;
        until(20, "the replica is in sync", || async {
            let info = replica.command(&["INFO", "replication"]).await;
            info.contains("master_link_status:up").then_some(())
        })
        .await;
        let folder = tempfile::Builder::new()
            .prefix("watchword-sentinel-")
            .tempdir()
            .expect("a folder");
        let (mut ports, mut processes) = (Vec::new(), Vec::new());
        for number in 0..3 {
            let own = free_port();
            let path = folder.path().join(format!("{number}.conf"));
            let text = format!(
                "port {own}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {port} 2\n\
                 sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 10000\n",
                folder.path().display()
            );
            fs::write(&path, text).expect("a config");
            let mut command = Command::new("redis-sentinel");
            command.arg(&path);
            let output = folder.path().join(format!("{number}.log"));
            processes.push(Process::start(command, &output));
            ports.push(own);
        }
        let sentinels = Self {
            primary,
            replica,
            ports,
            _processes: processes,
            _folder: folder,
        };
        let replica_port = sentinels.replica.port().to_string();
        for port in &sentinels.ports {
            until(30, "a sentinel knows the others", || async {
                let replicas = RedisServer::ask(*port, &["SENTINEL", "replicas", "main"]).await?;
                let others = RedisServer::ask(*port, &["SENTINEL", "sentinels", "main"]).await?;
                (replicas.contains(&replica_port) && others.starts_with("*2")).then_some(())
            })
            .await;
        }
        sentinels
    }

    /// Returns `redis+sentinel://…`.
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self
            .ports
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        format!("redis+sentinel://{}/main/0", hosts.join(","))
    }
}
