//! Whether a call really is the gateway's: the scheme of each vendor over the raw body and the
//! configured public URL. Everything secret is compared in constant time. Refuses what is stale
//! where the scheme tells a time, and every algorithm but the one configured.

use std::collections::BTreeMap;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use http::{HeaderMap, Method};
use ring::{hmac, signature};
use serde::Deserialize;
use watchword_chassis::config::ConfigError;
use watchword_core::{SecretString, Timestamp};

use super::vendors::{jwt, plivo, twilio, vonage_sig};
use crate::config::Secrets;

/// A signature older than this, or from so far ahead, is refused.
pub(super) const TOLERANCE_SECONDS: i64 = 300;

/// How a receipt is known to be the gateway's. Every secret is the name of one under `secrets`.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum VerifyConfig {
    /// The gateway calls a URL that nobody else knows: `{callback}` carries the secret. For
    /// gateways that sign nothing.
    SecretUrl {
        /// The secret.
        secret: String,
    },
    /// HTTP Basic.
    Basic {
        /// The user.
        username: String,
        /// The password.
        secret: String,
    },
    /// An HMAC in a header.
    Hmac {
        /// The key.
        secret: String,
        /// The header with the signature.
        header: String,
        /// `sha1`, `sha256` or `sha512`.
        algorithm: HmacAlgorithm,
        /// `hex` or `base64`.
        #[serde(default)]
        encoding: Encoding,
        /// What stands before the signature in its header: `sha256=`.
        #[serde(default)]
        prefix: String,
        /// What is signed: a text with `{body}`, `{url}`, `{timestamp}` and `{nonce}`.
        #[serde(default = "body")]
        content: String,
        /// The header with the time in seconds since the epoch; then a stale one is refused.
        timestamp_header: Option<String>,
        /// The header with the nonce.
        nonce_header: Option<String>,
    },
    /// An Ed25519 signature in a header, over `{timestamp}|{body}`.
    Ed25519 {
        /// The public key, base64.
        public_key: String,
        /// The header with the signature, base64.
        header: String,
        /// The header with the time in seconds since the epoch.
        timestamp_header: String,
    },
    /// Twilio's `X-Twilio-Signature`.
    Twilio {
        /// The auth token.
        secret: String,
    },
    /// Plivo's `X-Plivo-Signature-V3` where the call has it, else `X-Plivo-Signature-V2`, which signs
    /// the URL without its query and nothing of the body.
    Plivo {
        /// The auth token.
        secret: String,
        /// Whether calls with the second version alone are refused.
        #[serde(default)]
        require_v3: bool,
    },
    /// Vonage's `sig` parameter with HMAC-SHA-256 or -512.
    VonageSig {
        /// The signature secret.
        secret: String,
        /// `sha256` or `sha512`.
        algorithm: HmacAlgorithm,
    },
    /// A JWT with HS256: in `Authorization` for Vonage, in a header of its own for `MessageBird`.
    Jwt {
        /// The signature secret.
        secret: String,
        /// The header.
        header: String,
        /// The claim with the SHA-256 of the body, hexadecimal; must be there if the body is not
        /// empty.
        payload_claim: Option<String>,
        /// The claim with the SHA-256 of the URL, hexadecimal.
        url_claim: Option<String>,
    },
}

impl VerifyConfig {
    /// Applies the settings of a preset to its scheme.
    pub(crate) fn apply_settings(
        &mut self,
        settings: &BTreeMap<String, String>,
    ) -> Result<(), ConfigError> {
        if let (Self::Plivo { require_v3, .. }, Some(value)) = (self, settings.get("require_v3")) {
            let wrong = |_| ConfigError::new("settings.require_v3", "must be true or false");
            *require_v3 = value.parse().map_err(wrong)?;
        }
        Ok(())
    }
}

fn body() -> String {
    "{body}".to_owned()
}

/// A hash under an HMAC.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HmacAlgorithm {
    /// For old gateways.
    Sha1,
    /// The usual one.
    Sha256,
    /// The long one.
    Sha512,
}

/// How a signature is written.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Hexadecimal.
    #[default]
    Hex,
    /// Base 64.
    Base64,
}

/// One call as it came.
pub struct Call<'a> {
    /// Its method.
    pub method: &'a Method,
    /// The configured public URL of the receiver, with the query as it came.
    pub url: &'a str,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its query, decoded.
    pub query: &'a [(String, String)],
    /// Its body, raw.
    pub body: &'a [u8],
    /// Now.
    pub now: Timestamp,
}

/// A scheme with its secrets.
pub(crate) struct Verify {
    config: VerifyConfig,
    secret: Option<SecretString>,
    public_key: Vec<u8>,
}

impl Verify {
    pub(crate) fn compile(config: &VerifyConfig, secrets: &Secrets) -> Result<Self, ConfigError> {
        let mut public_key = Vec::new();
        let secret = match config {
            VerifyConfig::SecretUrl { secret }
            | VerifyConfig::Basic { secret, .. }
            | VerifyConfig::Hmac { secret, .. }
            | VerifyConfig::Twilio { secret }
            | VerifyConfig::Plivo { secret, .. }
            | VerifyConfig::VonageSig { secret, .. }
            | VerifyConfig::Jwt { secret, .. } => Some(secrets.get(secret, "verify.secret")?),
            VerifyConfig::Ed25519 {
                public_key: key, ..
            } => {
                let resolved = secrets.get(key, "verify.public_key")?;
                let wrong = || ConfigError::new("verify.public_key", "must be 32 bytes in base64");
                public_key = BASE64
                    .decode(resolved.expose().trim().as_bytes())
                    .map_err(|_| wrong())?;
                if public_key.len() != 32 {
                    return Err(wrong());
                }
                None
            }
        };
        if let VerifyConfig::Hmac {
            content,
            timestamp_header,
            nonce_header,
            ..
        } = config
        {
            let wants = |name: &str| content.contains(name);
            if !wants("{body}") && !wants("{url}") {
                return Err(ConfigError::new(
                    "verify.content",
                    "must hold {body} or {url}",
                ));
            }
            if wants("{timestamp}") != timestamp_header.is_some() {
                return Err(ConfigError::new(
                    "verify.timestamp_header",
                    "and {timestamp} in content belong together",
                ));
            }
            if wants("{nonce}") != nonce_header.is_some() {
                return Err(ConfigError::new(
                    "verify.nonce_header",
                    "and {nonce} in content belong together",
                ));
            }
        }
        if let Some(secret) = &secret
            && secret.expose().len() < 8
        {
            return Err(ConfigError::new(
                "verify.secret",
                "is shorter than 8 characters",
            ));
        }
        Ok(Self {
            config: config.clone(),
            secret,
            public_key,
        })
    }

    /// What `{callback}` carries in its query.
    pub(crate) fn url_secret(&self) -> Option<&str> {
        match self.config {
            VerifyConfig::SecretUrl { .. } => self.secret.as_ref().map(SecretString::expose),
            _ => None,
        }
    }

    pub(crate) fn accepts(&self, call: &Call<'_>) -> bool {
        self.check(call).is_some()
    }

    fn check(&self, call: &Call<'_>) -> Option<()> {
        let secret = self.secret.as_ref().map_or("", SecretString::expose);
        match &self.config {
            VerifyConfig::SecretUrl { .. } => {
                same(call.parameter("token")?.as_bytes(), secret.as_bytes())
            }
            VerifyConfig::Basic { username, .. } => {
                let pair = zeroize::Zeroizing::new(format!("{username}:{secret}"));
                let wanted = format!("Basic {}", BASE64.encode(pair.as_bytes()));
                same(call.header("authorization")?.as_bytes(), wanted.as_bytes())
            }
            VerifyConfig::Hmac {
                header,
                algorithm,
                encoding,
                prefix,
                content,
                timestamp_header,
                nonce_header,
                ..
            } => {
                let timestamp = match timestamp_header {
                    Some(name) => call.fresh(name)?,
                    None => "",
                };
                let nonce = match nonce_header {
                    Some(name) => call.header(name)?,
                    None => "",
                };
                let signed = fill(content, call, timestamp, nonce);
                let told = call.header(header)?.strip_prefix(prefix.as_str())?;
                let told = match encoding {
                    Encoding::Hex => HEXLOWER_PERMISSIVE.decode(told.as_bytes()),
                    Encoding::Base64 => BASE64.decode(told.as_bytes()),
                };
                verify_hmac(*algorithm, secret, &signed, &told.ok()?)
            }
            VerifyConfig::Ed25519 {
                header,
                timestamp_header,
                ..
            } => {
                let timestamp = call.fresh(timestamp_header)?;
                let told = BASE64.decode(call.header(header)?.as_bytes()).ok()?;
                let signed = [timestamp.as_bytes(), b"|", call.body].concat();
                signature::UnparsedPublicKey::new(&signature::ED25519, &self.public_key)
                    .verify(&signed, &told)
                    .ok()
            }
            VerifyConfig::Twilio { .. } => twilio(call, secret),
            VerifyConfig::Plivo { require_v3, .. } => plivo(call, secret, *require_v3),
            VerifyConfig::VonageSig { algorithm, .. } => vonage_sig(call, secret, *algorithm),
            VerifyConfig::Jwt {
                header,
                payload_claim,
                url_claim,
                ..
            } => jwt(
                call,
                secret,
                header,
                payload_claim.as_deref(),
                url_claim.as_deref(),
            ),
        }
    }
}

impl<'a> Call<'a> {
    /// A header that is there exactly once.
    pub(super) fn header(&self, name: &str) -> Option<&'a str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?.to_str().ok()?;
        values.next().is_none().then_some(value)
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&'a str> {
        let mut values = self.query.iter().filter(|(known, _)| known == name);
        let (_, value) = values.next()?;
        values.next().is_none().then_some(value)
    }

    /// The timestamp header, if it is of about now.
    fn fresh(&self, name: &str) -> Option<&'a str> {
        let text = self.header(name)?;
        let seconds: i64 = text.parse().ok()?;
        let now = self.now.as_millis() / 1_000;
        let distance = seconds.checked_sub(now)?.checked_abs()?;
        (distance <= TOLERANCE_SECONDS).then_some(text)
    }

    /// The fields of a form body; none for another kind of body.
    pub(crate) fn form(&self) -> Vec<(String, String)> {
        let kind = self.header("content-type").unwrap_or_default();
        // Media types have no case (RFC 9110 §8.3.1), and parameters follow them.
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            url::form_urlencoded::parse(self.body)
                .into_owned()
                .collect()
        } else {
            Vec::new()
        }
    }
}

pub(super) fn same(told: &[u8], secret: &[u8]) -> Option<()> {
    // Under an HMAC with a key nobody chose, equality takes the same time for every difference.
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"compare");
    let tag = hmac::sign(&key, secret);
    hmac::verify(&key, told, tag.as_ref()).ok()
}

pub(super) fn verify_hmac(
    algorithm: HmacAlgorithm,
    secret: &str,
    signed: &[u8],
    told: &[u8],
) -> Option<()> {
    let algorithm = match algorithm {
        HmacAlgorithm::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        HmacAlgorithm::Sha256 => hmac::HMAC_SHA256,
        HmacAlgorithm::Sha512 => hmac::HMAC_SHA512,
    };
    hmac::verify(&hmac::Key::new(algorithm, secret.as_bytes()), signed, told).ok()
}

fn fill(content: &str, call: &Call<'_>, timestamp: &str, nonce: &str) -> Vec<u8> {
    let mut signed = Vec::new();
    let mut rest = content;
    while let Some((literal, tail)) = rest.split_once('{') {
        signed.extend(literal.as_bytes());
        let (name, tail) = tail.split_once('}').unwrap_or((tail, ""));
        match name {
            "body" => signed.extend(call.body),
            "url" => signed.extend(call.url.as_bytes()),
            "timestamp" => signed.extend(timestamp.as_bytes()),
            "nonce" => signed.extend(nonce.as_bytes()),
            _ => {}
        }
        rest = tail;
    }
    signed.extend(rest.as_bytes());
    signed
}
