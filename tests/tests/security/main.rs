//! Against whoever reads what the product leaves behind or sends it what it should not: crashes,
//! memory, wires, hostile input, callers who dawdle, timing.

mod crash;
mod crowds;
mod hostile;
mod secrets;
mod timing;

use watchword_tests::{Pipeline, Settings};

async fn embedded() -> Pipeline {
    let mut settings = Settings::embedded();
    settings.service = "[services.test.limits]\nservice_per_minute = 100000".into();
    let mut pipeline = Pipeline::configure(&settings);
    pipeline.start("all", &[]).await;
    pipeline
}
