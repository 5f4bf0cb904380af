//! Receipts: forged, replayed, reordered and late ones, and those of a real Kannel.

use std::collections::BTreeMap;
use std::time::Duration;

use data_encoding::HEXLOWER;
use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use watchword_simulator::ReceiptBehaviour;
use watchword_tests::{Gateway, Pipeline, Settings, until};

use super::{RECEIPTS_AT_ONCE, number, outcome_is, sms, two_providers};

#[expect(
    clippy::disallowed_methods,
    reason = "a peer of the pipeline, with a clock of its own"
)]
fn signed(body: &str, secret: &str, age_seconds: u64) -> [(&'static str, String); 2] {
    use std::time::{SystemTime, UNIX_EPOCH};
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
        - age_seconds;
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    let tag = ring::hmac::sign(&key, format!("{now}.{body}").as_bytes());
    [
        ("x-simulator-timestamp", now.to_string()),
        ("x-simulator-signature", HEXLOWER.encode(tag.as_ref())),
    ]
}

/// Forged, replayed, reordered and late receipts change nothing that they should not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_of_every_kind_change_only_what_they_should() {
    let (pipeline, first, second) = two_providers().await;
    let id = pipeline
        .ask("all", "sms", &number(1))
        .await
        .text("id")
        .to_owned();
    outcome_is(&pipeline, "all", &id, 1, "accepted").await;
    let reference = format!("{id}-1");
    let post = |provider: &'static str, body: Value, secret: &'static str, age: u64| {
        let (client, base) = pipeline.raw("all");
        let body = body.to_string();
        let mut request = client.post(format!("{base}/v1/receipts/{provider}?d={reference}"));
        for (name, value) in signed(&body, secret, age) {
            request = request.header(name, value);
        }
        async move { request.body(body).send().await.unwrap().status().as_u16() }
    };
    let word = |status: &str| json!({ "id": "sim-1", "reference": reference, "status": status });
    let good = "simulator-secret";
    assert_eq!(post("first", word("delivered"), "guessed", 0).await, 401);
    assert_eq!(
        post("first", word("delivered"), good, 301).await,
        401,
        "stale"
    );
    assert_eq!(post("nobody", word("delivered"), good, 0).await, 404);
    assert_eq!(
        post("first", json!("{"), good, 0).await,
        204,
        "an unknown state is accepted and changes nothing"
    );
    // A receipt of a provider that never had the message.
    assert_eq!(post("second", word("failed"), good, 0).await, 204);
    // A receipt with an unknown id is accepted and counted after repeated look-ups.
    let unknown =
        json!({ "id": "sim-9", "reference": format!("{}-1", "a".repeat(32)), "status": "failed" });
    assert_eq!(post("first", unknown, good, 0).await, 204);
    assert_eq!(post("first", word("sent"), good, 0).await, 204);
    let status = until(20, "the receipt is shown", || async {
        let status = pipeline.status("all", &id).await.body;
        (status["deliveries"][0]["receipt"]["state"] == "in_flight").then_some(status)
    })
    .await;
    assert_eq!(status["deliveries"][0]["outcome"], "accepted");
    for late in ["delivered", "delivered", "sent", "failed", "expired"] {
        assert_eq!(post("first", word(late), good, 0).await, 204);
    }
    outcome_is(&pipeline, "all", &id, 1, "delivered").await;
    until(40, "all were counted", || async {
        let counted = pipeline
            .total("watchword_receipts_total", &["result=\"repeated\""])
            .await;
        let unknown = pipeline
            .total("watchword_receipts_total", &["result=\"unknown\""])
            .await;
        (counted == 4 && unknown == 2).then_some(())
    })
    .await;
    outcome_is(&pipeline, "all", &id, 1, "delivered").await;
    assert_eq!(
        pipeline
            .total("watchword_receipt_calls_total", &["result=\"forged\""])
            .await,
        2
    );

    // The simulator sends duplicate, reordered and forged receipts for each message; a tenth of the
    // messages fail.
    first.set_sms(sms(|sms| {
        sms.receipts = ReceiptBehaviour {
            duplicate: 1.0,
            reordered: 1.0,
            forged: 1.0,
            failed: 0.1,
            ..RECEIPTS_AT_ONCE
        };
    }));
    let asks = (1_000..1_100).map(|n| {
        let pipeline = &pipeline;
        async move {
            pipeline
                .ask("all", "sms", &number(n))
                .await
                .text("id")
                .to_owned()
        }
    });
    let ids = join_all(asks).await;
    let ended = until(40, "all receipts are applied", || async {
        let mut ended = BTreeMap::<String, usize>::new();
        for id in &ids {
            let status = pipeline.status("all", id).await.body;
            let outcome = status["deliveries"][0]["outcome"]
                .as_str()
                .unwrap()
                .to_owned();
            *ended.entry(outcome).or_default() += 1;
        }
        let last = ended.get("delivered").unwrap_or(&0) + ended.get("failed").unwrap_or(&0);
        (last == 100).then_some(ended)
    })
    .await;
    let told = first.messages().len() + second.messages().len();
    assert_eq!(told, 101);
    assert!(
        (1..30).contains(ended.get("failed").unwrap_or(&0)),
        "{ended:?}"
    );
    assert_eq!(
        pipeline
            .total("watchword_receipt_calls_total", &["result=\"forged\""])
            .await,
        102
    );
}

/// A real Kannel returns its receipts to the URL it was given; the token in that URL is their only
/// proof.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kannels_receipts_come_back() {
    let kannel = Gateway::start().await;
    let mut settings = Settings::embedded();
    settings.providers = format!(
        "[sms.providers.kannel]\nkind = \"kannel\"\nsender = \"Test\"\n\
         settings = {{ base_url = \"{}\", username = \"watchword\" }}\n\
         secrets = {{ password = {{ env = \"KANNEL_PASSWORD\" }}, receipt_token = {{ env = \"KANNEL_TOKEN\" }} }}\n\
         [email.providers.inbox]\nkind = \"inbox\"\n",
        kannel.url()
    );
    let mut pipeline = Pipeline::configure(&settings);
    let token = "a-token-of-kannel";
    for (name, value) in [
        ("KANNEL_PASSWORD", watchword_tests::gateway::PASSWORD),
        ("KANNEL_TOKEN", token),
    ] {
        pipeline.variables.push((name.into(), value.into()));
    }
    pipeline.start("all", &[]).await;
    let id = pipeline
        .ask("all", "sms", &number(1))
        .await
        .text("id")
        .to_owned();
    let status = until(40, "Kannel's receipt has been applied", || async {
        let status = pipeline.status("all", &id).await.body;
        status["deliveries"][0]["receipt"]
            .is_object()
            .then_some(status)
    })
    .await;
    println!("{}", status["deliveries"][0]["receipt"]);
    outcome_is(&pipeline, "all", &id, 1, "delivered").await;
    // Receipts without the right token are refused.
    let (client, base) = pipeline.raw("all");
    for guess in ["", "&token=guessed", "&token=a-token-of-kannel&token=x"] {
        let url = format!("{base}/v1/receipts/kannel?d={id}-1&s=2{guess}");
        assert_eq!(
            client.get(url).send().await.unwrap().status(),
            StatusCode::UNAUTHORIZED
        );
    }
    assert!(!pipeline.logs().contains(token));
}

/// A receipt request whose body is missing or endless is cut off and delays no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_has_a_bound_in_time_and_size() {
    let (pipeline, _first, _second) = two_providers().await;
    let (client, base) = pipeline.raw("all");
    let large = client
        .post(format!("{base}/v1/receipts/first"))
        .body("x".repeat(65 * 1024))
        .send()
        .await
        .unwrap();
    assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let address = base.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = "POST /v1/receipts/first HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 64];
    let read = tokio::time::timeout(Duration::from_secs(8), stream.read(&mut answer)).await;
    let read = read.expect("an answer in time").unwrap();
    assert!(
        answer[..read].starts_with(b"HTTP/1.1 408"),
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
}
