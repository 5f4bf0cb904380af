//! Authentication at gateways: compiled credentials and a cache for OAuth 2 tokens. Types that hold
//! a secret have no `Debug`, so that no log can print it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use reqwest::{Client, Request};
use serde::Deserialize;
use tokio::sync::Mutex;
use watchword_chassis::config::ConfigError;
use watchword_core::{Clock, SecretString, Timestamp};
use watchword_dial::TlsFault;

use super::config::AuthConfig;
use super::placeholder::{Settings, Template};
use super::request::checked_url;
use super::sigv4::Signer;
use crate::config::Secrets;
use crate::payload;

/// Lifetime of a JWT, the maximum that the gateways allow.
const JWT_LIFE_SECONDS: i64 = 900;
/// How long before its expiry a token is renewed.
const TOKEN_MARGIN_MS: u64 = 60_000;
/// Age from which a refused token counts as one that worked before and was revoked. A younger one
/// was never valid, which is a configuration fault.
const TOKEN_PROVEN_MS: u64 = 5_000;
const TOKEN_DEADLINE: Duration = Duration::from_secs(5);

pub(super) enum Auth {
    None,
    Basic(String, SecretString),
    Bearer(SecretString),
    Header(HeaderName, HeaderValue),
    Query(Vec<(String, SecretString)>),
    Oauth2(Box<Oauth2>),
    Jwt {
        key: Box<jsonwebtoken::EncodingKey>,
        claims: BTreeMap<String, String>,
    },
    AwsSigv4(Signer),
}

pub(super) struct Oauth2 {
    token_url: String,
    client_id: String,
    secret: SecretString,
    scope: Option<String>,
    kept: Mutex<Option<Kept>>,
}

/// Cached token, with the time it was fetched and the time until which it is used.
struct Kept {
    token: SecretString,
    since: Timestamp,
    until: Timestamp,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    expires_in: Option<u64>,
}

/// Error of signing a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AuthFault {
    Refused,
    /// The token server is unreachable or overloaded; retrying may help. Holds the fault of the TLS
    /// handshake, if that failed.
    Away(Option<TlsFault>),
}

impl Auth {
    pub(super) fn compile(
        config: &AuthConfig,
        settings: &Settings,
        secrets: &Secrets,
    ) -> Result<Self, ConfigError> {
        let fixed = |text: &str, key: &str| Template::fixed(text, settings, key);
        // Headers and parameters need a single line of text.
        let line = |secret: &str| {
            let value = secrets.get(secret, "auth.secret")?;
            if HeaderValue::from_str(value.expose()).is_err() {
                let problem = format!(
                    "names the secret `{secret}`, which contains a line break or another character \
                     that is not allowed in a header"
                );
                return Err(ConfigError::new("auth.secret", problem));
            }
            Ok(value)
        };
        Ok(match config {
            AuthConfig::None => Self::None,
            AuthConfig::Basic { username, secret } => {
                Self::Basic(fixed(username, "auth.username")?, line(secret)?)
            }
            AuthConfig::Bearer { secret } => Self::Bearer(line(secret)?),
            AuthConfig::Header {
                name,
                prefix,
                secret,
            } => {
                let secret = line(secret)?;
                let text = zeroize::Zeroizing::new(format!("{prefix}{}", secret.expose()));
                let mut value = HeaderValue::from_str(&text)
                    .map_err(|_| ConfigError::new("auth.prefix", "is not valid in a header"))?;
                value.set_sensitive(true);
                let name = HeaderName::from_bytes(name.as_bytes())
                    .map_err(|_| ConfigError::new("auth.name", "is not a valid header name"))?;
                Self::Header(name, value)
            }
            AuthConfig::Query {
                username_parameter,
                username,
                secret_parameter,
                secret,
            } => {
                let mut parameters = Vec::new();
                if let Some(username) = username {
                    let username = SecretString::new(fixed(username, "auth.username")?);
                    parameters.push((username_parameter.clone(), username));
                }
                parameters.push((secret_parameter.clone(), line(secret)?));
                Self::Query(parameters)
            }
            AuthConfig::Oauth2 {
                token_url,
                client_id,
                secret,
                scope,
            } => {
                let token_url = fixed(token_url, "auth.token_url")?;
                checked_url(&token_url, "auth.token_url")?;
                Self::Oauth2(Box::new(Oauth2 {
                    token_url,
                    client_id: fixed(client_id, "auth.client_id")?,
                    secret: line(secret)?,
                    scope: scope.clone(),
                    kept: Mutex::new(None),
                }))
            }
            AuthConfig::Jwt { secret, claims } => {
                let pem = secrets.get(secret, "auth.secret")?;
                let key = jsonwebtoken::EncodingKey::from_rsa_pem(pem.expose().as_bytes());
                let key = key.map_err(|_| {
                    ConfigError::new("auth.secret", "must be an RSA private key in PEM")
                })?;
                let claims = claims
                    .iter()
                    .map(|(name, text)| Ok((name.clone(), fixed(text, "auth.claims")?)))
                    .collect::<Result<_, ConfigError>>()?;
                Self::Jwt {
                    key: Box::new(key),
                    claims,
                }
            }
            AuthConfig::AwsSigv4 {
                service,
                region,
                access_key_id,
                secret,
            } => Self::AwsSigv4(Signer {
                service: service.clone(),
                region: fixed(region, "auth.region")?,
                access_key_id: fixed(access_key_id, "auth.access_key_id")?,
                secret: line(secret)?,
            }),
        })
    }

    /// Returns the query parameters that authenticate the request.
    pub(super) fn parameters(&self) -> Vec<(&str, &str)> {
        match self {
            Self::Query(parameters) => parameters
                .iter()
                .map(|(name, value)| (name.as_str(), value.expose()))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Fetches a token if the scheme uses one. Returns whether it did.
    pub(super) async fn probe(
        &self,
        client: &Client,
        clock: &Arc<dyn Clock>,
    ) -> Result<bool, AuthFault> {
        match self {
            Self::Oauth2(oauth2) => oauth2.token(client, clock.now()).await.map(|_| true),
            _ => Ok(false),
        }
    }

    /// Adds the headers that authenticate the request.
    pub(super) async fn sign(
        &self,
        mut request: Request,
        message_id: &str,
        client: &Client,
        clock: &Arc<dyn Clock>,
    ) -> Result<Request, AuthFault> {
        match self {
            Self::None | Self::Query(_) => {}
            Self::Basic(username, password) => {
                let pair = zeroize::Zeroizing::new(format!("{username}:{}", password.expose()));
                let text = format!("Basic {}", data_encoding::BASE64.encode(pair.as_bytes()));
                request
                    .headers_mut()
                    .insert(AUTHORIZATION, sensitive(&text)?);
            }
            Self::Bearer(token) => {
                let value = bearer(token.expose())?;
                request.headers_mut().insert(AUTHORIZATION, value);
            }
            Self::Header(name, value) => {
                request.headers_mut().insert(name.clone(), value.clone());
            }
            Self::Oauth2(oauth2) => {
                let token = oauth2.token(client, clock.now()).await?;
                let value = bearer(token.expose())?;
                request.headers_mut().insert(AUTHORIZATION, value);
            }
            Self::Jwt { key, claims } => {
                let now = clock.now().as_millis() / 1_000;
                let mut all = serde_json::Map::new();
                for (name, text) in claims {
                    all.insert(name.clone(), text.clone().into());
                }
                all.insert("iat".into(), now.into());
                all.insert("exp".into(), (now + JWT_LIFE_SECONDS).into());
                all.insert("jti".into(), format!("{message_id}-{now}").into());
                let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::RS256);
                let token = jsonwebtoken::encode(&header, &all, key);
                let value = bearer(&token.map_err(|_| AuthFault::Refused)?)?;
                request.headers_mut().insert(AUTHORIZATION, value);
            }
            Self::AwsSigv4(signer) => {
                let body = request
                    .body()
                    .and_then(|body| body.as_bytes())
                    .unwrap_or_default();
                let added = signer.sign(
                    request.method().as_str(),
                    request.url(),
                    request.headers(),
                    body,
                    clock.now(),
                );
                request
                    .headers_mut()
                    .extend(added.ok_or(AuthFault::Refused)?);
            }
        }
        Ok(request)
    }

    /// Returns the texts to mask in a displayed answer: the secret and the values derived from it.
    pub(super) fn secrets(&self) -> Vec<zeroize::Zeroizing<String>> {
        let one = |text: &str| vec![zeroize::Zeroizing::new(text.to_owned())];
        match self {
            Self::None | Self::Jwt { .. } => Vec::new(),
            Self::Basic(username, password) => {
                let pair = zeroize::Zeroizing::new(format!("{username}:{}", password.expose()));
                let encoded = data_encoding::BASE64.encode(pair.as_bytes());
                [one(password.expose()), one(&encoded)].concat()
            }
            Self::Bearer(token) => one(token.expose()),
            Self::Header(_, value) => value.to_str().map(one).unwrap_or_default(),
            Self::Query(parameters) => parameters
                .iter()
                .flat_map(|(_, value)| one(value.expose()))
                .collect(),
            Self::Oauth2(oauth2) => {
                let kept = oauth2.kept.try_lock().ok();
                let token = kept.as_ref().and_then(|kept| kept.as_ref());
                let token = token.map_or("", |kept| kept.token.expose());
                [one(oauth2.secret.expose()), one(token)].concat()
            }
            Self::AwsSigv4(signer) => one(signer.secret.expose()),
        }
    }

    /// Returns the URL of the token server, if the scheme uses one.
    pub(super) fn token_url(&self) -> Option<&str> {
        match self {
            Self::Oauth2(oauth2) => Some(&oauth2.token_url),
            _ => None,
        }
    }

    /// Handles a 401 for a request that was sent with the header `showed`: drops the cached token.
    /// Returns whether a new token may help, which is not the case if the dropped token was refused
    /// right after it was fetched.
    pub(super) async fn refused(&self, showed: Option<&HeaderValue>, now: Timestamp) -> bool {
        let Self::Oauth2(oauth2) = self else {
            return false;
        };
        let mut kept = oauth2.kept.lock().await;
        let shown = |token: &Kept| bearer(token.token.expose()).ok().as_ref() == showed;
        match kept.take_if(|token| shown(token)) {
            Some(token) => now.millis_since(token.since) >= TOKEN_PROVEN_MS,
            // Another request met the same refusal and has already dropped or replaced the token.
            None => true,
        }
    }
}

fn bearer(token: &str) -> Result<HeaderValue, AuthFault> {
    let text = zeroize::Zeroizing::new(format!("Bearer {token}"));
    sensitive(&text)
}

fn sensitive(text: &str) -> Result<HeaderValue, AuthFault> {
    let mut value = HeaderValue::from_str(text).map_err(|_| AuthFault::Refused)?;
    value.set_sensitive(true);
    Ok(value)
}

impl Oauth2 {
    /// Returns the cached token or fetches a new one. Concurrent callers wait for the same fetch.
    async fn token(&self, client: &Client, now: Timestamp) -> Result<SecretString, AuthFault> {
        let mut kept = self.kept.lock().await;
        if let Some(kept) = kept.as_ref()
            && now < kept.until
        {
            return Ok(kept.token.clone());
        }
        let mut form = vec![("grant_type", "client_credentials")];
        if let Some(scope) = &self.scope {
            form.push(("scope", scope));
        }
        let request = client
            .post(&self.token_url)
            .basic_auth(&self.client_id, Some(self.secret.expose()))
            .timeout(TOKEN_DEADLINE)
            .form(&form);
        let mut response =
            (request.send().await).map_err(|error| AuthFault::Away(TlsFault::of(&error)))?;
        match response.status().as_u16() {
            200 => {}
            429 | 500..=599 => return Err(AuthFault::Away(None)),
            _ => return Err(AuthFault::Refused),
        }
        let body = super::read_answer(&mut response)
            .await
            .ok_or(AuthFault::Away(None))?;
        let json = payload::json(&payload::text(response.headers(), &body));
        let answer = json.and_then(|json| serde_json::from_value::<TokenAnswer>(json).ok());
        let answer = answer.ok_or(AuthFault::Refused)?;
        let life_ms = answer.expires_in.unwrap_or(300).saturating_mul(1_000);
        let until = now.plus_millis(life_ms.saturating_sub(TOKEN_MARGIN_MS));
        let token = SecretString::new(answer.access_token);
        *kept = Some(Kept {
            token: token.clone(),
            since: now,
            until,
        });
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_cannot_stand_in_a_header_is_refused_by_key() {
        for kind in [
            r#"kind = "bearer", secret = "s""#,
            r#"kind = "basic", username = "u", secret = "s""#,
            r#"kind = "header", name = "x-key", secret = "s""#,
            r#"kind = "query", secret = "s""#,
            r#"kind = "oauth2", token_url = "https://a.example/", client_id = "c", secret = "s""#,
            r#"kind = "aws_sigv4", service = "sns", region = "r", access_key_id = "a", secret = "s""#,
        ] {
            let config: AuthConfig = toml::from_str(&kind.replace(", ", "\n")).unwrap();
            let compile = |secret: &str| {
                let secrets = Secrets::of(&[("s", secret)]);
                Auth::compile(&config, &Settings::default(), &secrets)
            };
            assert!(compile("tok").is_ok(), "{kind}");
            for wrong in ["tok\n", "to\nk", "t\u{0}k"] {
                let error = compile(wrong).err().unwrap();
                assert_eq!(error.key, "auth.secret", "{kind}");
                assert!(error.problem.contains("`s`") && !error.problem.contains("tok"));
            }
        }
    }

    /// Returns an account whose token `old` was fetched at time 0.
    fn account() -> Auth {
        let kept = Kept {
            token: SecretString::new("old".to_owned()),
            since: Timestamp::from_millis(0),
            until: Timestamp::from_millis(240_000),
        };
        Auth::Oauth2(Box::new(Oauth2 {
            token_url: String::new(),
            client_id: String::new(),
            secret: SecretString::new(String::new()),
            scope: None,
            kept: Mutex::new(Some(kept)),
        }))
    }

    #[tokio::test]
    async fn a_token_that_was_good_is_fetched_anew_and_one_that_never_was_is_a_fault() {
        let (old, other) = (bearer("old").ok(), bearer("other").ok());
        let at = Timestamp::from_millis;
        assert!(account().refused(old.as_ref(), at(5_000)).await);
        assert!(!account().refused(old.as_ref(), at(4_999)).await);
        let renewed = account();
        assert!(renewed.refused(other.as_ref(), at(0)).await);
        let Auth::Oauth2(oauth2) = &renewed else {
            unreachable!()
        };
        assert!(oauth2.kept.lock().await.is_some(), "the newer one stays");
        assert!(!Auth::None.refused(None, at(9_000)).await);
    }
}
