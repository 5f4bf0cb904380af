//! Starts the broker that the suites share, prints its address and runs until its standard input ends.

use std::io::Read;

use watchword_tests::RabbitMq;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let broker = RabbitMq::start().await;
    println!("{}", broker.address());
    // `tests/run` holds the other end: the broker ends with `tests/run`, in whatever way that ends.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
