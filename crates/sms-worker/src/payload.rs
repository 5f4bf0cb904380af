//! Decoding of gateway bodies as text and as JSON. A misread answer can send a person the same
//! message twice, so a byte order mark, another charset, a compressed body or a raw line feed in a
//! JSON string must not hide the answer. Bodies have at most [`MAX_BYTES`], before and after
//! decompression.

use std::borrow::Cow;
use std::fmt::Write;
use std::io::Read;

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde_json::Value;

/// Longest body that is read.
pub(crate) const MAX_BYTES: usize = 64 * 1024;

/// Returns the decompressed body; `None` if the compression is broken or the body exceeds
/// [`MAX_BYTES`]. gzip is recognized by its first two octets, with which no text begins, so a
/// missing header does not matter.
pub(crate) fn decompressed<'a>(headers: &HeaderMap, body: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    if body.starts_with(&[0x1f, 0x8b]) {
        return bounded(MultiGzDecoder::new(body)).map(Cow::Owned);
    }
    let encodings = headers.get_all(CONTENT_ENCODING).iter();
    let is_deflated = encodings.into_iter().any(|value| {
        let value = value.as_bytes().trim_ascii();
        value.eq_ignore_ascii_case(b"deflate")
    });
    if is_deflated && !body.is_empty() {
        // Some senders omit the zlib wrapper (RFC 9110 section 8.4.1.2).
        return bounded(ZlibDecoder::new(body))
            .or_else(|| bounded(DeflateDecoder::new(body)))
            .map(Cow::Owned);
    }
    Some(Cow::Borrowed(body))
}

fn bounded(reader: impl Read) -> Option<Vec<u8>> {
    let most = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
    let mut body = Vec::new();
    reader
        .take(most.saturating_add(1))
        .read_to_end(&mut body)
        .ok()?;
    (body.len() <= MAX_BYTES).then_some(body)
}

/// Returns the body as text without its byte order mark. Bytes that are invalid in their charset
/// become replacement characters.
pub(crate) fn text<'a>(headers: &HeaderMap, body: &'a [u8]) -> Cow<'a, str> {
    let utf16 = |body: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, _) = body.as_chunks::<2>();
        let chars = char::decode_utf16(pairs.iter().map(|pair| unit(*pair)));
        Cow::Owned(
            chars
                .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
                .collect(),
        )
    };
    match body {
        [0xef, 0xbb, 0xbf, rest @ ..] => return String::from_utf8_lossy(rest),
        [0xff, 0xfe, rest @ ..] => return utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => return utf16(rest, u16::from_be_bytes),
        _ => {}
    }
    if let Ok(text) = std::str::from_utf8(body) {
        return Cow::Borrowed(text);
    }
    if is_latin1(headers) {
        return Cow::Owned(body.iter().copied().map(char::from).collect());
    }
    String::from_utf8_lossy(body)
}

fn is_latin1(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE);
    let kind = kind.map(|kind| kind.as_bytes().to_ascii_lowercase());
    let kind = String::from_utf8(kind.unwrap_or_default()).unwrap_or_default();
    let charset = kind.split("charset=").nth(1).unwrap_or_default();
    let charset = charset.trim_start_matches('"');
    ["iso-8859-1", "latin1", "windows-1252"]
        .iter()
        .any(|name| charset.starts_with(name))
}

/// Parses the JSON in `text`. Tolerates raw control characters in strings. Keeps an integer outside
/// 64 bits as a string: it is an id, and must stay exact.
pub(crate) fn json(text: &str) -> Option<Value> {
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0');
    serde_json::from_str(&strict(text)).ok()
}

/// Returns the document in the strict syntax of RFC 8259.
fn strict(text: &str) -> Cow<'_, str> {
    let mut strict = String::new();
    // Offset in `text` up to which `strict` holds the content.
    let mut done = 0;
    let mut chars = text.char_indices().peekable();
    let (mut in_string, mut escaped) = (false, false);
    while let Some((at, c)) = chars.next() {
        if in_string {
            if c < ' ' {
                strict.push_str(text.get(done..at).unwrap_or_default());
                let _ = write!(strict, "\\u{:04x}", u32::from(c));
                done = at + 1;
            }
            in_string = c != '"' || escaped;
            escaped = c == '\\' && !escaped;
        } else if c == '"' {
            in_string = true;
        } else if c == '-' || c.is_ascii_digit() {
            while chars
                .next_if(|(_, c)| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-'))
                .is_some()
            {}
            let end = chars.peek().map_or(text.len(), |(end, _)| *end);
            let number = text.get(at..end).unwrap_or_default();
            if is_long_integer(number) {
                strict.push_str(text.get(done..at).unwrap_or_default());
                let _ = write!(strict, "\"{number}\"");
                done = end;
            }
        }
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    strict.push_str(text.get(done..).unwrap_or_default());
    Cow::Owned(strict)
}

/// Whether `number` is an integer that does not fit in 64 bits or has leading zeros.
fn is_long_integer(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    let is_integer = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let fits = number.parse::<u64>().is_ok() || number.parse::<i64>().is_ok();
    is_integer && (!fits || (digits.len() > 1 && digits.starts_with('0')))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use http::HeaderValue;

    use super::*;

    const BODY: &[u8] = br#"{"status":"queued","id":"g1"}"#;

    fn headers(name: http::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn compressed_bodies_are_read_and_bombs_are_not() {
        let gzip = |body: &[u8]| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap()
        };
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(BODY).unwrap();
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::fast());
        raw.write_all(BODY).unwrap();
        let none = HeaderMap::new();
        let deflate = headers(CONTENT_ENCODING, "Deflate");
        for (headers, body) in [
            (&headers(CONTENT_ENCODING, "gzip"), gzip(BODY)),
            (&none, gzip(BODY)),
            (&deflate, zlib.finish().unwrap()),
            (&deflate, raw.finish().unwrap()),
            // Declared, but not compressed.
            (&headers(CONTENT_ENCODING, "gzip"), BODY.to_vec()),
            (&none, BODY.to_vec()),
        ] {
            assert_eq!(decompressed(headers, &body).as_deref(), Some(BODY));
        }
        assert_eq!(decompressed(&none, &gzip(&vec![b'x'; MAX_BYTES + 1])), None);
        assert!(decompressed(&none, &gzip(&vec![b'x'; MAX_BYTES])).is_some());
        assert_eq!(decompressed(&none, &gzip(BODY)[..12]), None);
        assert_eq!(decompressed(&deflate, b"\xff\xff\xff"), None);
        assert_eq!(decompressed(&deflate, b"").as_deref(), Some(&b""[..]));
    }

    #[test]
    fn marks_and_charsets_do_not_hide_a_text() {
        let none = HeaderMap::new();
        let latin = headers(CONTENT_TYPE, "text/plain; charset=\"ISO-8859-1\"");
        for (headers, body, expected) in [
            (&none, &b"\xef\xbb\xbfok"[..], "ok"),
            (&none, b"\xff\xfeo\0k\0", "ok"),
            (&none, b"\xfe\xff\0o\0k", "ok"),
            (&none, b"envoy\xe9", "envoy\u{fffd}"),
            (&latin, b"envoy\xe9", "envoyé"),
            (&latin, "envoyé".as_bytes(), "envoyé"),
            (&none, b"", ""),
        ] {
            assert_eq!(text(headers, body), expected, "{body:?}");
        }
    }

    #[test]
    fn json_of_gateways_is_read_with_its_faults() {
        for (text, pointer, expected) in [
            ("{\"a\":\"x\ny\t\u{1}\"}", "/a", Some("x\ny\t\u{1}")),
            (r#"{"a":"\\","b":"1"}"#, "/b", Some("1")),
            (r#"{"a\"":1,"b":"\"\n"}"#, "/b", Some("\"\n")),
            (
                r#"{"a":18446744073709551616}"#,
                "/a",
                Some("18446744073709551616"),
            ),
            (
                "[340282366920938463463374607431768211456]",
                "/0",
                Some("340282366920938463463374607431768211456"),
            ),
            (
                r#"{"a":-9223372036854775809}"#,
                "/a",
                Some("-9223372036854775809"),
            ),
            (r#"{"a":0012}"#, "/a", Some("0012")),
            ("{\"a\":\"1\"}\r\n\0", "/a", Some("1")),
            (r#"{"a":"#, "/a", None),
            ("<html>", "", None),
        ] {
            let read = json(text);
            let found = read.as_ref().and_then(|json| json.pointer(pointer));
            assert_eq!(found.and_then(Value::as_str), expected, "{text}");
        }
        // Numbers that fit stay numbers.
        for number in [
            "18446744073709551615",
            "-9223372036854775808",
            "0",
            "-0",
            "1.5e3",
            "7",
        ] {
            let text = format!("[{number}]");
            assert_eq!(json(&text), serde_json::from_str(&text).ok(), "{number}");
        }
    }

    #[test]
    fn what_is_strict_already_is_not_changed() {
        let text = r#"{"a":[1,-2.5,"\u000a",true,null],"é":"\"{[0012"}"#;
        assert!(matches!(strict(text), Cow::Borrowed(_)));
    }
}
