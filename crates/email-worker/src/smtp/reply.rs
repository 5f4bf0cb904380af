//! Replies of a relay (RFC 5321 section 4.2), bounded in size, with any bytes as text. The code
//! decides. The text is decoded lossily for [`super::blame`] and never leaves this crate.

/// Longer than any line of a conforming relay: RFC 5321 section 4.5.3.1.5 allows 512 bytes.
const MAX_LINE_BYTES: usize = 2_048;
const MAX_LINES: usize = 128;
const MAX_REPLY_BYTES: usize = 32 * 1024;

/// Complete reply.
#[derive(PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(super) struct Reply {
    code: u16,
    lines: Vec<String>,
}

/// Result of parsing received bytes.
#[derive(PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(super) enum Parsed {
    /// More bytes are needed.
    Incomplete,
    /// The bytes are not the start of a valid reply.
    Malformed,
    /// Reply, and the number of bytes that it takes.
    Whole(Reply, usize),
}

impl Reply {
    /// Parses the reply at the start of `bytes`. Lines end in LF, with or without CR.
    pub(super) fn parse(bytes: &[u8]) -> Parsed {
        let mut reply = None;
        let mut taken = 0;
        while let Some(length) = bytes[taken..].iter().position(|byte| *byte == b'\n') {
            let line = &bytes[taken..taken + length];
            taken += length + 1;
            let Some((code, is_last, text)) = parse_line(line) else {
                return Parsed::Malformed;
            };
            let Self { code: first, lines } = reply.get_or_insert_with(|| Self {
                code,
                lines: Vec::new(),
            });
            if code != *first || lines.len() == MAX_LINES || taken > MAX_REPLY_BYTES {
                return Parsed::Malformed;
            }
            lines.push(text);
            if is_last {
                return reply.map_or(Parsed::Malformed, |reply| Parsed::Whole(reply, taken));
            }
        }
        if bytes.len() - taken > MAX_LINE_BYTES || bytes.len() > MAX_REPLY_BYTES {
            return Parsed::Malformed;
        }
        Parsed::Incomplete
    }

    pub(super) const fn code(&self) -> u16 {
        self.code
    }

    /// Returns the first digit, which alone decides how the conversation continues: other digits
    /// may be unknown (RFC 5321 section 4.3.2).
    pub(super) const fn digit(&self) -> u16 {
        self.code / 100
    }

    /// Returns the text of each line.
    pub(super) fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}

/// Parses a line without its LF into the code, whether it ends the reply, and the text.
fn parse_line(line: &[u8]) -> Option<(u16, bool, String)> {
    if line.len() > MAX_LINE_BYTES {
        return None;
    }
    let end = line.iter().rposition(|byte| *byte != b'\r');
    let line = &line[..end.map_or(0, |end| end + 1)];
    let (digits, rest) = line.split_at_checked(3)?;
    if !matches!(digits[0], b'2'..=b'5') || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let code = digits
        .iter()
        .fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    let (is_last, text) = match rest.split_first() {
        None => (true, rest),
        Some((b' ' | b'\t', text)) => (true, text),
        Some((b'-', text)) => (false, text),
        Some(_) => return None,
    };
    Some((code, is_last, String::from_utf8_lossy(text).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> (u16, Vec<String>) {
        match Reply::parse(bytes) {
            Parsed::Whole(reply, taken) if taken == bytes.len() => (reply.code, reply.lines),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn codes_decide_and_any_text_is_taken() {
        let table: [(&[u8], u16, &[&str]); 12] = [
            (b"250 ok\r\n", 250, &["ok"]),
            (b"250 ok\n", 250, &["ok"]),
            (b"250 ok\r\r\n", 250, &["ok"]),
            (b"250\r\n", 250, &[""]),
            (b"250 \r\n", 250, &[""]),
            (b"250\tok\r\n", 250, &["ok"]),
            (b"571 not you\r\n", 571, &["not you"]),
            (b"299 odd\r\n", 299, &["odd"]),
            (b"250-a\r\n250-\r\n250 b\r\n", 250, &["a", "", "b"]),
            (b"250-a\n250 b\n", 250, &["a", "b"]),
            (b"220 gr\xfc\xdf\r\n", 220, &["gr\u{fffd}\u{fffd}"]),
            // "Authentication failed" in GBK.
            (
                b"535 \xc8\xcf\xd6\xa4\r\n",
                535,
                &["\u{fffd}\u{fffd}\u{5a4}"],
            ),
        ];
        for (bytes, code, lines) in table {
            let (parsed, text) = whole(bytes);
            assert_eq!(
                (parsed, text),
                (code, lines.iter().map(|l| (*l).to_owned()).collect())
            );
        }
    }

    #[test]
    fn the_bytes_after_a_reply_are_left_alone() {
        let Parsed::Whole(reply, taken) = Reply::parse(b"220 go\r\n250 injected\r\n") else {
            panic!("no reply");
        };
        assert_eq!((reply.code(), reply.digit(), taken), (220, 2, 8));
    }

    #[test]
    fn a_start_is_incomplete() {
        let bytes = b"250-a\r\n250-b\r\n250 c\r\n";
        for length in 0..bytes.len() {
            assert_eq!(
                Reply::parse(&bytes[..length]),
                Parsed::Incomplete,
                "{length}"
            );
        }
        let nearly = [&b"250 "[..], &[b'a'; MAX_LINE_BYTES - 4]].concat();
        assert_eq!(Reply::parse(&nearly), Parsed::Incomplete);
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        let long = [&b"250 "[..], &[b'a'; MAX_LINE_BYTES]].concat();
        let long_line = [&long[..], b"\r\n"].concat();
        let endless = b"250-a\r\n".repeat(MAX_LINES + 1);
        let wide = [&b"250-"[..], &[b'a'; 2_000], b"\r\n"].concat().repeat(17);
        let table: [&[u8]; 16] = [
            b"\r\n",
            b"\n",
            b"25\r\n",
            b"2x0 ok\r\n",
            b"hello\r\n",
            b" 250 ok\r\n",
            b"150 early\r\n",
            b"650 late\r\n",
            b"050 ok\r\n",
            b"2500 ok\r\n",
            b"250ok\r\n",
            b"250-a\r\n251 b\r\n",
            &long,
            &long_line,
            &endless,
            &wide,
        ];
        for bytes in table {
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(20)]).into_owned();
            assert_eq!(Reply::parse(bytes), Parsed::Malformed, "{shown:?}");
        }
    }
}
