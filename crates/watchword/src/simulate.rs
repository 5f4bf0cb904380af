//! `watchword simulate`: a simulated SMS gateway and SMTP relay.

use std::path::Path;

use watchword_chassis::config::LogConfig;
use watchword_chassis::lifecycle::stop_signal;
use watchword_chassis::telemetry;
use watchword_simulator::SimulatorError;

use crate::failure::cannot_listen;

/// Runs the simulator with the script `path`, or one that accepts every message, until a signal.
pub async fn run(path: Option<&Path>) -> anyhow::Result<()> {
    telemetry::init(LogConfig::default());
    let stop = async {
        // If no signal handler can be installed, run until the process is killed.
        if stop_signal().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    match watchword_simulator::run(path, stop).await {
        Err(SimulatorError::Listen {
            key,
            address,
            source,
        }) => Err(cannot_listen(key, address, source)),
        ended => Ok(ended?),
    }
}
