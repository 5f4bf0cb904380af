//! A client for the HTTP API, for scripts and smoke tests.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use reqwest::header::HeaderValue;
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde_json::{Value, json};
use watchword_core::{TypedCode, VerificationId};

use crate::cli::{CheckArguments, SendArguments, Server};
use crate::failure::Failure;
use crate::output;
use crate::reach::Unreached;

const DEADLINE: Duration = Duration::from_secs(10);

/// Returns a client with a deadline, without proxies. It follows no redirect, because the target
/// could receive the recipient and the code in clear.
pub fn client() -> anyhow::Result<Client> {
    Client::builder()
        .timeout(DEADLINE)
        .redirect(Policy::none())
        .no_proxy()
        .build()
        .context("cannot create an HTTP client")
}

/// Builds a POST request to `path` with the API key. Returns a usage error if the key is missing or
/// malformed, or the URL is not an HTTP address.
fn post(server: &Server, path: &str) -> anyhow::Result<RequestBuilder> {
    let base = server.url.trim().trim_end_matches('/');
    let url = Url::parse(&format!("{base}{path}"))
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"));
    let url = url.ok_or_else(|| {
        Failure::usage("--url is not an HTTP address; it looks like https://otp.example.org.")
    })?;
    let key = server.key.as_deref().unwrap_or_default();
    let key = key.trim_end_matches(['\r', '\n']);
    if key.is_empty() {
        let text = "No API key. Pass --key or set WATCHWORD_KEY; 'watchword init' prints one.";
        return Err(Failure::usage(text).into());
    }
    if HeaderValue::from_str(key).is_err() {
        return Err(Failure::usage(
            "The key holds a line break or another character that no key has; check WATCHWORD_KEY.",
        )
        .into());
    }
    Ok(client()?.post(url).bearer_auth(key))
}

/// Sends `request` to a process of `role`. Errors name the option to correct.
async fn ask(server: &Server, role: &str, request: RequestBuilder) -> anyhow::Result<Value> {
    let sent = request.send().await;
    let response = sent.map_err(|error| {
        let url = shown(&server.url);
        let text = match Unreached::of(&error) {
            Unreached::Nobody => format!(
                "The {role} cannot be reached. Is 'watchword run' running, and is {url} its http.listen? Pass \
                 --url or set WATCHWORD_URL."
            ),
            other => {
                let advice = other.advice(url.trim_end_matches('/'), "--url or WATCHWORD_URL");
                format!("The {role} cannot be reached: {advice}.")
            }
        };
        // The HTTP library's message repeats the URL, which may contain a password.
        anyhow::Error::new(error.without_url()).context(Failure::new(text))
    })?;
    let status = response.status();
    let advice = match status {
        StatusCode::UNAUTHORIZED => " Check --key and WATCHWORD_KEY.",
        StatusCode::NOT_FOUND => " Check --url and WATCHWORD_URL.",
        _ => "",
    };
    answer(response)
        .await
        .map_err(|error| anyhow::anyhow!("{error:#}.{advice}"))
}

/// Returns `url` without user and password.
fn shown(url: &str) -> String {
    let Ok(mut url) = Url::parse(url.trim()) else {
        return "it".to_owned();
    };
    let _ = (url.set_username(""), url.set_password(None));
    url.to_string()
}

/// Requests a code and prints the answer.
pub async fn send(arguments: SendArguments) -> anyhow::Result<()> {
    let mut body = json!({ "channel": arguments.channel, "to": arguments.to });
    add(&mut body, "subject", arguments.subject);
    add(&mut body, "purpose", arguments.purpose);
    add(&mut body, "locale", arguments.locale);
    let request = post(&arguments.server, "/v1/verifications")?.json(&body);
    let answer = ask(&arguments.server, "issuer", request).await?;
    output::json(&answer)
}

fn add(body: &mut Value, name: &str, value: Option<String>) {
    if let Some(value) = value {
        body[name] = Value::String(value);
    }
}

/// Checks a code and prints the answer. Returns an error if the code is not approved.
pub async fn check(arguments: CheckArguments) -> anyhow::Result<()> {
    // The API reports a malformed id as expired, like an unknown one, so check the form here.
    if arguments.id.parse::<VerificationId>().is_err() {
        let text = "The id is not one of a verification, which has 32 characters of a-z and 2-7: 'watchword send' \
             prints it. Nothing was checked.";
        return Err(Failure::usage(text).into());
    }
    if arguments.code.parse::<TypedCode>().is_err() {
        let text = "The code is not 4 to 10 digits. Nothing was checked.";
        return Err(Failure::usage(text).into());
    }
    let path = format!("/v1/verifications/{}/check", arguments.id);
    let mut body = json!({ "code": arguments.code });
    add(&mut body, "subject", arguments.subject);
    add(&mut body, "purpose", arguments.purpose);
    let request = post(&arguments.server, &path)?.json(&body);
    let answer = ask(&arguments.server, "verifier", request).await?;
    output::json(&answer)?;
    if answer["valid"] != true {
        bail!(
            "The code is not right (status {}).",
            answer["status"].as_str().unwrap_or("unknown")
        );
    }
    Ok(())
}

/// Returns the JSON body of a successful response, or an error with the problem's code and detail.
pub async fn answer(response: Response) -> anyhow::Result<Value> {
    let status = response.status();
    ensure!(
        !status.is_redirection(),
        "the address redirects; name its target"
    );
    let body: Value = response
        .json()
        .await
        .context("the answer is not JSON: is another program at this address?")?;
    if !status.is_success() {
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        bail!("{status}: {}: {}", text("code"), text("detail"));
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_redirect_is_an_error() {
        let redirect = axum::http::Response::builder()
            .status(308)
            .body("")
            .unwrap();
        let error = answer(redirect.into()).await.unwrap_err().to_string();
        assert_eq!(error, "the address redirects; name its target");
    }

    #[test]
    fn a_key_or_url_that_cannot_be_sent_is_named() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let post = |url: &str, key: &str| {
            let server = Server {
                url: url.to_owned(),
                key: Some(key.to_owned()),
            };
            post(&server, "/v1/verifications").map_err(|error| error.to_string())
        };
        let request = post("http://127.0.0.1:1/\n", "key\r\n").unwrap();
        let request = request.build().unwrap();
        assert_eq!(request.url().path(), "/v1/verifications");
        assert_eq!(request.headers()["authorization"], "Bearer key");
        assert!(post("http://a", "k\ney").unwrap_err().contains("The key"));
        assert!(
            post("http://a", "\n")
                .unwrap_err()
                .contains("WATCHWORD_KEY")
        );
        assert!(post("ftp://a", "key").unwrap_err().contains("--url"));
        assert!(post("nonsense", "key").unwrap_err().contains("--url"));
    }
}
