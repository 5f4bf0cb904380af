//! The shape of most inputs: lines of head, an empty line, a body. Text, so that seeds are written
//! and findings read by people.

/// An input taken apart.
#[derive(Debug)]
pub struct Letter<'a> {
    head: Vec<&'a str>,
    /// All after the empty line.
    pub body: &'a [u8],
}

impl<'a> Letter<'a> {
    /// Takes `input` apart; `None` if its head is no text.
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

    /// The head's line `index`, or nothing.
    pub fn line(&self, index: usize) -> &'a str {
        self.head.get(index).copied().unwrap_or_default()
    }

    /// The head's lines from `index` on as headers; what is none is left out.
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
