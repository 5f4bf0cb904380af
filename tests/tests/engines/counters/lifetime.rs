//! The lifetime of keys in Redis.

use watchword_core::{SendLimits, SubjectTag};
use watchword_issuer::limits::Counter;

use super::{T0, World, delivery};

#[tokio::test]
async fn every_key_expires() {
    let world = World::redis().await;
    world.claim(&delivery(1), T0).await;
    world.reserve(1, 1, SendLimits::default(), T0).await;
    world
        .limiter
        .admit(&"one".parse().unwrap(), SendLimits::default(), T0)
        .await
        .unwrap();
    let counter = Counter::Subject(SubjectTag::new([1; 10]));
    world.limiter.count(&counter, 1, T0).await.unwrap();
    let redis = world.redis.as_ref().unwrap();
    let keys = redis.command(&["KEYS", "*"]).await;
    let names: Vec<_> = keys
        .lines()
        .filter(|line| line.starts_with("ww:"))
        .collect();
    assert_eq!(names.len(), 4, "{keys}");
    for name in names {
        let ttl = redis.command(&["PTTL", name]).await;
        assert!(
            ttl.trim().trim_start_matches(':').parse::<i64>().unwrap() > 0,
            "{name} has no time to live"
        );
    }
}
