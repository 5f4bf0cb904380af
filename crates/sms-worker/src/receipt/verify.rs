//! Verification of receipt calls by each vendor's scheme, over the raw body and the configured
//! public URL. Secrets are compared in constant time. Signatures with a timestamp expire, and only
//! the configured algorithm is accepted.

use std::collections::BTreeMap;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use http::{HeaderMap, Method};
use ring::{hmac, signature};
use serde::Deserialize;
use watchword_chassis::config::ConfigError;
use watchword_core::{SecretString, Timestamp};

use super::vendors::{jwt, plivo, twilio, vonage_sig};
use crate::config::Secrets;

/// Maximum age of a signature, and how far ahead its time may be.
pub(super) const TOLERANCE_SECONDS: i64 = 300;

/// Verification scheme for receipts. Each secret is the name of an entry under `secrets`.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum VerifyConfig {
    /// Secret in the URL that `{callback}` contains. For gateways that sign nothing.
    SecretUrl {
        /// Name of the secret.
        secret: String,
    },
    /// HTTP Basic.
    Basic {
        /// User name.
        username: String,
        /// Name of the password.
        secret: String,
    },
    /// HMAC in a header.
    Hmac {
        /// Name of the key.
        secret: String,
        /// Header with the signature.
        header: String,
        /// `sha1`, `sha256` or `sha512`.
        algorithm: HmacAlgorithm,
        /// `hex` or `base64`.
        #[serde(default)]
        encoding: Encoding,
        /// Text before the signature in its header: `sha256=`.
        #[serde(default)]
        prefix: String,
        /// Signed content: a text with `{body}`, `{url}`, `{timestamp}` and `{nonce}`.
        #[serde(default = "body")]
        content: String,
        /// Header with the time in seconds since the Unix epoch. If given, old signatures are
        /// rejected.
        timestamp_header: Option<String>,
        /// Header with the nonce.
        nonce_header: Option<String>,
    },
    /// Ed25519 signature in a header, over `{timestamp}|{body}`.
    Ed25519 {
        /// Name of the public key, in base64.
        public_key: String,
        /// Header with the signature, in base64.
        header: String,
        /// Header with the time in seconds since the Unix epoch.
        timestamp_header: String,
    },
    /// Twilio's `X-Twilio-Signature`.
    Twilio {
        /// Name of the auth token.
        secret: String,
    },
    /// Plivo's `X-Plivo-Signature-V3` if the call has it, otherwise `X-Plivo-Signature-V2`, which
    /// covers the URL without its query and no part of the body.
    Plivo {
        /// Name of the auth token.
        secret: String,
        /// Whether calls with only a version 2 signature are rejected.
        #[serde(default)]
        require_v3: bool,
    },
    /// Vonage's `sig` parameter with HMAC-SHA-256 or HMAC-SHA-512.
    VonageSig {
        /// Name of the signature secret.
        secret: String,
        /// `sha256` or `sha512`.
        algorithm: HmacAlgorithm,
    },
    /// JWT with HS256: in `Authorization` for Vonage, in a separate header for `MessageBird`.
    Jwt {
        /// Name of the signature secret.
        secret: String,
        /// Header with the token.
        header: String,
        /// Claim with the SHA-256 of the body in hexadecimal; required if the body is not empty.
        payload_claim: Option<String>,
        /// Claim with the SHA-256 of the URL in hexadecimal.
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

/// Hash function of an HMAC.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HmacAlgorithm {
    /// SHA-1, for old gateways.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// Text encoding of a signature.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Hexadecimal.
    #[default]
    Hex,
    /// Base64 with padding.
    Base64,
}

/// Receipt call as it was received.
pub struct Call<'a> {
    /// HTTP method.
    pub method: &'a Method,
    /// Public URL of the receiver, with the query as received.
    pub url: &'a str,
    /// Headers as received.
    pub headers: &'a HeaderMap,
    /// Decoded query parameters.
    pub query: &'a [(String, String)],
    /// Raw body.
    pub body: &'a [u8],
    /// Time of arrival.
    pub now: Timestamp,
}

/// Compiled verification scheme with its secrets.
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
                    "must contain {body} or {url}",
                ));
            }
            if wants("{timestamp}") != timestamp_header.is_some() {
                return Err(ConfigError::new(
                    "verify.timestamp_header",
                    "and {timestamp} in content must be given together",
                ));
            }
            if wants("{nonce}") != nonce_header.is_some() {
                return Err(ConfigError::new(
                    "verify.nonce_header",
                    "and {nonce} in content must be given together",
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

    /// Returns the secret to put into the query of `{callback}`.
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
    /// Returns a header that occurs exactly once.
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

    /// Returns the timestamp header if it is within the tolerance of now.
    fn fresh(&self, name: &str) -> Option<&'a str> {
        let text = self.header(name)?;
        let seconds: i64 = text.parse().ok()?;
        let now = self.now.as_millis() / 1_000;
        let distance = seconds.checked_sub(now)?.checked_abs()?;
        (distance <= TOLERANCE_SECONDS).then_some(text)
    }

    /// Returns the fields of a form body; empty for other bodies.
    pub(crate) fn form(&self) -> Vec<(String, String)> {
        let kind = self.header("content-type").unwrap_or_default();
        // Media types are case-insensitive and may be followed by parameters (RFC 9110 section
        // 8.3.1).
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
    // Comparing the MACs of both values takes the same time wherever the values differ.
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
