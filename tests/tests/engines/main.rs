//! The conformance suites of queues and counters on both engines, the harness that starts the peers,
//! and clusters of them.

mod cluster;
mod counters;
mod peers;
mod queues;
