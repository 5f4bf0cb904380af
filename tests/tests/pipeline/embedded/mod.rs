//! The embedded engine as a user meets it: the demo, the HTTP API with hostile input, a crash, and
//! a search for secrets.

mod config;
mod contract;
mod durability;
mod examples;
mod hostile;
mod sends;

use watchword_tests::{Pipeline, Settings};

async fn running() -> Pipeline {
    let mut pipeline = Pipeline::configure(&Settings::embedded());
    pipeline.start("all", &[]).await;
    pipeline
}
