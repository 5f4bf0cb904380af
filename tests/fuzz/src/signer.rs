//! Signs calls as a gateway would. Written from the vendors' descriptions and without the product's
//! code, which it tests.

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use http::{HeaderMap, HeaderName};
use ring::signature::Ed25519KeyPair;
use ring::{digest, hmac};
use serde_json::{Value, json};
use watchword_core::Timestamp;
use watchword_sms_worker::fuzzing::{Encoding, HmacAlgorithm, VerifyConfig};

/// The shared secret of every scheme; long enough that no input contains it or a signature made
/// with it by chance.
pub const SECRET: &str = "Jm4nC8wXr2TzKq6VbY9sHd3LfPg7Ue5A";
/// The seed of the signing keys.
pub const SEED: [u8; 32] = [7; 32];

/// A call to a receiver that is being built.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The receiver's URL without its query.
    pub bare: String,
    /// Query parameters, decoded.
    pub query: Vec<(String, String)>,
    /// Request headers.
    pub headers: HeaderMap,
    /// The request body.
    pub body: Vec<u8>,
    /// The time at which the call is signed and verified.
    pub now: Timestamp,
}

impl Draft {
    /// Returns the whole URL.
    pub fn url(&self) -> String {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&self.query)
            .finish();
        format!("{}?{query}", self.bare)
    }

    /// Returns the form fields, if exactly one content type header declares a form.
    pub fn form(&self) -> Vec<(String, String)> {
        let mut kinds = self.headers.get_all("content-type").iter();
        let kind = kinds.next().and_then(|kind| kind.to_str().ok());
        let is_form = |kind: &str| {
            let kind = kind.split(';').next().unwrap_or_default().trim();
            kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
        };
        if kind.is_some_and(is_form) && kinds.next().is_none() {
            return url::form_urlencoded::parse(&self.body)
                .into_owned()
                .collect();
        }
        Vec::new()
    }

    fn drop_parameter(&mut self, name: &str) {
        self.query.retain(|(known, _)| known != name);
    }

    /// Sets the header `name`, replacing existing ones.
    pub fn set(&mut self, name: &str, value: &str) {
        let name: HeaderName = name.parse().expect("a header name");
        self.headers
            .insert(name, value.parse().expect("a header value"));
    }

    fn seconds(&self) -> i64 {
        self.now.as_millis() / 1_000
    }
}

/// Signs `draft` by `scheme`. Returns `false` if the input contains a field that only the signer
/// may set.
pub fn sign(scheme: &VerifyConfig, draft: &mut Draft) -> bool {
    match scheme {
        VerifyConfig::SecretUrl { .. } => {
            draft.drop_parameter("token");
            draft.query.push(("token".to_owned(), SECRET.to_owned()));
        }
        VerifyConfig::Basic { username, .. } => {
            let pair = BASE64.encode(format!("{username}:{SECRET}").as_bytes());
            draft.set("authorization", &format!("Basic {pair}"));
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
            let (time, nonce) = (draft.seconds().to_string(), "n-1");
            for (name, value) in [(timestamp_header, time.as_str()), (nonce_header, nonce)] {
                if let Some(name) = name {
                    draft.set(name, value);
                }
            }
            let signed = content
                .replace("{url}", &draft.url())
                .replace("{timestamp}", &time)
                .replace("{nonce}", nonce);
            let (before, after) = signed.split_once("{body}").unwrap_or((&signed, ""));
            let body = if content.contains("{body}") {
                &draft.body[..]
            } else {
                &[]
            };
            let tag = mac(
                *algorithm,
                &[before.as_bytes(), body, after.as_bytes()].concat(),
            );
            let text = match encoding {
                Encoding::Hex => HEXLOWER.encode(&tag),
                Encoding::Base64 => BASE64.encode(&tag),
            };
            draft.set(header, &format!("{prefix}{text}"));
        }
        VerifyConfig::Ed25519 {
            header,
            timestamp_header,
            ..
        } => {
            let time = draft.seconds().to_string();
            let signed = [time.as_bytes(), b"|", &draft.body].concat();
            let key = Ed25519KeyPair::from_seed_unchecked(&SEED).expect("a key");
            draft.set(timestamp_header, &time);
            draft.set(header, &BASE64.encode(key.sign(&signed).as_ref()));
        }
        VerifyConfig::Twilio { .. } => twilio(draft),
        VerifyConfig::Plivo { require_v3, .. } => return plivo(draft, *require_v3),
        VerifyConfig::VonageSig { algorithm, .. } => return vonage_sig(draft, *algorithm),
        VerifyConfig::Jwt {
            header,
            payload_claim,
            url_claim,
            ..
        } => {
            let mut claims = json!({ "iat": draft.seconds() });
            if let Some(name) = payload_claim {
                claims[name] = sha256(&draft.body).into();
            }
            if let Some(name) = url_claim {
                claims[name] = sha256(draft.url().as_bytes()).into();
            }
            draft.set(header, &format!("Bearer {}", token(&claims)));
        }
    }
    true
}

fn twilio(draft: &mut Draft) {
    draft.drop_parameter("bodySHA256");
    let mut pairs = draft.form();
    if pairs.is_empty() && !draft.body.is_empty() {
        let hash = sha256(&draft.body);
        draft.query.push(("bodySHA256".to_owned(), hash));
    }
    pairs.sort();
    pairs.dedup();
    let mut signed = draft.url();
    for (name, value) in pairs {
        signed += &name;
        signed += &value;
    }
    let tag = mac(HmacAlgorithm::Sha1, signed.as_bytes());
    draft.set("x-twilio-signature", &BASE64.encode(&tag));
}

fn plivo(draft: &mut Draft, is_v3: bool) -> bool {
    if !is_v3 {
        draft.headers.remove("x-plivo-signature-v3");
        let tag = mac(
            HmacAlgorithm::Sha256,
            format!("{}n-1", draft.bare).as_bytes(),
        );
        draft.set("x-plivo-signature-v2-nonce", "n-1");
        draft.set("x-plivo-signature-v2", &BASE64.encode(&tag));
        return true;
    }
    let mut fields = draft.form();
    if fields.is_empty() && !draft.body.is_empty() {
        return false;
    }
    fields.sort();
    let mut query = draft.query.clone();
    query.sort();
    let mut signed = draft.bare.clone();
    if !(query.is_empty() && fields.is_empty()) {
        signed.push('?');
    }
    for (place, (name, value)) in query.iter().enumerate() {
        let before = if place == 0 { "" } else { "&" };
        signed.extend([before, name, "=", value]);
    }
    if !query.is_empty() && !fields.is_empty() {
        signed.push('.');
    }
    for (name, value) in &fields {
        signed.extend([name.as_str(), value]);
    }
    signed += ".n-1";
    let tag = mac(HmacAlgorithm::Sha256, signed.as_bytes());
    draft.set("x-plivo-signature-v3-nonce", "n-1");
    draft.set("x-plivo-signature-v3", &BASE64.encode(&tag));
    true
}

fn vonage_sig(draft: &mut Draft, algorithm: HmacAlgorithm) -> bool {
    draft.drop_parameter("sig");
    draft.drop_parameter("timestamp");
    let mut pairs = draft.form();
    let json = serde_json::from_slice(&draft.body);
    // Vendors sign strict JSON only, not the further forms that the product accepts.
    let is_strict = json.as_ref().is_ok_and(|json: &Value| is_exact(json));
    if pairs.is_empty() && !draft.body.is_empty() && !is_strict {
        return false;
    }
    if pairs.is_empty()
        && let Ok(Value::Object(members)) = json
    {
        pairs.extend(members.into_iter().map(|(name, value)| {
            let text = match value {
                Value::String(text) => text,
                Value::Number(number) => number.to_string(),
                Value::Bool(flag) => flag.to_string(),
                _ => String::new(),
            };
            (name, text)
        }));
    }
    if pairs
        .iter()
        .any(|(name, _)| name == "sig" || name == "timestamp")
    {
        return false;
    }
    let time = draft.seconds().to_string();
    draft.query.push(("timestamp".to_owned(), time));
    pairs.extend(draft.query.iter().filter(|(name, _)| name != "d").cloned());
    pairs.sort();
    let mut signed = String::new();
    for (name, value) in pairs {
        signed.extend(["&", &name, "=", &value.replace(['&', '='], "_")]);
    }
    let tag = HEXLOWER.encode(&mac(algorithm, signed.as_bytes()));
    draft.query.push(("sig".to_owned(), tag));
    true
}

/// Whether no member is a float: `serde_json` also reads integers beyond 64 bits as floats, and
/// prints those in another form.
fn is_exact(json: &Value) -> bool {
    json.as_object()
        .is_none_or(|members| !members.values().any(Value::is_f64))
}

fn token(claims: &Value) -> String {
    let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!(
        "{}.{}",
        encode(&json!({ "alg": "HS256", "typ": "JWT" })),
        encode(claims)
    );
    let tag = mac(HmacAlgorithm::Sha256, signed.as_bytes());
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&tag))
}

fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn mac(algorithm: HmacAlgorithm, signed: &[u8]) -> Vec<u8> {
    let algorithm = match algorithm {
        HmacAlgorithm::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        HmacAlgorithm::Sha256 => hmac::HMAC_SHA256,
        HmacAlgorithm::Sha512 => hmac::HMAC_SHA512,
    };
    let key = hmac::Key::new(algorithm, SECRET.as_bytes());
    hmac::sign(&key, signed).as_ref().to_vec()
}
