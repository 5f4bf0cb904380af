//! `watchword topology`: the broker's objects, printed or declared.

use std::path::Path;

use watchword_broker::Topology;
use watchword_chassis::telemetry;

use crate::config::Config;
use crate::engine::distributed::rabbitmq_settings;

/// Prints the exchanges, queues and bindings, or declares them at the configured broker.
pub async fn run(path: &Path, apply: bool) -> anyhow::Result<()> {
    let topology = Topology::standard();
    if apply {
        let config = Config::read(path)?;
        telemetry::init(config.log);
        topology.apply(&rabbitmq_settings(&config)?).await?;
        println!(
            "declared {} exchanges and {} queues",
            topology.exchanges.len(),
            topology.queues.len()
        );
    } else {
        println!("{}", serde_json::to_string_pretty(&topology)?);
    }
    Ok(())
}
