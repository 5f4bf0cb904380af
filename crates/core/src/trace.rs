//! W3C trace context: trace ids, span ids and the `traceparent` header. All records about one
//! request share its trace id. Ids are not secret.

use std::fmt;
use std::str::FromStr;

use crate::Malformed;

/// A trace id: 16 bytes, printed as 32 hexadecimal characters, never all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

impl TraceId {
    /// Returns the id with these bytes, or `None` for all zeros, which W3C trace context reserves.
    pub fn new(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// Returns the bytes of the id.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Returns a parent that continues this trace. The header needs a parent id; there is no
    /// recorded span to name, so the first half of the trace id is used.
    pub fn traceparent(&self) -> TraceParent {
        let mut span = [0; 8];
        span.copy_from_slice(&self.0[..8]);
        TraceParent {
            trace: *self,
            span: SpanId(span),
            is_sampled: false,
        }
    }
}

/// A span id: 8 bytes, printed as 16 hexadecimal characters, never all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

impl SpanId {
    /// Returns the id with these bytes, or `None` for all zeros, which W3C trace context reserves.
    pub fn new(bytes: [u8; 8]) -> Option<Self> {
        (bytes != [0; 8]).then_some(Self(bytes))
    }

    /// Returns the bytes of the id.
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

/// The position of the caller in a trace: `00-<trace>-<span>-<flags>` (W3C trace context).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace that the caller is part of.
    pub trace: TraceId,
    /// The caller's span: the parent of the spans recorded here.
    pub span: SpanId,
    /// Whether the caller records the spans of this trace.
    pub is_sampled: bool,
}

impl TraceParent {
    /// Parses a header of version 00. Returns `None` if it is malformed.
    pub fn parse(header: &str) -> Option<Self> {
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
        if !fits {
            return None;
        }
        Some(Self {
            trace: trace.parse().ok()?,
            span: SpanId::new(u64::from_str_radix(parent, 16).ok()?.to_be_bytes())?,
            is_sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1,
        })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.is_sampled);
        let (trace, span) = (self.trace, u64::from_be_bytes(self.span.0));
        write!(f, "00-{trace}-{span:016x}-{flags:02x}")
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
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
        let parent = TraceParent::parse(&format!("00-{trace}-b7ad6b7169203331-01"));
        let id = parent.unwrap().trace;
        assert_eq!(id.to_string(), trace);
        let continued = TraceParent::parse(&id.traceparent().to_string());
        assert_eq!(continued, Some(id.traceparent()));
        assert_eq!(continued.unwrap().trace, id);
        for flags in ["00", "01"] {
            let header = format!("00-{trace}-b7ad6b7169203331-{flags}");
            let parent = TraceParent::parse(&header).unwrap();
            assert_eq!(parent.is_sampled, flags == "01");
            assert_eq!(parent.to_string(), header);
        }
        for wrong in [
            String::new(),
            format!("01-{trace}-b7ad6b7169203331-01"),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            format!("00-{}-b7ad6b7169203331-01", trace.to_uppercase()),
            format!("00-{trace}-b7ad6b7169203331"),
            format!("00-{trace}-0000000000000000-01"),
            format!("00-{trace}-b7ad6b7169203331-01-x"),
            format!("00-{trace}-b7ad6b716920333\n-01"),
        ] {
            assert_eq!(TraceParent::parse(&wrong), None, "{wrong}");
        }
    }
}
