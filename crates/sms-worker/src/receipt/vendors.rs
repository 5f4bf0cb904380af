//! Signature schemes of single vendors. Each accepts only the algorithm that its vendor uses.

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use ring::digest;
use serde_json::Value;

use crate::payload;

use super::verify::{Call, HmacAlgorithm, TOLERANCE_SECONDS, same, verify_hmac};

/// Verifies Twilio's signature: base64 of HMAC-SHA-1 over the URL and, for a form, each name and
/// value sorted by name, with equal pairs once. A JSON body is covered by its hash in the URL.
/// Twilio signs the URL with or without its port, so both forms are tried.
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

/// Returns the URL as it is, and with its port removed or, if it has none, added.
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

/// Verifies Plivo's signature: base64 of HMAC-SHA-256. Version 3 covers the URL, its parameters and
/// the form fields, each sorted by name, and a nonce. Version 2 covers the URL without its query,
/// and a nonce. Plivo's documentation promises only version 2 for messages.
pub(super) fn plivo(call: &Call<'_>, secret: &str, require_v3: bool) -> Option<()> {
    let bare = call.url.split('?').next()?;
    let Some(signatures) = call.header("x-plivo-signature-v3") else {
        if require_v3 || call.headers.contains_key("x-plivo-signature-v3") {
            return None;
        }
        let nonce = call.header("x-plivo-signature-v2-nonce")?;
        let told = call.header("x-plivo-signature-v2")?;
        let told = BASE64.decode(told.as_bytes()).ok()?;
        let signed = format!("{bare}{nonce}");
        return verify_hmac(HmacAlgorithm::Sha256, secret, signed.as_bytes(), &told);
    };
    let (mut query, mut fields) = (call.query.to_vec(), call.form());
    if fields.is_empty() && !call.body.is_empty() {
        // The signature does not cover a body that is not a form.
        return None;
    }
    query.sort();
    fields.sort();
    let joined: Vec<_> = query
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mut signed = bare.to_owned();
    if !query.is_empty() || !fields.is_empty() {
        signed = signed + "?" + &joined.join("&");
    }
    if !query.is_empty() && !fields.is_empty() {
        signed.push('.');
    }
    signed.extend(fields.into_iter().map(|(name, value)| name + &value));
    let nonce = call.header("x-plivo-signature-v3-nonce")?;
    signed = signed + "." + nonce;
    // The header contains two signatures while an auth token is being rotated.
    signatures.split(',').take(4).find_map(|told| {
        let told = BASE64.decode(told.trim().as_bytes()).ok()?;
        verify_hmac(HmacAlgorithm::Sha256, secret, signed.as_bytes(), &told)
    })
}

/// Verifies Vonage's `sig`: HMAC over `&name=value` of the sorted parameters without `sig`, with
/// `&` and `=` in values replaced by `_`.
pub(super) fn vonage_sig(call: &Call<'_>, secret: &str, algorithm: HmacAlgorithm) -> Option<()> {
    // `d` is part of the callback URL and not covered by the signature, so no receipt is read from
    // it.
    let query = call.query.iter().filter(|(name, _)| name != "d");
    let mut pairs: Vec<(String, String)> = query.cloned().collect();
    let form = call.form();
    let body = payload::text(call.headers, call.body);
    // Do not parse a form as JSON even if its text is valid JSON.
    let json = form.is_empty().then(|| payload::json(&body)).flatten();
    pairs.extend(form);
    if let Some(Value::Object(members)) = json {
        let text = |value: &Value| crate::http::as_text(value).unwrap_or_default();
        pairs.extend(
            members
                .iter()
                .map(|(name, value)| (name.clone(), text(value))),
        );
    }
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
    // Times are checked below, against the injected clock.
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

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};
    use watchword_core::Timestamp;

    use super::*;

    const TOKEN: &str = "a-plivo-auth-token";
    const FORM: &str = "Status=delivered&MessageUUID=u-1&To=4915112345678";

    /// Whether a call with this signature is accepted as Plivo's.
    fn is_plivos(url: &str, body: &str, version: u8, signature: &str, require_v3: bool) -> bool {
        let mut headers = HeaderMap::new();
        let kind = "application/x-www-form-urlencoded";
        headers.insert("content-type", kind.parse().unwrap());
        let names = [
            format!("x-plivo-signature-v{version}"),
            format!("x-plivo-signature-v{version}-nonce"),
        ];
        for (name, value) in names.into_iter().zip([signature, "12345"]) {
            let name: http::HeaderName = name.parse().unwrap();
            headers.insert(name, value.parse().unwrap());
        }
        let query = url.split_once('?').map_or("", |(_, query)| query);
        let query: Vec<_> = url::form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        let call = Call {
            method: &Method::POST,
            url,
            headers: &headers,
            query: &query,
            body: body.as_bytes(),
            now: Timestamp::from_millis(0),
        };
        plivo(&call, TOKEN, require_v3).is_some()
    }

    /// Signatures generated with Plivo's own library for these calls.
    #[test]
    fn plivos_signatures_bind_what_their_version_signs() {
        let url = "https://otp.example.org/v1/receipts/plivo?d=abc-1";
        let v3 = "udUDvhn7bX45nacYJCJIYCOBdspuDrdDFgvaAH0sEBg=";
        assert!(is_plivos(url, FORM, 3, v3, true));
        assert!(is_plivos(url, FORM, 3, &format!("AAAA,{v3}"), true));
        assert!(is_plivos(
            "https://otp.example.org/v1/receipts/plivo",
            FORM,
            3,
            "JLH0sUjhSlpSdnyQzrjGCvXxrG9ELds3JpLp5yykLbQ=",
            true
        ));
        assert!(!is_plivos(
            &url.replace("abc-1", "abc-2"),
            FORM,
            3,
            v3,
            false
        ));
        assert!(!is_plivos(
            url,
            &FORM.replace("delivered", "failed"),
            3,
            v3,
            false
        ));
        assert!(!is_plivos(url, "", 3, v3, false));
        let v2 = "sKZEgvAxrXIShdUJlHZF8fR4t0O0VzxOByCjCIeqs3c=";
        assert!(is_plivos(url, FORM, 2, v2, false));
        assert!(!is_plivos(url, FORM, 2, v2, true));
        assert!(!is_plivos(
            &url.replace("plivo", "other"),
            FORM,
            2,
            v2,
            false
        ));
    }
}
