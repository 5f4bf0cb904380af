//! DKIM signatures (RFC 6376; Ed25519 as in RFC 8463), relaxed canonicalization in headers and
//! body, with every configured key. Signing uses `ring`: `lettre`'s own signer adds the `rsa` crate
//! with its open advisory (RUSTSEC-2023-0071). RSA keys below 2048 bits and domains that do not
//! cover the sender are rejected.

use data_encoding::BASE64;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use ring::{digest, digest::SHA256};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use watchword_chassis::config::{ConfigError, SecretRef};

/// Entry of `dkim`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DkimConfig {
    /// Signing domain: the sender's, or a parent of it.
    pub domain: String,
    /// Selector: the public key is published at `<selector>._domainkey.<domain>`.
    pub selector: String,
    /// Private key in PEM (PKCS#8), Ed25519 or RSA.
    pub key: SecretRef,
}

/// DNS TXT record with a public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DkimRecord {
    /// Record name, such as `e1._domainkey.example.org`.
    pub name: String,
    /// Record text. Zone files split a text of more than 255 characters into quoted parts.
    pub text: String,
}

impl DkimConfig {
    /// Returns the record with the public key that receivers use to verify signatures.
    ///
    /// # Errors
    ///
    /// Fails if the key cannot be read.
    pub fn dns_record(&self) -> Result<DkimRecord, ConfigError> {
        let (kind, public) = match Key::read(&self.key)? {
            Key::Ed25519(key) => ("ed25519", key.public_key().as_ref().to_vec()),
            Key::Rsa(key) => ("rsa", subject_public_key_info(key.public().as_ref())),
        };
        Ok(DkimRecord {
            name: format!("{}._domainkey.{}", self.selector, self.domain),
            text: format!("v=DKIM1; k={kind}; p={}", BASE64.encode(&public)),
        })
    }
}

/// Encodes the RSA public key as `SubjectPublicKeyInfo` (RFC 5280 section 4.1), which verifiers
/// expect (RFC 8301 section 3.2).
fn subject_public_key_info(key: &[u8]) -> Vec<u8> {
    /// Algorithm `rsaEncryption` with null parameters.
    const RSA: [u8; 15] = [
        0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
    ];
    let bits = der(0x03, &[&[0], key].concat());
    der(0x30, &[&RSA[..], &bits].concat())
}

/// Encodes a DER value with its tag and length.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let skipped = length.iter().take_while(|byte| **byte == 0).count();
    let length = &length[skipped.min(length.len() - 1)..];
    let mut value = vec![tag];
    if content.len() >= 0x80 {
        // The number of length bytes, at most eight.
        value.push(0x80 | u8::try_from(length.len()).unwrap_or_default());
    }
    value.extend_from_slice(length);
    value.extend_from_slice(content);
    value
}

/// Signed headers. `from` is listed twice, so that a second `From` cannot be added without breaking
/// the signature (RFC 6376 section 8.15).
const HEADERS: [&str; 9] = [
    "from",
    "from",
    "to",
    "subject",
    "date",
    "message-id",
    "mime-version",
    "content-type",
    "auto-submitted",
];
const LEAST_RSA_BYTES: usize = 256;

/// DKIM signer with all configured keys.
pub(crate) struct Dkim(Vec<Signer>);

struct Signer {
    domain: String,
    selector: String,
    key: Key,
}

enum Key {
    Ed25519(Box<Ed25519KeyPair>),
    Rsa(Box<RsaKeyPair>),
}

impl Key {
    fn read(secret: &SecretRef) -> Result<Self, ConfigError> {
        let pem = secret.resolve().map_err(|error| error.within("key"))?;
        let wrong = |rule: &'static str| ConfigError::new("key", rule);
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.expose().as_bytes())
            .map_err(|_| wrong("must be a private key in PEM, PKCS#8"))?;
        let der = der.secret_pkcs8_der();
        if let Ok(key) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return Ok(Self::Ed25519(Box::new(key)));
        }
        let key = RsaKeyPair::from_pkcs8(der)
            .map_err(|_| wrong("must be an Ed25519 key, or an RSA key of 2048 bits or more"))?;
        if key.public().modulus_len() < LEAST_RSA_BYTES {
            return Err(wrong("is an RSA key of less than 2048 bits"));
        }
        Ok(Self::Rsa(Box::new(key)))
    }
}

impl Dkim {
    /// Loads the keys of `configs` for mails from `from_domain`.
    pub(crate) fn new(configs: &[DkimConfig], from_domain: &str) -> Result<Self, ConfigError> {
        let signers = configs.iter().enumerate().map(|(index, config)| {
            Signer::new(config, from_domain)
                .map_err(|error| error.within(&format!("dkim[{index}]")))
        });
        signers.collect::<Result<_, _>>().map(Self)
    }

    /// Prepends one signature per key to the mail; `None` if signing fails.
    pub(crate) fn sign(&self, mail: Vec<u8>) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return Some(mail);
        }
        let text = std::str::from_utf8(&mail).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let headers = unfolded(head);
        let body_hash =
            BASE64.encode(digest::digest(&SHA256, relaxed_body(body).as_bytes()).as_ref());
        let mut signed = Vec::new();
        for signer in &self.0 {
            signed.extend(signer.header(&headers, &body_hash)?.into_bytes());
        }
        signed.extend(mail);
        Some(signed)
    }
}

impl Signer {
    fn new(config: &DkimConfig, from_domain: &str) -> Result<Self, ConfigError> {
        let is_name = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        };
        if !is_name(&config.selector) {
            return Err(ConfigError::new("selector", "must be a DNS name"));
        }
        let above = from_domain.strip_suffix(&config.domain);
        let aligned = above.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        if !is_name(&config.domain) || !aligned {
            return Err(ConfigError::new(
                "domain",
                "must be the sender's domain or one above it",
            ));
        }
        Ok(Self {
            domain: config.domain.clone(),
            selector: config.selector.clone(),
            key: Key::read(&config.key)?,
        })
    }

    fn header(&self, headers: &[(String, String)], body_hash: &str) -> Option<String> {
        let algorithm = match self.key {
            Key::Ed25519(_) => "ed25519-sha256",
            Key::Rsa(_) => "rsa-sha256",
        };
        let value = format!(
            "v=1; a={algorithm}; c=relaxed/relaxed; d={}; s={}; h={}; bh={body_hash}; b=",
            self.domain,
            self.selector,
            HEADERS.join(":"),
        );
        let mut signed = String::new();
        let mut taken = Vec::new();
        for name in HEADERS {
            // Take the last header of this name that is not signed yet. A missing header is signed
            // as absent (RFC 6376 section 5.4).
            let found = headers
                .iter()
                .enumerate()
                .rev()
                .find(|(place, (known, _))| known == name && !taken.contains(place));
            if let Some((place, (_, text))) = found {
                taken.push(place);
                signed = signed + name + ":" + text + "\r\n";
            }
        }
        signed = signed + "dkim-signature:" + &value;
        let signature = match &self.key {
            Key::Ed25519(key) => {
                let hash = digest::digest(&SHA256, signed.as_bytes());
                key.sign(hash.as_ref()).as_ref().to_vec()
            }
            Key::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                let random = SystemRandom::new();
                key.sign(
                    &RSA_PKCS1_SHA256,
                    &random,
                    signed.as_bytes(),
                    &mut signature,
                )
                .ok()?;
                signature
            }
        };
        Some(format!(
            "DKIM-Signature: {}\r\n",
            folded(&(value + &BASE64.encode(&signature)))
        ))
    }
}

/// Parses the header fields in relaxed form: names in lower case, values unfolded, each run of
/// white space reduced to one space, none at the ends.
fn unfolded(head: &str) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in head.split("\r\n") {
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.to_owned()));
        }
    }
    for (_, value) in &mut fields {
        *value = value
            .split([' ', '\t'])
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(" ");
    }
    fields
}

/// Returns the body in relaxed form: no white space before line ends, each run of it reduced to one
/// space, and no empty lines at the end.
fn relaxed_body(body: &str) -> String {
    let mut relaxed = String::new();
    for line in body.split("\r\n") {
        let kept = line.trim_end_matches([' ', '\t']);
        let mut in_space = false;
        for c in kept.chars() {
            let is_space = matches!(c, ' ' | '\t');
            if !is_space {
                relaxed.push(c);
            } else if !in_space {
                relaxed.push(' ');
            }
            in_space = is_space;
        }
        relaxed.push_str("\r\n");
    }
    let end = relaxed.trim_end_matches("\r\n").len();
    relaxed.truncate(end);
    if !relaxed.is_empty() {
        relaxed.push_str("\r\n");
    }
    relaxed
}

/// Folds a long value to lines of about 70 characters: after `; ` and within the signature, where
/// white space is ignored.
fn folded(value: &str) -> String {
    let (tags, signature) = value.rsplit_once("b=").unwrap_or((value, ""));
    let mut text = tags.trim_end().replace("; ", ";\r\n\t");
    text.push_str("\r\n\tb=");
    for chunk in signature.as_bytes().chunks(72) {
        text.push_str(&String::from_utf8_lossy(chunk));
        text.push_str("\r\n\t ");
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Examples of RFC 6376 section 3.4.5.
    #[test]
    fn canonical_forms_are_those_of_the_standard() {
        let head = "A: X\r\nB : Y\t\r\n\tZ  ";
        let fields = unfolded(head);
        assert_eq!(
            fields,
            [("a".into(), "X".into()), ("b".into(), "Y Z".into())]
        );
        assert_eq!(relaxed_body(" C \r\nD \t E\r\n\r\n\r\n"), " C\r\nD E\r\n");
        assert_eq!(relaxed_body("\r\n\r\n"), "");
    }

    #[test]
    fn a_folded_value_says_the_same() {
        let value = format!("v=1; a=rsa-sha256; bh=x=; b={}", "s".repeat(200));
        let folded = folded(&value);
        assert!(folded.lines().all(|line| line.len() <= 78), "{folded}");
        let joined: String = folded.split_whitespace().collect();
        assert_eq!(joined, value.replace(' ', ""));
    }
}
