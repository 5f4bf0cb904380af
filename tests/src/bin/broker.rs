//! Starts the broker that the suites share, prints its address and runs until standard input
//! closes.

use std::io::Read;

use watchword_tests::RabbitMq;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let broker = RabbitMq::start().await;
    println!("{}", broker.address());
    // `tests/run` holds the other end of the pipe, so the broker ends with it, even if it is
    // killed.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
