//! The id under which everything about one request can be found: the trace id of W3C trace
//! context. Refuses to be a secret, and to carry anything but itself.

use std::fmt;
use std::str::FromStr;

use crate::Malformed;

/// 16 bytes, printed as 32 hexadecimal characters; never all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

impl TraceId {
    /// The id with these bytes; `None` for zeros, which the standard reserves.
    pub fn new(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The trace id in a `traceparent` header (`00-<trace>-<parent>-<flags>`), if it has that form.
    pub fn of_traceparent(header: &str) -> Option<Self> {
        let mut parts = header.split('-');
        let (version, trace, parent, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |text: &str, length| {
            text.len() == length
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        };
        let fits = version == "00" && parts.next().is_none() && hex(parent, 16) && hex(flags, 2);
        fits.then(|| trace.parse().ok()).flatten()
    }

    /// A `traceparent` that continues this trace: its parent is the first half of the id, since
    /// no span of ours stands behind it.
    pub fn traceparent(&self) -> String {
        let text = self.to_string();
        format!("00-{text}-{}-00", text.get(..16).unwrap_or_default())
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for TraceId {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        const RULE: Malformed = Malformed::new("a trace id is 32 characters of 0-9 and a-f");
        let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 32 || !text.bytes().all(lower) {
            return Err(RULE);
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| RULE)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| RULE)?;
        }
        Self::new(bytes).ok_or(RULE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_header_gives_an_id() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let id = TraceId::of_traceparent(&format!("00-{trace}-b7ad6b7169203331-01")).unwrap();
        assert_eq!(id.to_string(), trace);
        assert_eq!(TraceId::of_traceparent(&id.traceparent()), Some(id));
        for wrong in [
            String::new(),
            format!("01-{trace}-b7ad6b7169203331-01"),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            format!("00-{}-b7ad6b7169203331-01", trace.to_uppercase()),
            format!("00-{trace}-b7ad6b7169203331"),
            format!("00-{trace}-b7ad6b7169203331-01-x"),
            format!("00-{trace}-b7ad6b716920333\n-01"),
        ] {
            assert_eq!(TraceId::of_traceparent(&wrong), None, "{wrong}");
        }
    }
}
