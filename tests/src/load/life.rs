//! A verification as the application and the person see it: request a code until it is accepted,
//! wait for the message, enter the code, and try to use it twice. All answers are recorded.

use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{Scene, now_ms};

/// How long an application keeps requesting, and the pause between two requests. Shorter than the
/// resend cooldown, so that every request is for the same message.
const ASK_FOR: Duration = Duration::from_secs(25);
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Delay before a check without an answer is repeated under the same id.
const CHECK_AGAIN: Duration = Duration::from_secs(1);
/// How long a slow typist takes to enter the code.
const TYPING: Duration = Duration::from_secs(2);

/// A request for a code and its answer.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Time of the request.
    pub at_ms: u64,
    /// Time of the answer, or of giving up.
    pub until_ms: u64,
    /// The HTTP status; `None` without an answer.
    pub status: Option<u16>,
    /// The error code of the problem document.
    pub problem: Option<String>,
}

/// The content of a 202.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The id of the verification.
    pub id: String,
    /// The number of the message within the verification.
    pub sends: u8,
    /// The code's deadline, in milliseconds since the epoch.
    pub expires_at_ms: u64,
    /// Time of the answer.
    pub at_ms: u64,
}

/// A check and its final answer.
#[derive(Debug, Clone)]
pub struct Check {
    /// The idempotency id.
    pub check_id: String,
    /// Whether the code was the one in the message.
    pub is_right: bool,
    /// Time of the first attempt.
    pub at_ms: u64,
    /// Time of the final answer.
    pub until_ms: u64,
    /// Number of attempts.
    pub tries: u32,
    /// The verdict; `None` if no attempt was answered.
    pub valid: Option<bool>,
}

/// The record of one verification.
#[derive(Debug, Clone)]
pub struct Life {
    /// The sequence number, from which the recipient is made.
    pub number: u32,
    /// `sms` or `email`.
    pub channel: &'static str,
    /// The recipient.
    pub to: String,
    /// The requests for a code.
    pub asked: Vec<Asked>,
    /// The 202 answers; more than one if the code was requested again.
    pub accepted: Vec<Accepted>,
    /// The checks, in order.
    pub checks: Vec<Check>,
}

impl Life {
    pub(super) fn new(number: u32) -> Self {
        let (channel, to) = if number.is_multiple_of(2) {
            ("sms", format!("+49151{:08}", 10_000_000 + number))
        } else {
            ("email", format!("person{number}@example.org"))
        };
        Self {
            number,
            channel,
            to,
            asked: Vec::new(),
            accepted: Vec::new(),
            checks: Vec::new(),
        }
    }

    /// Returns when the person began to wait.
    pub fn begun_ms(&self) -> u64 {
        self.asked.first().map_or(0, |asked| asked.at_ms)
    }

    /// Returns the number of checks that were answered with `valid: true`.
    pub fn approvals(&self) -> usize {
        let approved = |check: &&Check| check.valid == Some(true);
        self.checks.iter().filter(approved).count()
    }
}

pub(super) async fn live(scene: &Scene, life: &Mutex<Life>) {
    let number = life.lock().expect("a life").number;
    if !ask(scene, life).await {
        return;
    }
    let (to, expires_at_ms) = {
        let life = life.lock().expect("a life");
        let accepted = life.accepted.last().expect("an acceptance");
        (life.to.clone(), accepted.expires_at_ms)
    };
    // Wait slightly longer than the code lives, so that a message after the deadline is recorded.
    // `lifetime` bounds the wait in case the issuer's clock is wrong.
    let said = Duration::from_millis(expires_at_ms.saturating_sub(now_ms()));
    let patience = said.min(scene.lifetime) + Duration::from_secs(2);
    let Ok(arrival) = timeout(patience, scene.mailbox.first(&to)).await else {
        return;
    };
    if number.is_multiple_of(5) {
        let wrong = wrong_of(&arrival.code);
        check(scene, life, "wrong", &wrong, false).await;
    }
    let is_slow = scene.has_slow_typists && number % 3 == 1;
    if is_slow {
        sleep(TYPING).await;
    }
    check(scene, life, "right", &arrival.code, true).await;
    if is_slow {
        sleep(TYPING * 3).await;
    }
    // The same code again under another check id, as by somebody who looked over the shoulder.
    check(scene, life, "again", &arrival.code, true).await;
}

fn wrong_of(code: &str) -> String {
    let last = code.bytes().last().unwrap_or(b'0');
    let other = if last == b'9' { '0' } else { '9' };
    let mut wrong = code.to_owned();
    wrong.pop();
    wrong.push(other);
    wrong
}

/// Requests a code until it is accepted, as a login page does that retries after an error.
async fn ask(scene: &Scene, life: &Mutex<Life>) -> bool {
    let (body, begun) = {
        let life = life.lock().expect("a life");
        (
            json!({ "channel": life.channel, "to": life.to }),
            tokio::time::Instant::now(),
        )
    };
    loop {
        let url = format!("{}/v1/verifications", scene.target.issuer);
        let at_ms = now_ms();
        let (status, answer) = post(scene, &url, &body).await;
        let until_ms = now_ms();
        let problem = answer["code"].as_str().map(ToOwned::to_owned);
        let is_accepted = status == Some(202);
        {
            let mut life = life.lock().expect("a life");
            life.asked.push(Asked {
                at_ms,
                until_ms,
                status,
                problem,
            });
            if is_accepted {
                life.accepted.push(accepted(&answer, until_ms));
                return true;
            }
        }
        if begun.elapsed() >= ASK_FOR {
            return false;
        }
        sleep(ASK_AGAIN).await;
    }
}

fn accepted(answer: &Value, at_ms: u64) -> Accepted {
    let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    let expires_at = watchword_core::Timestamp::from_rfc3339(&text("expires_at"));
    let expires_at_ms = expires_at.map_or(0, watchword_core::Timestamp::as_millis);
    Accepted {
        id: text("id"),
        sends: answer["sends"]
            .as_u64()
            .and_then(|sends| u8::try_from(sends).ok())
            .unwrap_or(0),
        expires_at_ms: u64::try_from(expires_at_ms).unwrap_or(0),
        at_ms,
    }
}

/// Sends a check under one id until it is answered or the code has expired.
async fn check(scene: &Scene, life: &Mutex<Life>, kind: &str, code: &str, is_right: bool) {
    let (id, mut check) = {
        let life = life.lock().expect("a life");
        let id = life.accepted.last().expect("an acceptance").id.clone();
        let check = Check {
            check_id: format!("{kind}-{}", life.number),
            is_right,
            at_ms: now_ms(),
            until_ms: 0,
            tries: 0,
            valid: None,
        };
        (id, check)
    };
    let url = format!("{}/v1/verifications/{id}/check", scene.target.verifier);
    let body = json!({ "code": code, "check_id": check.check_id });
    let begun = tokio::time::Instant::now();
    loop {
        check.tries += 1;
        let (status, answer) = post(scene, &url, &body).await;
        if status == Some(200) {
            check.valid = answer["valid"].as_bool();
            break;
        }
        if begun.elapsed() > scene.lifetime {
            break;
        }
        sleep(CHECK_AGAIN).await;
    }
    check.until_ms = now_ms();
    life.lock().expect("a life").checks.push(check);
}

async fn post(scene: &Scene, url: &str, body: &Value) -> (Option<u16>, Value) {
    let request = scene.http.post(url).bearer_auth(&scene.target.key);
    let Ok(response) = request.json(body).send().await else {
        return (None, Value::Null);
    };
    let status = response.status().as_u16();
    match response.bytes().await {
        Ok(bytes) => (
            Some(status),
            serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        ),
        // A response whose body breaks off counts as none.
        Err(_) => (None, Value::Null),
    }
}
