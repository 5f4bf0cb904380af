//! AWS Signature Version 4 of one request. Written here because the vendor's library adds a runtime
//! and second major versions of `http` and of the hash crates. Tested against the vendor's
//! published example and, in the end-to-end suites, against a server that checks signatures.

use std::collections::BTreeMap;
use std::fmt::Write;

use data_encoding::HEXLOWER;
use http::{HeaderMap, HeaderValue};
use ring::{digest, hmac};
use url::Url;
use watchword_core::{SecretString, Timestamp};

/// Credentials and their scope.
pub(super) struct Signer {
    pub(super) service: String,
    pub(super) region: String,
    pub(super) access_key_id: String,
    pub(super) secret: SecretString,
}

impl Signer {
    /// Returns the headers to add: `x-amz-date` and `authorization`. The signature covers `headers`
    /// and the host. Returns `None` if a value is not valid in a header.
    pub(super) fn sign(
        &self,
        method: &str,
        url: &Url,
        headers: &HeaderMap,
        body: &[u8],
        now: Timestamp,
    ) -> Option<HeaderMap> {
        // 2026-11-24T12:00:00.000Z -> 20261124T120000Z
        let stamp: String = now
            .to_rfc3339()
            .chars()
            .filter(|c| !matches!(c, '-' | ':'))
            .take(15)
            .chain(['Z'])
            .collect();
        let day = stamp.get(..8)?;
        let mut signed: BTreeMap<String, String> = headers
            .iter()
            .filter_map(|(name, value)| {
                Some((
                    name.as_str().to_owned(),
                    value.to_str().ok()?.trim().to_owned(),
                ))
            })
            .collect();
        let host = match url.port() {
            Some(port) => format!("{}:{port}", url.host_str()?),
            None => url.host_str()?.to_owned(),
        };
        signed.insert("host".to_owned(), host);
        signed.insert("x-amz-date".to_owned(), stamp.clone());
        let names: Vec<_> = signed.keys().map(String::as_str).collect();
        let names = names.join(";");
        let mut canonical = format!("{method}\n{}\n{}\n", url.path(), canonical_query(url));
        for (name, value) in &signed {
            let _ = writeln!(canonical, "{name}:{value}");
        }
        let _ = write!(canonical, "\n{names}\n{}", sha256(body));
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}",
            sha256(canonical.as_bytes())
        );
        let start = zeroize::Zeroizing::new(format!("AWS4{}", self.secret.expose()));
        let mut key = hmac_sha256(start.as_bytes(), day.as_bytes());
        for part in [&self.region, &self.service, "aws4_request"] {
            key = hmac_sha256(key.as_ref(), part.as_bytes());
        }
        let signature = HEXLOWER.encode(hmac_sha256(key.as_ref(), to_sign.as_bytes()).as_ref());
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            self.access_key_id
        );
        let mut authorization = HeaderValue::from_str(&authorization).ok()?;
        authorization.set_sensitive(true);
        let mut added = HeaderMap::new();
        added.insert("x-amz-date", HeaderValue::from_str(&stamp).ok()?);
        added.insert("authorization", authorization);
        Some(added)
    }
}

fn canonical_query(url: &Url) -> String {
    let encode = |text: &str| {
        text.bytes().fold(String::new(), |mut encoded, byte| {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                encoded.push(char::from(byte));
            } else {
                let _ = write!(encoded, "%{byte:02X}");
            }
            encoded
        })
    };
    let mut pairs: Vec<_> = url
        .query_pairs()
        .map(|(name, value)| format!("{}={}", encode(&name), encode(&value)))
        .collect();
    pairs.sort();
    pairs.join("&")
}

fn sha256(bytes: &[u8]) -> String {
    HEXLOWER.encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hmac_sha256(key: &[u8], message: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the vendor's documentation ("Create a signed AWS API request"): `ListUsers`
    /// of IAM on 2015-08-30.
    #[test]
    fn the_published_example_is_signed_the_same() {
        let signer = Signer {
            service: "iam".into(),
            region: "us-east-1".into(),
            access_key_id: "AKIDEXAMPLE".into(),
            secret: SecretString::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into()),
        };
        let url =
            Url::parse("https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(
            "content-type",
            "application/x-www-form-urlencoded; charset=utf-8"
                .parse()
                .unwrap(),
        );
        let now = Timestamp::from_rfc3339("2015-08-30T12:36:00Z").unwrap();
        let added = signer.sign("GET", &url, &headers, b"", now).unwrap();
        assert_eq!(
            added["authorization"].to_str().unwrap(),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, \
             Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
        );
        assert_eq!(added["x-amz-date"], "20150830T123600Z");
    }
}
