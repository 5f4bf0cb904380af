//! Tampered calls: signed calls with one change in a part that the scheme covers. All must be
//! refused.

use watchword_sms_worker::fuzzing::VerifyConfig;

use crate::signer::Draft;

/// Returns copies of the signed call, each with one change in a part that the scheme covers, and
/// its name.
pub fn spoiled(scheme: &VerifyConfig, draft: &Draft) -> Vec<(&'static str, Draft)> {
    let mut all = Vec::new();
    let mut add = |what, change: &dyn Fn(&mut Draft)| {
        let mut draft = draft.clone();
        change(&mut draft);
        all.push((what, draft));
    };
    let more_query = |draft: &mut Draft| draft.query.push(("zz".to_owned(), "1".to_owned()));
    let more_body = |draft: &mut Draft| draft.body.extend_from_slice(b"&zz=1");
    let later = |draft: &mut Draft| draft.now = draft.now.plus_millis(301_000);
    let (header, at) = signature(scheme);
    add("a changed signature", &|draft| {
        if header.is_empty() {
            let (_, value) = draft.query.last_mut().expect("the signature");
            *value = flipped(value, 0);
        } else {
            let text = draft.headers[header].to_str().expect("text").to_owned();
            let at = at.unwrap_or_else(|| text.rfind('.').unwrap_or_default() + 1);
            draft.set(header, &flipped(&text, at));
        }
    });
    if !header.is_empty() {
        add("a missing signature", &|draft| {
            draft.headers.remove(header);
        });
    }
    match scheme {
        VerifyConfig::SecretUrl { .. } | VerifyConfig::Basic { .. } => {}
        VerifyConfig::Hmac {
            content,
            timestamp_header,
            ..
        } => {
            if content.contains("{body}") {
                add("a changed body", &more_body);
            }
            if content.contains("{url}") {
                add("a changed query", &more_query);
            }
            if timestamp_header.is_some() {
                add("a late call", &later);
            }
        }
        VerifyConfig::Ed25519 { .. } => {
            add("a changed body", &more_body);
            add("a late call", &later);
        }
        VerifyConfig::Twilio { .. } => {
            add("a changed body", &more_body);
            add("a changed query", &more_query);
        }
        VerifyConfig::Plivo { require_v3, .. } => {
            add("a changed URL", &|draft| draft.bare.push('x'));
            if *require_v3 {
                add("a changed query", &more_query);
                add("a changed body", &more_body);
            }
        }
        VerifyConfig::VonageSig { .. } => {
            add("a changed query", &|draft| {
                draft.query.insert(0, ("zz".to_owned(), "1".to_owned()));
            });
            add("a late call", &later);
        }
        VerifyConfig::Jwt {
            payload_claim,
            url_claim,
            ..
        } => {
            add("a late call", &later);
            if payload_claim.is_some() {
                add("a changed body", &more_body);
            }
            if url_claim.is_some() {
                add("a changed query", &more_query);
            }
        }
    }
    all
}

/// Replaces the character at `at` by one with another value in both hexadecimal and base64.
fn flipped(text: &str, at: usize) -> String {
    let other = if text[at..].starts_with('0') {
        "1"
    } else {
        "0"
    };
    format!("{}{other}{}", &text[..at], &text[at + 1..])
}

/// Returns the header with the signature and the offset at which it begins; `None` for the header's
/// last part.
fn signature(scheme: &VerifyConfig) -> (&str, Option<usize>) {
    match scheme {
        // The signature is the last parameter of the query.
        VerifyConfig::SecretUrl { .. } | VerifyConfig::VonageSig { .. } => ("", Some(0)),
        VerifyConfig::Basic { .. } => ("authorization", Some(6)),
        VerifyConfig::Hmac { header, prefix, .. } => (header.as_str(), Some(prefix.len())),
        VerifyConfig::Ed25519 { header, .. } => (header.as_str(), Some(0)),
        VerifyConfig::Twilio { .. } => ("x-twilio-signature", Some(0)),
        VerifyConfig::Plivo {
            require_v3: true, ..
        } => ("x-plivo-signature-v3", Some(0)),
        VerifyConfig::Plivo { .. } => ("x-plivo-signature-v2", Some(0)),
        VerifyConfig::Jwt { header, .. } => (header.as_str(), None),
    }
}
