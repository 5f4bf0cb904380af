//! Failover: one of two providers is dead, hangs, or may have accepted the message.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::StatusCode;
use watchword_simulator::{Outcome, Simulator};
use watchword_tests::{Pipeline, Settings, until};

use super::{number, outcome_is, ports, settings_of, simulator, sms, two_providers, with_secrets};

/// Requests `count` codes at a steady pace and returns how long each took until a provider had it.
async fn hand_over(
    pipeline: &Pipeline,
    takers: &[&Simulator],
    from: usize,
    count: usize,
) -> Vec<Duration> {
    let asks = (from..from + count).map(|n| async move {
        tokio::time::sleep(Duration::from_millis((n - from) as u64 * 10)).await;
        let begun = Instant::now();
        let answer = pipeline.ask("all", "sms", &number(n)).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{:?}", answer.body);
        (number(n), begun)
    });
    let wanted: Vec<String> = (from..from + count).map(number).collect();
    let watch = async {
        let mut seen = BTreeMap::new();
        let deadline = Instant::now() + Duration::from_secs(60);
        while seen.len() < count && Instant::now() < deadline {
            for message in takers.iter().flat_map(|taker| taker.messages()) {
                if wanted.contains(&message.to) {
                    seen.entry(message.to).or_insert_with(Instant::now);
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        seen
    };
    let (asked, seen) = tokio::join!(join_all(asks), watch);
    assert_eq!(seen.len(), count, "every code was handed over");
    asked
        .into_iter()
        .map(|(to, begun)| seen[&to].saturating_duration_since(begun))
        .collect()
}

fn worst(times: &[Duration]) -> Duration {
    *times.iter().max().unwrap()
}

/// Codes get through while one of two providers is dead, and after it has recovered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes_get_through_with_one_provider_dead_or_hanging() {
    let (pipeline, first, second) = two_providers().await;
    let normal = hand_over(&pipeline, &[&first, &second], 0, 300).await;
    assert!(second.messages().is_empty(), "the first in order takes all");

    // The provider closes every connection before it accepts a message.
    first.set_sms(sms(|sms| {
        sms.outcomes = BTreeMap::from([(Outcome::DropBeforeAccept, 1.0)]);
    }));
    let dead = hand_over(&pipeline, &[&first, &second], 1_000, 1_000).await;
    let late = dead
        .iter()
        .filter(|took| **took > worst(&normal) + Duration::from_secs(2));
    let late = late.count();
    println!(
        "normal worst {:?}; dead worst {:?}, {late} of 1000 late",
        worst(&normal),
        worst(&dead)
    );
    assert!(
        late <= 1,
        "99.9 % within 2 s more than normal: {late} were not"
    );
    let metrics = pipeline.metrics("all").await;
    let share = metrics["watchword_provider_share_tenths{channel=\"sms\",provider=\"first\"}"];
    assert!(share < 10.0, "{share}");

    // After recovery the provider first gets half-open probes, then its share in steps.
    first.set_sms(sms(|_| {}));
    let before = first.messages().len();
    let mut seen = Vec::new();
    for round in 0..60 {
        hand_over(&pipeline, &[&first, &second], 10_000 + round * 100, 10).await;
        let metrics = pipeline.metrics("all").await;
        let share = metrics["watchword_provider_share_tenths{channel=\"sms\",provider=\"first\"}"];
        if seen.last() != Some(&share) {
            seen.push(share);
        }
        if share >= 1.0 && first.messages().len() > before {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(seen, [0.0, 1.0], "circuit open, then the first step");
}

/// A provider that may have accepted a message and recognizes repeats gets the repeat. Another
/// provider would send the person a second message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_goes_where_it_is_recognised() {
    let (first, second) = (simulator().await, simulator().await);
    let mut settings = settings_of(Settings::embedded(), ports(&first), ports(&second));
    settings.providers = settings
        .providers
        .replacen("method =", "idempotent = true\nmethod =", 1)
        .replacen(
            "[[sms.routes]]\nproviders = [\"first\", \"second\"]",
            "[[sms.routes]]\nchoose = \"weighted\"\nproviders = [\"first\", \"second\"]",
            1,
        );
    let mut pipeline = with_secrets(Pipeline::configure(&settings));
    pipeline.start("all", &[]).await;
    first.set_sms(sms(|sms| {
        sms.outcomes = BTreeMap::from([(Outcome::DropAfterAccept, 1.0)]);
    }));
    let at = |simulator: &Simulator, to: &str| {
        let messages = simulator.messages();
        messages.iter().filter(|message| message.to == to).count()
    };
    // Few enough failures for the provider's circuit to stay closed.
    let (mut ids, mut unheard) = (Vec::new(), Vec::new());
    while unheard.len() < 2 {
        let to = number(ids.len());
        let answer = pipeline.ask("all", "sms", &to).await;
        ids.push(answer.text("id").to_owned());
        until(10, "a provider has the message", || async {
            (at(&first, &to) + at(&second, &to) > 0).then_some(())
        })
        .await;
        unheard.extend((at(&first, &to) > 0).then_some(to));
    }
    // While the provider is busy with the repeat it is asked once more, and no other provider is.
    first.set_sms(sms(|sms| {
        sms.outcomes = BTreeMap::from([(Outcome::Transient, 1.0)]);
    }));
    until(10, "the provider was busy with both messages", || async {
        let busy = pipeline.total("watchword_attempts_total", &["first", "transient"]);
        (busy.await == 2).then_some(())
    })
    .await;
    first.set_sms(sms(|_| {}));
    for id in &ids {
        outcome_is(&pipeline, "all", id, 1, "accepted").await;
    }
    for to in &unheard {
        assert_eq!((at(&first, to) > 1, at(&second, to)), (true, 0), "{to}");
    }
}

/// A hanging provider delays only the first messages by its timeout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_provider_costs_the_first_ones_its_timeout() {
    let (pipeline, first, second) = two_providers().await;
    let normal = hand_over(&pipeline, &[&first, &second], 0, 100).await;
    first.set_sms(sms(|sms| {
        sms.outcomes = BTreeMap::from([(Outcome::Hang, 1.0)]);
    }));
    let hanging = hand_over(&pipeline, &[&first, &second], 1_000, 200).await;
    // The timeout of the first provider, and a second for the other one.
    let limit = Duration::from_secs(2 + 1) + worst(&normal);
    println!(
        "normal worst {:?}; hanging worst {:?}",
        worst(&normal),
        worst(&hanging)
    );
    assert!(worst(&hanging) < limit, "{:?}", worst(&hanging));
    let after = hand_over(&pipeline, &[&first, &second], 2_000, 200).await;
    // Half-open probes may still take the timeout.
    let slow = after
        .iter()
        .filter(|took| **took > worst(&normal) + Duration::from_secs(1));
    assert!(slow.count() <= 2, "{:?}", worst(&after));
}
