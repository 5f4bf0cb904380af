//! The product's own accounts after a row: its running processes, its metrics, its queues and
//! `watchword audit`.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::row::disagreement;
use super::stand::{Kind, Stand};
use crate::load::{Load, Verdict};

/// Outcomes that a failover may lose: the acceptance of the message was replicated, and its outcome,
/// written up to 3 s later, was not. The message was delivered, which the load's record shows.
const OUTCOMES_LOST: u64 = 5;

/// A retry delay that began late may outlast the load.
const PATIENCE: Duration = Duration::from_secs(60);

impl Stand {
    /// Clears the store, so that an audit covers one row only.
    pub async fn forget(&mut self) {
        if let Some(redis) = &self.redis {
            redis.command(&["FLUSHALL"]).await;
        }
    }

    /// Returns the processes that have ended or have been replaced since `before`, without those
    /// that the row was `expected` to replace.
    pub fn restarted(
        &mut self,
        before: &BTreeMap<String, Option<u32>>,
        expected: &[&str],
    ) -> Vec<String> {
        let now = self.running();
        let changed = now.iter().filter(|(name, id)| {
            id.is_none() || (before.get(*name) != Some(id) && !expected.contains(&name.as_str()))
        });
        changed.map(|(name, _)| format!("{name} ended")).collect()
    }

    /// Returns the number of ended deliveries, summed over the metrics of all processes.
    pub async fn ended_by_metrics(&self) -> u64 {
        self.pipeline
            .total("watchword_deliveries_ended_total", &[])
            .await
    }

    /// Returns every contradiction between the product's accounts and the load's record.
    pub async fn disagreements(&mut self, load: &Load, verdict: &Verdict) -> Vec<String> {
        let mut found = Vec::new();
        let late = self
            .pipeline
            .total("watchword_sends_past_deadline_total", &[])
            .await;
        if late > 0 {
            found.push(format!("the metrics count {late} past their deadline"));
        }
        if self.kind == Kind::Embedded {
            // A process holds the file exclusively, so `watchword audit` cannot read it while that
            // process runs.
            return found;
        }
        found.extend(self.leftovers().await);
        found.extend(self.audited(load, verdict).await);
        found
    }

    async fn leftovers(&self) -> Option<String> {
        let broker = self.rabbitmq.as_ref()?;
        let begun = Instant::now();
        loop {
            let queues = broker.queue_lengths().await;
            let left: Option<Vec<_>> = queues.map(|queues| {
                let left = queues.into_iter();
                left.filter(|(name, count)| *count > 0 && !name.ends_with(".parked"))
                    .collect()
            });
            if left.as_ref().is_some_and(Vec::is_empty) {
                return None;
            }
            if begun.elapsed() > PATIENCE {
                return Some(format!("in the queues: {left:?}"));
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// Compares `watchword audit` with the load's record; returns the difference, if there is one.
    pub async fn audited(&mut self, load: &Load, verdict: &Verdict) -> Option<String> {
        let begun = Instant::now();
        loop {
            let mut command = self.pipeline.command();
            command.envs(self.operator()).arg("audit");
            // The command reaches the peers through the proxies in this process, so the runtime
            // must keep running meanwhile.
            let output = tokio::task::block_in_place(|| command.output()).expect("the binary");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let number = |word: &str| -> Option<u64> {
                let line = text
                    .lines()
                    .find(|line| line.trim_start().starts_with(word))?;
                line.split_whitespace().nth(1)?.parse().ok()
            };
            match (number("accepted"), number("open"), number("lost")) {
                // Records written under a slow clock have expired under a correct one, and a
                // failover loses the writes that were not replicated: the number of accepted
                // messages cannot be compared.
                (Some(_), Some(0), Some(0)) if self.kind == Kind::Clocks => return None,
                (Some(_), Some(0), Some(lost))
                    if self.kind == Kind::Sentinel && lost <= OUTCOMES_LOST =>
                {
                    return None;
                }
                (Some(accepted), Some(0), Some(0)) => {
                    return disagreement("the audit counts", accepted, load, verdict);
                }
                (_, Some(_), Some(0)) if begun.elapsed() < PATIENCE => {
                    sleep(Duration::from_secs(1)).await;
                }
                _ => {
                    let errors = String::from_utf8_lossy(&output.stderr);
                    return Some(format!("audit: {text}{errors}"));
                }
            }
        }
    }
}
