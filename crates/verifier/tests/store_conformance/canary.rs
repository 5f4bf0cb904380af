//! A whole verifier on each store. Afterwards the store contains neither the code nor the
//! recipient, the subject or the message's values in clear.

use std::collections::BTreeMap;
use std::sync::Arc;

use watchword_chassis::config::ServicesConfig;
use watchword_chassis::{Services, SystemEntropy};
use watchword_core::{
    Channel, CheckVerdict, Key, KeyRing, Live, ManualClock, Purpose, Recipient, Sealer, Variables,
};
use watchword_storage::redis::Value;
use watchword_verifier::store::{RedisVerifications, VerificationStore};
use watchword_verifier::{
    Asked, CheckRequest, FallbackStep, Index, OpenRequest, Opener, Opening, Verifier,
    VerifierMetrics, VerifierParts,
};

use crate::engine::{Engine, Place, keys, run, start};
use crate::scene::{NOW, service};

const RECIPIENT: &str = "+4915112345678";
const FALLBACK_TO: &str = "canary.fallback@example.org";
const SUBJECT: &str = "canary.subject@example.org";
const VARIABLE: &str = "canary-of-variables";

pub async fn the_store_shows_no_code_and_no_recipient(engine: &Engine) {
    let services: ServicesConfig = serde_json::from_value(serde_json::json!({
        // Ten digits do not occur by chance.
        "web": { "app": "Canary", "countries": ["*"], "policy": { "code_length": 10 } }
    }))
    .unwrap();
    let services = Services::from_config(&services).unwrap();
    let web = services.by_name(&service("web")).unwrap();
    let opener = opener(engine).await;
    let verifier = opener.verifier();
    let opening = opener.open(web, request()).await.unwrap();
    let Asked::Decided(Opening::Send(message)) = opening else {
        panic!("{opening:?}")
    };
    let (id, code) = (&message.verification.id, message.order.code.expose());
    opener.confirm(&message).await.unwrap();
    nothing_in_clear(engine, code).await;
    let wrong = "0123456789".parse().unwrap();
    let check = verifier
        .check(web, id, CheckRequest::of(wrong))
        .await
        .unwrap();
    assert_eq!(check.verdict, CheckVerdict::Wrong);
    nothing_in_clear(engine, code).await;
    let right = code.parse().unwrap();
    let check = CheckRequest {
        subject: Some(SUBJECT.parse().unwrap()),
        recipient: Some(request().recipient),
        variables: Some(request().variables),
        ..CheckRequest::of(right)
    };
    let check = verifier.check(web, id, check).await.unwrap();
    assert_eq!(check.verdict, CheckVerdict::Approved);
    nothing_in_clear(engine, code).await;
}

fn request() -> OpenRequest {
    let values = BTreeMap::from([("name".to_owned(), VARIABLE.to_owned())]);
    OpenRequest {
        recipient: Recipient::parse(Channel::Sms, RECIPIENT).unwrap(),
        subject: Some(SUBJECT.parse().unwrap()),
        purpose: Purpose::login(),
        locale: None,
        fallback: vec![FallbackStep {
            recipient: Recipient::parse(Channel::Email, FALLBACK_TO).unwrap(),
            after_ms: 30_000,
        }],
        variables: Variables::new(values).unwrap(),
    }
}

async fn opener(engine: &Engine) -> Opener {
    let store: Arc<dyn VerificationStore> = match engine.place() {
        Place::Redis { link, .. } => Arc::new(RedisVerifications::new(link.clone())),
        Place::Sqlite { sqlite, .. } => Arc::new(start(sqlite).await),
    };
    let key = |name: &str, byte| Key::new(name.parse().unwrap(), [byte; 32]);
    let ring = |name, byte| KeyRing::new(vec![key(name, byte)]).unwrap();
    let verifier = Verifier::new(VerifierParts {
        store,
        index: Index::new(key("i1", 1)),
        digest_keys: Live::new(ring("d1", 2)),
        clock: Arc::new(ManualClock::at(NOW)),
        entropy: Arc::new(SystemEntropy),
        metrics: VerifierMetrics::register(&watchword_metrics::prometheus::Registry::new())
            .unwrap(),
    });
    let sealer = Live::new(Sealer::new(ring("s1", 3), Arc::new(SystemEntropy)));
    Opener::new(Arc::new(verifier), sealer)
}

async fn nothing_in_clear(engine: &Engine, code: &str) {
    let held = held(engine).await;
    assert!(held.len() > 100, "the store holds something");
    // The mask may occur: the last two digits.
    for canary in [
        code,
        &RECIPIENT[1..],
        &RECIPIENT[3..12],
        SUBJECT,
        VARIABLE,
        FALLBACK_TO,
    ] {
        let found = held
            .windows(canary.len())
            .any(|part| part == canary.as_bytes());
        assert!(!found, "{canary} stands in the store");
    }
    let seen = held.windows(3).any(|part| part == b"web");
    assert!(seen, "what is in clear would be found");
}

/// Returns every byte of the store: keys and values, or the file and its write-ahead log.
async fn held(engine: &Engine) -> Vec<u8> {
    let mut held = Vec::new();
    match engine.place() {
        Place::Redis { link, .. } => {
            for key in keys(link).await {
                let Value::BulkString(value) = run(link, &["GET", &key]).await else {
                    panic!("{key} holds no text")
                };
                held.extend(key.into_bytes());
                held.extend(value);
            }
        }
        Place::Sqlite { folder, .. } => {
            for entry in std::fs::read_dir(folder.path()).unwrap() {
                held.extend(std::fs::read(entry.unwrap().path()).unwrap());
            }
        }
    }
    held
}
