//! Ten thousand hostile requests to each public route, drawn from a seed over a raw connection.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use watchword_tests::pipeline::KEY;

use crate::embedded;

const REQUESTS: usize = 10_000;

/// `SplitMix64`: the same requests for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

/// Stands in every hostile value: an answer that holds it has echoed. Not in names of fields: a plain
/// one is named by the error.
const MARK: &str = "hOsTiLe";

const VALUES: &[&str] = &[
    "\"\"",
    "null",
    "0",
    "-1",
    "1e400",
    "9223372036854775808",
    "[]",
    "{}",
    "true",
    "\"+4915112345678hOsTiLe\"",
    "\"+٤٩hOsTiLe\"",
    "\"+49\\u200b15112345678hOsTiLe\"",
    "\"hOsTiLe@b@c.org\"",
    "\"hOsTiLe@b.org\\r\\nBcc: x@y.org\"",
    "\"{{7*7}}hOsTiLe\"",
    "\"${hOsTiLe}\"",
    "\"<script>hOsTiLe</script>\"",
    "\"..\\/..\\/hOsTiLe\"",
    "\"a:{hOsTiLe}\"",
    "\"\\u0000hOsTiLe\"",
    "\"\\ud800hOsTiLe\"",
    "\"１２３４５６hOsTiLe\"",
    "[[[[[[\"hOsTiLe\"]]]]]]",
    "{\"hOsTiLe x\":1}",
    "\"hOsTiLe",
    "NaN",
    "\"\\u202ehOsTiLe\"",
    "\"' OR 1=1 -- hOsTiLe\"",
];
const FIELDS: &[&str] = &[
    "to",
    "channel",
    "code",
    "subject",
    "purpose",
    "locale",
    "variables",
    "check_id",
    "fallback",
    "ttl",
];
const PLACES: &[&str] = &[
    "/v1/verifications",
    "/v1/verifications/{}/resend",
    "/v1/verifications/{}/check",
    "/v1/verifications/{}",
    "/v1/receipts/{}",
];
const IDS: &[&str] = &[
    "hOsTiLe",
    "..%2f..%2fhOsTiLe",
    "%00hOsTiLe",
    "%ffhOsTiLe",
    "%7BhOsTiLe%7D",
    "*hOsTiLe*",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "%E2%80%8BhOsTiLe",
    "%zzhOsTiLe",
];

fn request(chance: &mut Chance, method: &str, place: &str) -> Vec<u8> {
    let mut id = chance.pick(IDS).to_owned();
    if chance.below(20) == 0 {
        id = id.repeat(200);
    }
    let mut fields = Vec::new();
    for _ in 0..chance.below(5) {
        fields.push(format!(
            "\"{}\":{}",
            chance.pick(FIELDS),
            chance.pick(VALUES)
        ));
    }
    let mut body = match chance.below(8) {
        0 => "[".repeat(chance.below(3_000)),
        1 => format!("\u{feff}{{}}{MARK}"),
        _ => format!("{{{}}}", fields.join(",")),
    }
    .into_bytes();
    if chance.below(4) == 0 && !body.is_empty() {
        let at = chance.below(body.len());
        body[at] = u8::try_from(chance.below(256)).unwrap();
    }
    let key = format!("Bearer {KEY}");
    let authorization = match chance.below(8) {
        0 => String::new(),
        1 => format!("authorization: Bearer {MARK}\r\n"),
        2 => format!("authorization: {key}\r\nauthorization: {key}\r\n"),
        _ => format!("authorization: {key}\r\n"),
    };
    let kind = chance.pick(&[
        "application/json",
        "application/json",
        "application/json",
        "application/json",
        "text/hOsTiLe",
        "application/json; charset=utf-16",
    ]);
    let extra = chance.pick(&[
        "",
        "",
        "",
        "x-forwarded-for: hOsTiLe\r\n",
        "content-encoding: gzip\r\n",
        "content-type: text/hOsTiLe\r\n",
        "x: \u{7f}\r\n",
        "expect: hOsTiLe\r\n",
        "idempotency-key: hOsTiLe\r\n",
    ]);
    let length = body.len();
    let framing = match chance.below(16) {
        0 => "transfer-encoding: chunked\r\n".to_owned(),
        1 => format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n"),
        2 => format!(
            "content-length: {length}\r\ncontent-length: {}\r\n",
            length + 1
        ),
        3 => "content-length: -1\r\n".to_owned(),
        4 => "transfer-encoding: hOsTiLe\r\n".to_owned(),
        _ => format!("content-length: {length}\r\n"),
    };
    let path = place.replace("{}", &id);
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
         content-type: {kind}\r\n{authorization}{extra}{framing}\r\n"
    )
    .into_bytes();
    request.extend(body);
    request
}

async fn exchange(port: u16, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    // It may have been refused before its end.
    let _ = stream.write_all(request).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .expect("an answer");
    answer
}

/// What is wrong with an answer, if something is.
fn fault(answer: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(answer).into_owned();
    if text.is_empty() {
        return None; // Cut off before it was a request.
    }
    let status: u16 = text.get(9..12)?.parse().ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    if status >= 500 && status != 503 {
        return Some("a server error");
    }
    if text.contains(MARK) {
        return Some("an echo");
    }
    // What is no HTTP is answered below us, without a body.
    let below = matches!(status, 400 | 414 | 417 | 431) && body.is_empty();
    let problem = head
        .to_ascii_lowercase()
        .contains("application/problem+json")
        && body.contains("\"code\":\"");
    (status >= 400 && !problem && !below).then_some("no problem document")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_hostile_requests_to_each_route_are_refused() {
    let seed = std::env::var("WATCHWORD_SEED").map_or(1, |seed| seed.parse().unwrap());
    let pipeline = embedded().await;
    let port = pipeline.processes["all"].http;
    let routes = [
        ("POST", PLACES[0]),
        ("POST", PLACES[1]),
        ("POST", PLACES[2]),
        ("GET", PLACES[3]),
        ("DELETE", PLACES[3]),
        ("POST", PLACES[4]),
    ];
    for (method, place) in routes {
        let mut chance = Chance(seed);
        for thousand in 0..REQUESTS / 1_000 {
            for _ in 0..1_000 / 20 {
                let requests: Vec<_> = (0..20)
                    .map(|_| request(&mut chance, method, place))
                    .collect();
                let answers = requests.iter().map(|request| exchange(port, request));
                let answers = futures_util::future::join_all(answers).await;
                for (request, answer) in requests.iter().zip(&answers) {
                    if let Some(fault) = fault(answer) {
                        panic!(
                            "{fault}, seed {seed}:\n{}\n--\n{}",
                            String::from_utf8_lossy(request),
                            String::from_utf8_lossy(answer)
                        );
                    }
                }
            }
            let slug = place.replace(['/', '{', '}'], "").to_lowercase() + &method.to_lowercase();
            let to = format!("valid.{slug}{thousand}@example.org");
            assert_eq!(pipeline.ask("all", "email", &to).await.status, 202);
        }
    }
    assert!(!pipeline.logs().contains("panic"), "{}", pipeline.logs());
    assert!(!pipeline.logs().contains(MARK));
}
