//! A client for the HTTP API, for scripts and smoke tests.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::{Client, Response};
use serde_json::{Value, json};

use crate::cli::{CheckArguments, SendArguments};

const DEADLINE: Duration = Duration::from_secs(10);

/// A client with a deadline, without proxies.
pub fn client() -> anyhow::Result<Client> {
    Client::builder()
        .timeout(DEADLINE)
        .no_proxy()
        .build()
        .context("no HTTP client can be made")
}

/// Asks for a code and prints the answer.
pub async fn send(arguments: SendArguments) -> anyhow::Result<()> {
    let mut body = json!({ "channel": arguments.channel, "to": arguments.to });
    for (name, value) in [("purpose", arguments.purpose), ("locale", arguments.locale)] {
        if let Some(value) = value {
            body[name] = Value::String(value);
        }
    }
    let url = format!(
        "{}/v1/verifications",
        arguments.server.url.trim_end_matches('/')
    );
    let response = client()?
        .post(url)
        .bearer_auth(arguments.server.key)
        .json(&body)
        .send()
        .await;
    println!(
        "{:#}",
        answer(response.context("the issuer cannot be reached")?).await?
    );
    Ok(())
}

/// Checks a code and prints the answer; an error if it is not right.
pub async fn check(arguments: CheckArguments) -> anyhow::Result<()> {
    let url = format!(
        "{}/v1/verifications/{}/check",
        arguments.server.url.trim_end_matches('/'),
        arguments.id
    );
    let body = json!({ "code": arguments.code });
    let response = client()?
        .post(url)
        .bearer_auth(arguments.server.key)
        .json(&body)
        .send()
        .await;
    let answer = answer(response.context("the verifier cannot be reached")?).await?;
    println!("{answer:#}");
    if answer["valid"] != true {
        bail!("the code is not right");
    }
    Ok(())
}

/// The JSON of a success, or the problem's code and detail as an error.
pub async fn answer(response: Response) -> anyhow::Result<Value> {
    let status = response.status();
    let body: Value = response.json().await.context("the answer is not JSON")?;
    if !status.is_success() {
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        bail!("{status}: {}: {}", text("code"), text("detail"));
    }
    Ok(body)
}
