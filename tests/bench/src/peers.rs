//! Private broker and store on free ports, with temporary folders.

use anyhow::Context;
use reqwest::Method;
use serde_json::{Value, json};
use watchword_tests::process::descendants;
use watchword_tests::{RabbitMq, RedisServer};

/// Broker and store with their processes.
pub struct Peers {
    /// The broker.
    pub broker: RabbitMq,
    /// The store.
    pub store: RedisServer,
    /// Processes of the broker.
    pub broker_processes: Vec<u32>,
    /// Processes of the store.
    pub store_processes: Vec<u32>,
}

impl Peers {
    /// Starts both peers.
    pub async fn start() -> Self {
        let us = std::process::id();
        let store = RedisServer::start().await;
        let store_processes = descendants(us);
        let broker = RabbitMq::start().await;
        let mut broker_processes = descendants(us);
        broker_processes.retain(|id| !store_processes.contains(id));
        Self {
            broker,
            store,
            broker_processes,
            store_processes,
        }
    }

    /// Clears the store of what the previous system left.
    pub async fn clear(&self) {
        self.store.command(&["FLUSHALL"]).await;
    }

    /// Returns the memory that the store's data takes, in bytes.
    pub async fn store_bytes(&self) -> anyhow::Result<f64> {
        let info = self.store.command(&["INFO", "memory"]).await;
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix("used_memory:"));
        line.and_then(|bytes| bytes.trim().parse().ok())
            .context("the store's memory")
    }

    /// Returns the number of keys in the store.
    pub async fn keys(&self) -> anyhow::Result<f64> {
        let count = self.store.command(&["DBSIZE"]).await;
        let count = count.trim().trim_start_matches(':').parse();
        count.context("the store's keys")
    }

    /// Returns the versions of broker and store, and the number of processors.
    pub async fn versions(&self) -> anyhow::Result<Value> {
        let broker = self.broker.call(Method::GET, "overview", None).await;
        let store = self.store.command(&["INFO", "server"]).await;
        let store = store
            .lines()
            .find_map(|line| line.strip_prefix("redis_version:"));
        Ok(json!({
            "processors": std::thread::available_parallelism()?.get(),
            "rabbitmq": broker.context("the broker's version")?["rabbitmq_version"],
            "redis": store.map(str::trim),
        }))
    }
}
