//! The format of most inputs: head lines, an empty line, a body. Plain text, so that people can
//! write seeds and read findings.

/// A parsed input.
#[derive(Debug)]
pub struct Letter<'a> {
    head: Vec<&'a str>,
    /// Everything after the empty line.
    pub body: &'a [u8],
}

impl<'a> Letter<'a> {
    /// Parses `input`; `None` if its head is not UTF-8.
    pub fn open(input: &'a [u8]) -> Option<Self> {
        let end = input.windows(2).position(|pair| pair == b"\n\n");
        let (head, body) = match end {
            Some(end) => (&input[..end], &input[end + 2..]),
            None => (input, &[][..]),
        };
        Some(Self {
            head: std::str::from_utf8(head).ok()?.split('\n').collect(),
            body,
        })
    }

    /// Returns line `index` of the head, or an empty string.
    pub fn line(&self, index: usize) -> &'a str {
        self.head.get(index).copied().unwrap_or_default()
    }

    /// Parses the head's lines from `index` on as headers and skips invalid ones.
    pub fn headers(&self, index: usize) -> http::HeaderMap {
        let mut headers = http::HeaderMap::new();
        for line in self.head.iter().skip(index).take(64) {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let name = http::HeaderName::from_bytes(name.as_bytes());
            let value = http::HeaderValue::from_bytes(value.trim().as_bytes());
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.append(name, value);
            }
        }
        headers
    }
}
