//! Ten thousand hostile requests to each public route, generated from a seed and sent over a raw
//! connection.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use watchword_tests::pipeline::{KEY, admin_key};
use watchword_tests::{Pipeline, Settings};

use crate::{embedded, memory_kib};

const REQUESTS: usize = 10_000;
/// Limit of the process's growth during the requests to a route.
const GROWTH_KIB: u64 = 32 * 1024;
/// The secret that authenticates a receipt in [`PLACES`].
const TOKEN: &str = "the-token-of-kannel";

/// A `SplitMix64` generator: the same seed gives the same requests.
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

/// A marker in every hostile value: a response that contains it has echoed input. Not used in field
/// names, because errors name an unknown field.
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
    "reason",
    "service",
    "recipient",
    "filter",
    "all",
    "state",
];
const PLACES: &[&str] = &[
    "/v1/verifications",
    "/v1/verifications/{}/resend",
    "/v1/verifications/{}/check",
    "/v1/verifications/{}",
    "/v1/receipts/{}",
    "/v1/receipts/kannel?d={}-1&s={}&token=the-token-of-kannel&hOsTiLe={}",
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

fn request(chance: &mut Chance, method: &str, place: &str, is_last: bool) -> Vec<u8> {
    request_of(chance, (method, place), KEY, is_last)
}

fn request_of(
    chance: &mut Chance,
    (method, place): (&str, &str),
    key: &str,
    is_last: bool,
) -> Vec<u8> {
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
    let key = format!("Bearer {key}");
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
        "{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: {}\r\n\
         content-type: {kind}\r\n{authorization}{extra}{framing}\r\n",
        if is_last { "close" } else { "keep-alive" }
    )
    .into_bytes();
    request.extend(body);
    request
}

async fn exchange(port: u16, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    // The server may have refused the request before its end.
    let _ = stream.write_all(request).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .expect("an answer");
    answer
}

/// Splits the responses of one connection. No body contains a status line.
fn answers(text: &str) -> Vec<&str> {
    let begins: Vec<_> = text.match_indices("HTTP/1.1 ").collect();
    let ends = begins.iter().skip(1).map(|(at, _)| *at);
    let ends = ends.chain([text.len()]);
    begins
        .iter()
        .zip(ends)
        .map(|((at, _), end)| &text[*at..end])
        .collect()
}

/// Returns the fault of a response, if it has one.
fn fault(text: &str) -> Option<&'static str> {
    let status: u16 = text.get(9..12)?.parse().ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    if status >= 500 && status != 503 {
        return Some("a server error");
    }
    if text.contains(MARK) {
        return Some("an echo");
    }
    // hyper itself answers requests that are not HTTP, without a body.
    let below = matches!(status, 400 | 414 | 417 | 431) && body.is_empty();
    let problem = head
        .to_ascii_lowercase()
        .contains("application/problem+json")
        && body.contains("\"code\":\"");
    (status >= 400 && !problem && !below).then_some("no problem document")
}

/// Starts a pipeline with a gateway for receipts; it gets no messages here.
async fn with_receipts() -> Pipeline {
    let mut settings = Settings::embedded();
    settings.service = "[services.test.limits]\nservice_per_minute = 100000".into();
    settings.providers = "[sms.providers.kannel]\nkind = \"kannel\"\nsender = \"Test\"\n\
         settings = { base_url = \"http://127.0.0.1:9\", username = \"watchword\" }\n\
         secrets = { password = { env = \"KANNEL_PASSWORD\" }, receipt_token = { env = \"KANNEL_TOKEN\" } }\n\
         [email.providers.inbox]\nkind = \"inbox\"\n"
        .into();
    let mut pipeline = Pipeline::configure(&settings);
    for name in ["KANNEL_PASSWORD", "KANNEL_TOKEN"] {
        pipeline.variables.push((name.into(), TOKEN.into()));
    }
    pipeline.start("all", &[]).await;
    pipeline
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_hostile_requests_to_each_route_are_refused() {
    let seed = std::env::var("WATCHWORD_SEED").map_or(1, |seed| seed.parse().unwrap());
    let pipeline = with_receipts().await;
    let role = &pipeline.processes["all"];
    let (port, id) = (role.http, role.process.id());
    let routes = [
        ("POST", PLACES[0]),
        ("POST", PLACES[1]),
        ("POST", PLACES[2]),
        ("GET", PLACES[3]),
        ("DELETE", PLACES[3]),
        ("POST", PLACES[4]),
        ("GET", PLACES[5]),
        ("POST", PLACES[5]),
    ];
    for (route, (method, place)) in routes.into_iter().enumerate() {
        let mut chance = Chance(seed);
        let (before, mut answered) = (memory_kib(id), 0);
        for thousand in 0..REQUESTS / 1_000 {
            for _ in 0..1_000 / 20 {
                // Two requests on each connection, without waiting for the first response.
                let pairs: Vec<_> = (0..10)
                    .map(|_| {
                        let mut pair = request(&mut chance, method, place, false);
                        pair.extend(request(&mut chance, method, place, true));
                        pair
                    })
                    .collect();
                let texts = pairs.iter().map(|pair| exchange(port, pair));
                let texts = futures_util::future::join_all(texts).await;
                for (pair, text) in pairs.iter().zip(&texts) {
                    let text = String::from_utf8_lossy(text);
                    let answers = answers(&text);
                    answered += answers.len();
                    let too_many = (answers.len() > 2).then_some("more answers than requests");
                    if let Some(fault) = answers.into_iter().find_map(fault).or(too_many) {
                        panic!(
                            "{fault}, seed {seed}:\n{}\n--\n{text}",
                            String::from_utf8_lossy(pair),
                        );
                    }
                }
            }
            let to = format!("valid{route}.{thousand}@example.org");
            assert_eq!(pipeline.ask("all", "email", &to).await.status, 202);
        }
        // If the end of the first request cannot be determined, the second is not read.
        assert!(answered > REQUESTS / 2, "{answered} were answered");
        let grown = memory_kib(id).saturating_sub(before);
        println!("{method} {place}: {answered} answers, {grown} KiB more");
        assert!(grown < GROWTH_KIB, "{method} {place}: {grown} KiB more");
    }
    assert!(!pipeline.logs().contains("panic"), "{}", pipeline.logs());
    assert!(!pipeline.logs().contains(MARK));
    assert!(!pipeline.logs().contains(TOKEN));
}

/// Each key makes fewer requests than its rate limit allows, so that the requests reach the code
/// under attack.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_hostile_requests_to_the_admin_api_are_refused() {
    const OF_A_KEY: usize = 25;
    const ROUTES: [(&str, &str); 15] = [
        ("POST", "/verifications/find"),
        ("POST", "/verifications/{}/resend"),
        ("POST", "/verifications/{}/cancel"),
        ("POST", "/unlock"),
        ("POST", "/dead-letters/list"),
        ("POST", "/dead-letters/show"),
        ("POST", "/dead-letters/replay"),
        ("POST", "/dead-letters/discard"),
        ("POST", "/audit"),
        ("GET", "/providers"),
        ("POST", "/providers/{}/circuit"),
        ("GET", "/configuration?hOsTiLe={}"),
        ("POST", "/reload"),
        ("GET", "/status"),
        ("PATCH", "/{}"),
    ];
    let seed = std::env::var("WATCHWORD_SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut settings = Settings::embedded();
    let key = |number: usize| format!("hostile-admin-key-{number:04}");
    for number in 0..REQUESTS / OF_A_KEY {
        let section = admin_key(&format!("k{number}"), &key(number), "operator");
        settings.providers.push_str(&section);
    }
    let mut pipeline = Pipeline::configure(&settings);
    pipeline.start("all", &[]).await;
    let role = &pipeline.processes["all"];
    let (port, id) = (role.admin, role.process.id());
    let (mut chance, before) = (Chance(seed), memory_kib(id));
    let (mut reached, mut overloaded, mut slowest) = (0, 0, Duration::ZERO);
    for number in 0..REQUESTS {
        let (method, place) = ROUTES[number % ROUTES.len()];
        let place = format!("/admin/v1{place}");
        let key = key(number / OF_A_KEY);
        let request = request_of(&mut chance, (method, &place), &key, true);
        let begun = Instant::now();
        let text = exchange(port, &request).await;
        slowest = slowest.max(begun.elapsed());
        let text = String::from_utf8_lossy(&text);
        for answer in answers(&text) {
            reached += usize::from(!answer.contains("\"code\":\"unauthorized\""));
            let is_limited = answer.contains("this key has made too many requests");
            let limited = is_limited.then_some("a limit that the test is below");
            // A change continues after its caller has disconnected, and only few may run at once.
            let is_overloaded = answer.contains("\"code\":\"overloaded\"");
            overloaded += usize::from(is_overloaded);
            let is_error = answer.starts_with("HTTP/1.1 5") && !is_overloaded;
            let server = is_error.then_some("a server error");
            if let Some(fault) = fault(answer).or(limited).or(server) {
                let request = String::from_utf8_lossy(&request);
                panic!("{fault}, seed {seed}:\n{request}\n--\n{text}");
            }
        }
    }
    let grown = memory_kib(id).saturating_sub(before);
    println!(
        "{reached} with a key, {overloaded} overloaded, the slowest took \
         {slowest:?}, {grown} KiB more"
    );
    assert!(overloaded < REQUESTS / 20, "{overloaded}");
    assert!(reached > REQUESTS / 2, "{reached} had a key");
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    assert!(grown < GROWTH_KIB, "{grown} KiB more");
    assert!(!pipeline.logs().contains("panic"), "{}", pipeline.logs());
    assert!(!pipeline.logs().contains(MARK));
    assert_eq!(
        pipeline.ask("all", "email", "a@example.org").await.status,
        202
    );
}

/// A body as one parser sees it must not be read as the next request by another (RFC 9112 sections
/// 6.1 and 6.3).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_framed_twice_carries_no_other() {
    let pipeline = embedded().await;
    let port = pipeline.processes["all"].http;
    let inner = format!(
        "GET /v1/verifications/x HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\n\r\n"
    );
    let body = format!("0\r\n\r\n{inner}");
    let length = body.len();
    for framing in [
        format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n"),
        format!("transfer-encoding: chunked\r\ncontent-length: {length}\r\n"),
        format!("transfer-encoding: identity\r\ncontent-length: {length}\r\n"),
        format!("transfer-encoding: chunked, identity\r\ncontent-length: {length}\r\n"),
        format!("transfer-encoding : chunked\r\ncontent-length: {length}\r\n"),
        format!("transfer-encoding: xchunked\r\ncontent-length: {length}\r\n"),
        format!("content-length: 0\r\ncontent-length: {length}\r\n"),
        format!("content-length: {length}, 0\r\n"),
        format!("content-length: +{length}\r\n"),
    ] {
        let request = format!(
            "POST /v1/verifications HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\n\
             content-type: application/json\r\n{framing}\r\n{body}"
        );
        let text = exchange(port, request.as_bytes()).await;
        let text = String::from_utf8_lossy(&text);
        let answers = answers(&text);
        assert_eq!(answers.len(), 1, "{framing}\n{text}");
        assert!(answers[0].starts_with("HTTP/1.1 4"), "{framing}\n{text}");
    }
}
