//! The time of a refusal does not reveal its reason.
//!
//! Used, expired and unknown verifications get the same answer and must take equally long. The test
//! asks for them in turn, so that other load on the machine affects all alike. Between them it
//! sends a wrong code for a live verification: that answers `pending` and counts with a write,
//! which takes longer; its time is printed and not asserted.
//!
//! Two figures must hold for each pair: the medians differ by less than 0.5 ms, and the share of
//! samples of one that are slower than those of the other is near one half. The time of a right
//! code is not tested, because its answer says that it was right.

use std::time::{Duration, Instant};

use watchword_tests::pipeline::code_in;
use watchword_tests::{Pipeline, Settings, Sink, until};

const ROUNDS: usize = 2_000;
const MEDIANS: Duration = Duration::from_micros(500);

/// Returns the share of pairs in which the left sample is slower: 0.5 for two samples of one
/// distribution.
fn slower(left: &[Duration], right: &[Duration]) -> f64 {
    let mut all: Vec<_> = left.iter().map(|one| (*one, true)).collect();
    all.extend(right.iter().map(|one| (*one, false)));
    all.sort_unstable();
    let (mut below, mut pairs) = (0_u32, 0.0);
    for (_, is_left) in all {
        if is_left {
            pairs += f64::from(below);
        } else {
            below += 1;
        }
    }
    let total = f64::from(u32::try_from(left.len() * right.len()).unwrap());
    pairs / total
}

fn median(samples: &[Duration]) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

/// Opens a verification and returns its id and the code from the mail.
async fn verification(pipeline: &Pipeline, sink: &Sink, to: &str) -> (String, String) {
    let answer = pipeline.ask("all", "email", to).await;
    assert_eq!(answer.status, 202, "{:?}", answer.body);
    let code = until(20, "the mail", || async {
        let mail = sink.mails().into_iter().find(|mail| mail.to == to)?;
        Some(code_in(mail.data.split_once("text/plain")?.1))
    })
    .await;
    (answer.text("id").to_owned(), code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_take_alike() {
    let sink = Sink::start().await;
    let mut settings = Settings::embedded();
    settings.providers = format!(
        "[email.providers.relay]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\n\
         tls = \"none\"\nfrom = \"Test <no-reply@mail.example.org>\"\n\
         [sms.providers.inbox]\nkind = \"inbox\"\n",
        sink.port()
    );
    settings.service = "[services.test.policy]\nlifetime_seconds = 30\n\
                        [services.test.limits]\nservice_per_minute = 100000"
        .into();
    let mut pipeline = Pipeline::configure(&settings);
    pipeline.start("all", &[]).await;
    let (expired, expired_code) = verification(&pipeline, &sink, "expired@example.org").await;
    until(60, "the verification has expired", || async {
        (pipeline.status("all", &expired).await.text("status") == "expired").then_some(())
    })
    .await;
    let (used, used_code) = verification(&pipeline, &sink, "used@example.org").await;
    let right = pipeline.check("all", &used, &used_code).await;
    assert_eq!(right.body["valid"], true);
    let unknown = "b".repeat(used.len());
    let mut wrong = String::new();
    let mut samples = [const { Vec::new() }; 4];
    for round in 0..ROUNDS + 100 {
        // The fifth wrong code would end a verification, so replace it after the fourth.
        if round % 4 == 0 {
            let answer = pipeline
                .ask("all", "email", &format!("wrong{round}@example.org"))
                .await;
            answer.text("id").clone_into(&mut wrong);
        }
        // Ten digits instead of six can never be right.
        let kinds = [
            (wrong.as_str(), "0000000000"),
            (&used, &used_code),
            (&expired, &expired_code),
            (&unknown, "0000000000"),
        ];
        for offset in 0..kinds.len() {
            let kind = (round + offset) % kinds.len();
            let (id, code) = kinds[kind];
            let begun = Instant::now();
            let answer = pipeline.check("all", id, code).await;
            let took = begun.elapsed();
            assert_eq!(answer.body["valid"], false, "{kind} {:?}", answer.body);
            if round >= 100 {
                samples[kind].push(took);
            }
        }
    }
    for (one, left) in samples.iter().enumerate() {
        for (other, right) in samples.iter().enumerate().skip(one + 1) {
            let (apart, share) = (median(left).abs_diff(median(right)), slower(left, right));
            println!(
                "{one} {:?}, {other} {:?}: slower {share:.3}",
                median(left),
                median(right)
            );
            assert!(
                one == 0 || apart < MEDIANS && (0.2..0.8).contains(&share),
                "{one} and {other}: medians {apart:?} apart, slower {share:.3}"
            );
        }
    }
}
