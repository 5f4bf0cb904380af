//! A client for the HTTP API, for scripts and smoke tests.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::header::HeaderValue;
use reqwest::{Client, RequestBuilder, Response, Url};
use serde_json::{Value, json};

use crate::cli::{CheckArguments, SendArguments, Server};

const DEADLINE: Duration = Duration::from_secs(10);

/// A client with a deadline, without proxies.
pub fn client() -> anyhow::Result<Client> {
    Client::builder()
        .timeout(DEADLINE)
        .no_proxy()
        .build()
        .context("no HTTP client can be made")
}

/// Returns a request with the key; an error if key or URL cannot be sent.
fn post(server: &Server, path: &str) -> anyhow::Result<RequestBuilder> {
    let base = server.url.trim().trim_end_matches('/');
    let url = Url::parse(&format!("{base}{path}"))
        .context("--url is not a URL; it looks like https://otp.example.org")?;
    let key = server.key.trim_end_matches(['\r', '\n']);
    if HeaderValue::from_str(key).is_err() {
        bail!(
            "the key holds a line break or another character that no key has; check WATCHWORD_KEY"
        );
    }
    Ok(client()?.post(url).bearer_auth(key))
}

/// Asks for a code and prints the answer.
pub async fn send(arguments: SendArguments) -> anyhow::Result<()> {
    let mut body = json!({ "channel": arguments.channel, "to": arguments.to });
    for (name, value) in [("purpose", arguments.purpose), ("locale", arguments.locale)] {
        if let Some(value) = value {
            body[name] = Value::String(value);
        }
    }
    let response = post(&arguments.server, "/v1/verifications")?
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
    let path = format!("/v1/verifications/{}/check", arguments.id);
    let body = json!({ "code": arguments.code });
    let response = post(&arguments.server, &path)?.json(&body).send().await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_or_url_that_cannot_be_sent_is_named() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let post = |url: &str, key: &str| {
            let server = Server {
                url: url.to_owned(),
                key: key.to_owned(),
            };
            post(&server, "/v1/verifications").map_err(|error| error.to_string())
        };
        let request = post("http://127.0.0.1:1/\n", "key\r\n").unwrap();
        let request = request.build().unwrap();
        assert_eq!(request.url().path(), "/v1/verifications");
        assert_eq!(request.headers()["authorization"], "Bearer key");
        assert!(post("http://a", "k\ney").unwrap_err().contains("the key"));
        assert!(post("nonsense", "key").unwrap_err().contains("--url"));
    }
}
