//! Tests that the simulator follows its configuration.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use watchword_simulator::{Outcome, Simulator, SimulatorConfig, SmsBehaviour, SmtpBehaviour};

async fn running() -> Simulator {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Simulator::start(SimulatorConfig {
        seed: 7,
        sms: Some(SmsBehaviour::default()),
        smtp: Some(SmtpBehaviour::default()),
    })
    .await
    .unwrap()
}

async fn submit(simulator: &Simulator, to: &str, token: &str) -> Option<(u16, Value)> {
    let url = format!("http://{}/messages", simulator.sms_address().unwrap());
    let client = Client::builder()
        .no_proxy()
        .timeout(Duration::from_millis(500))
        .build()
        .unwrap();
    let body = json!({ "to": to, "from": "Test", "text": "012345", "ttl": 200 });
    let response = client
        .post(url)
        .bearer_auth(token)
        .json(&body)
        .send()
        .await
        .ok()?;
    Some((response.status().as_u16(), response.json().await.ok()?))
}

#[test]
fn the_commented_file_is_complete_and_parses() {
    let text = include_str!("../../../config/simulate.toml");
    let config: SimulatorConfig = toml::from_str(text).unwrap();
    assert!(config.sms.unwrap().outcomes.contains_key(&Outcome::Hang));
    assert!(toml::from_str::<SimulatorConfig>("[sms]\nnosuch = 1").is_err());
}

#[tokio::test]
async fn the_gateway_answers_as_its_numbers_say() {
    let simulator = running().await;
    let table = [
        (Outcome::Accepted, Some(202), 1),
        (Outcome::RecipientInvalid, Some(422), 0),
        (Outcome::RecipientBlocked, Some(422), 0),
        (Outcome::MessageRejected, Some(422), 0),
        (Outcome::Transient, Some(503), 0),
        (Outcome::ConfigFault, Some(403), 0),
        (Outcome::Throttled, Some(429), 0),
        (Outcome::Hang, None, 0),
        (Outcome::DropBeforeAccept, None, 0),
        (Outcome::DropAfterAccept, None, 1),
    ];
    let mut kept = 0;
    for (outcome, status, keeps) in table {
        simulator.set_sms(SmsBehaviour {
            numbers: BTreeMap::from([("*0001".to_owned(), outcome)]),
            ..SmsBehaviour::default()
        });
        let answer = submit(&simulator, "+15550000001", "simulator").await;
        assert_eq!(answer.map(|(status, _)| status), status, "{outcome:?}");
        kept += keeps;
        assert_eq!(simulator.messages().len(), kept, "{outcome:?}");
    }
    assert_eq!(
        submit(&simulator, "+15550000002", "guessed")
            .await
            .unwrap()
            .0,
        401
    );
}

#[tokio::test]
async fn it_throttles_and_draws_by_shares() {
    let simulator = running().await;
    simulator.set_sms(SmsBehaviour {
        throttle_per_second: Some(5),
        ..SmsBehaviour::default()
    });
    let mut throttled = 0;
    for _ in 0..12 {
        throttled += u32::from(
            submit(&simulator, "+15550000002", "simulator")
                .await
                .unwrap()
                .0
                == 429,
        );
    }
    assert!(throttled >= 2, "{throttled}");
    simulator.set_sms(SmsBehaviour {
        outcomes: BTreeMap::from([(Outcome::Transient, 0.5)]),
        ..SmsBehaviour::default()
    });
    let mut refused = 0;
    for _ in 0..100 {
        refused += u32::from(
            submit(&simulator, "+15550000002", "simulator")
                .await
                .unwrap()
                .0
                == 503,
        );
    }
    assert!((30..70).contains(&refused), "{refused}");
}

#[tokio::test]
async fn the_relay_greylists_once_and_keeps_what_it_takes() {
    let simulator = running().await;
    simulator.set_smtp(SmtpBehaviour {
        greylist: true,
        ..SmtpBehaviour::default()
    });
    let stream = TcpStream::connect(simulator.smtp_address().unwrap())
        .await
        .unwrap();
    let mut stream = BufReader::new(stream);
    let mut replies = Vec::new();
    let dialogue = [
        "",
        "HELO me",
        "MAIL FROM:<a@example.org>",
        "RCPT TO:<b@example.org>",
        "RCPT TO:<b@example.org>",
        "DATA",
        "Subject: hi\r\n\r\n012345\r\n.",
        "QUIT",
    ];
    for line in dialogue {
        if !line.is_empty() {
            stream
                .get_mut()
                .write_all(format!("{line}\r\n").as_bytes())
                .await
                .unwrap();
        }
        let mut reply = String::new();
        stream.read_line(&mut reply).await.unwrap();
        replies.push(reply[..3].to_owned());
    }
    assert_eq!(
        replies,
        ["220", "250", "250", "450", "250", "354", "250", "221"]
    );
    let kept = simulator.messages();
    assert_eq!((kept.len(), kept[0].to.as_str()), (1, "b@example.org"));
    assert!(kept[0].text.contains("012345"));
}
