//! The schemes that vendors made up for themselves: what each signs, in which order. Refuses every
//! algorithm but the one its vendor uses.

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use ring::digest;
use serde_json::Value;

use crate::payload;

use super::verify::{Call, HmacAlgorithm, TOLERANCE_SECONDS, same, verify_hmac};

/// Base64 of HMAC-SHA-1 over the URL and, for a form, each name and value in the order of names,
/// equal pairs once. A JSON body is bound by its hash in the URL. The vendor signs the URL with or
/// without its port: both are tried.
pub(super) fn twilio(call: &Call<'_>, secret: &str) -> Option<()> {
    let told = BASE64
        .decode(call.header("x-twilio-signature")?.as_bytes())
        .ok()?;
    let mut pairs = call.form();
    if let Some(hash) = call.parameter("bodySHA256") {
        same(
            hash.to_ascii_lowercase().as_bytes(),
            sha256(call.body).as_bytes(),
        )?;
    } else if pairs.is_empty() && !call.body.is_empty() {
        return None;
    }
    pairs.sort();
    pairs.dedup();
    let fields: String = pairs
        .into_iter()
        .map(|(name, value)| name + &value)
        .collect();
    port_forms(call.url).iter().find_map(|url| {
        verify_hmac(
            HmacAlgorithm::Sha1,
            secret,
            format!("{url}{fields}").as_bytes(),
            &told,
        )
    })
}

/// The URL as it is, and with its port left out or, where it has none, written out.
fn port_forms(text: &str) -> Vec<String> {
    let mut forms = vec![text.to_owned()];
    let Some((scheme, rest)) = text.split_once("://") else {
        return forms;
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            forms.push(format!("{scheme}://{host}{tail}"));
        }
        _ => {
            let port = if scheme == "https" { 443 } else { 80 };
            forms.push(format!("{scheme}://{authority}:{port}{tail}"));
        }
    }
    forms
}

/// HMAC over `&name=value` of the sorted parameters without `sig`, `&` and `=` in values replaced.
pub(super) fn vonage_sig(call: &Call<'_>, secret: &str, algorithm: HmacAlgorithm) -> Option<()> {
    let mut pairs: Vec<(String, String)> = call.query.to_vec();
    pairs.extend(call.form());
    let body = payload::text(call.headers, call.body);
    if let Some(Value::Object(members)) = payload::json(&body) {
        let text = |value: &Value| crate::http::as_text(value).unwrap_or_default();
        pairs.extend(
            members
                .iter()
                .map(|(name, value)| (name.clone(), text(value))),
        );
    }
    // Ours, not the vendor's: it stands in the URL we gave.
    pairs.retain(|(name, _)| name != "d");
    let place = pairs.iter().position(|(name, _)| name == "sig")?;
    let told = HEXLOWER_PERMISSIVE
        .decode(pairs.remove(place).1.as_bytes())
        .ok()?;
    let (_, timestamp) = pairs.iter().find(|(name, _)| name == "timestamp")?;
    let now = call.now.as_millis() / 1_000;
    let distance = timestamp
        .parse::<i64>()
        .ok()?
        .checked_sub(now)?
        .checked_abs()?;
    if distance > TOLERANCE_SECONDS || pairs.iter().any(|(name, _)| name == "sig") {
        return None;
    }
    pairs.sort();
    let signed = pairs.iter().fold(String::new(), |signed, (name, value)| {
        signed + "&" + name + "=" + &value.replace(['&', '='], "_")
    });
    verify_hmac(algorithm, secret, signed.as_bytes(), &told)
}

pub(super) fn jwt(
    call: &Call<'_>,
    secret: &str,
    header: &str,
    payload_claim: Option<&str>,
    url_claim: Option<&str>,
) -> Option<()> {
    let text = call.header(header)?;
    let token = text.strip_prefix("Bearer ").unwrap_or(text);
    let mut validation = Validation::new(Algorithm::HS256);
    validation.required_spec_claims.clear();
    // Times are held against our clock below.
    validation.validate_exp = false;
    validation.validate_aud = false;
    let key = DecodingKey::from_secret(secret.as_bytes());
    let claims = jsonwebtoken::decode::<Value>(token, &key, &validation)
        .ok()?
        .claims;
    let now = call.now.as_millis() / 1_000;
    let time = |name: &str| claims.get(name).and_then(Value::as_i64);
    match (time("iat"), time("exp")) {
        (_, Some(exp)) if exp < now => return None,
        (Some(iat), None) if now.saturating_sub(iat) > TOLERANCE_SECONDS => return None,
        (None, None) => return None,
        _ => {}
    }
    let ahead = |at: i64| at > now.saturating_add(TOLERANCE_SECONDS);
    if time("iat").is_some_and(ahead) || time("nbf").is_some_and(ahead) {
        return None;
    }
    if let Some(name) = payload_claim {
        match claims.get(name).and_then(Value::as_str) {
            Some(hash) => same(hash.as_bytes(), sha256(call.body).as_bytes())?,
            None if call.body.is_empty() => {}
            None => return None,
        }
    }
    if let Some(name) = url_claim {
        let hash = claims.get(name).and_then(Value::as_str)?;
        same(hash.as_bytes(), sha256(call.url.as_bytes()).as_bytes())?;
    }
    Some(())
}

fn sha256(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(digest::digest(&digest::SHA256, bytes).as_ref())
}
