//! The harness of the end-to-end suites: real peers on free ports in temporary folders, the real
//! binary, and helpers that wait for conditions. It stops every process it has started, by process
//! id. A missing peer fails the test; no test is skipped.

pub mod clock;
pub mod fault;
pub mod gateway;
pub mod load;
pub mod monitoring;
pub mod pipeline;
pub mod postfix;
pub mod process;
pub mod proxy;
pub mod rabbitmq;
pub mod recorder;
pub mod redis;
pub mod sink;
pub mod wait;

pub use clock::SteppedClock;
pub use gateway::Gateway;
pub use pipeline::{Pipeline, Settings};
pub use postfix::Postfix;
pub use process::Process;
pub use proxy::TcpProxy;
pub use rabbitmq::RabbitMq;
pub use recorder::Recorder;
pub use redis::RedisServer;
pub use sink::Sink;
pub use wait::{free_port, until};

/// Installs the TLS provider of this process. Further calls have no effect.
pub fn tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
