//! The verifications of the demo: request a code, read it in the inbox, enter a wrong one, then the
//! right one, over the HTTP API.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::Style;
use crate::client::{answer, client};

/// The longest time that a message may take to arrive.
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(10);

struct Walk<'a> {
    http: Client,
    url: &'a str,
    key: &'a str,
    style: Style,
}

/// Makes an SMS and an email verification and prints each step with its duration.
pub(super) async fn walk(url: &str, key: &str, style: Style) -> anyhow::Result<()> {
    let walk = Walk {
        http: client()?,
        url,
        key,
        style,
    };
    println!("{}", style.bold("Watchword demo, embedded engine"));
    for (channel, to) in [("sms", "+12025550123"), ("email", "jane.doe@example.org")] {
        walk.verify(channel, to)
            .await
            .with_context(|| format!("the {channel} verification failed"))?;
    }
    println!("\n{}", style.green("both verifications approved"));
    Ok(())
}

impl Walk<'_> {
    async fn verify(&self, channel: &str, to: &str) -> anyhow::Result<()> {
        println!("\n{}", self.style.bold(channel));
        let begun = Instant::now();
        let opened = self
            .post("", json!({ "channel": channel, "to": to }))
            .await?;
        let id = opened["id"]
            .as_str()
            .context("the answer has no id")?
            .to_owned();
        self.step(
            begun,
            &format!(
                "requested a code for {}: verification {id}",
                opened["to"].as_str().unwrap_or("?")
            ),
        );

        let begun = Instant::now();
        let code = timeout(ARRIVAL_DEADLINE, self.arrival(to))
            .await
            .context("no message arrived")??;
        self.step(begun, "the message arrived in the inbox");

        let begun = Instant::now();
        let wrong = if code == "000000" { "000001" } else { "000000" };
        let refused = self
            .post(&format!("/{id}/check"), json!({ "code": wrong }))
            .await?;
        ensure!(
            refused["valid"] == false && refused["status"] == "pending",
            "a wrong code was not refused"
        );
        self.step(begun, "a wrong code was refused");

        let begun = Instant::now();
        let approved = self
            .post(&format!("/{id}/check"), json!({ "code": code }))
            .await?;
        ensure!(
            approved["valid"] == true && approved["status"] == "approved",
            "the right code was not approved"
        );
        self.step(begun, "the right code was approved");

        let begun = Instant::now();
        let again = self
            .post(&format!("/{id}/check"), json!({ "code": code }))
            .await?;
        ensure!(again["valid"] == false, "a used code was approved again");
        self.step(begun, "the same code again was refused");

        let begun = Instant::now();
        let outcome = timeout(ARRIVAL_DEADLINE, self.outcome(&id))
            .await
            .context("the delivery has no outcome")??;
        self.step(begun, &format!("outcome in the ledger: {outcome}"));
        Ok(())
    }

    /// Waits for a message to `to` and returns the code of the newest one.
    async fn arrival(&self, to: &str) -> anyhow::Result<String> {
        loop {
            let request = self
                .http
                .get(format!("{}/inbox/messages", self.url))
                .query(&[("to", to)]);
            let messages = answer(request.send().await?).await?;
            if let Some(body) = messages
                .as_array()
                .and_then(|list| list.last()?["body"].as_str())
            {
                return code_in(body).context("the message has no code");
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn outcome(&self, id: &str) -> anyhow::Result<String> {
        loop {
            let request = self
                .http
                .get(format!("{}/v1/verifications/{id}", self.url))
                .bearer_auth(self.key);
            let status = answer(request.send().await?).await?;
            match status["deliveries"][0]["outcome"].as_str() {
                Some("queued" | "sending") => sleep(Duration::from_millis(5)).await,
                Some(outcome) => return Ok(outcome.to_owned()),
                None => bail!("the status shows no delivery"),
            }
        }
    }

    async fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        let request = self
            .http
            .post(format!("{}/v1/verifications{path}", self.url))
            .bearer_auth(self.key);
        answer(request.json(&body).send().await?).await
    }

    fn step(&self, begun: Instant, what: &str) {
        let took = format!("{:>8.1} ms", begun.elapsed().as_secs_f64() * 1000.0);
        println!("{} {took}  {what}", self.style.green("ok"));
    }
}

/// Returns the first sequence of exactly six digits.
fn code_in(text: &str) -> Option<String> {
    text.split(|c: char| !c.is_ascii_digit())
        .find(|run| run.len() == 6)
        .map(str::to_owned)
}
