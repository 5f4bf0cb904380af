//! Listeners against slow clients, on real sockets and with short deadlines.

use axum::body::Bytes;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::*;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const PATIENCE: Patience = Patience {
    idle: Duration::from_millis(1_500),
    head: Duration::from_millis(400),
    answer: Duration::from_millis(400),
};

struct Server {
    port: u16,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn server(most: usize) -> Server {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let large = vec![b'x'; 16 << 20];
    let routes = Router::new()
        .route("/", get(async || "hello"))
        .route("/large", get(async move || large.clone()))
        .route(
            "/slow",
            get(async || {
                sleep(Duration::from_secs(2)).await;
                "late"
            }),
        )
        .route("/echo", post(async |body: Bytes| body));
    let routes = crate::http::within(routes, 2);
    let stop = CancellationToken::new();
    let task = tokio::spawn(serve_within(listener, routes, most, PATIENCE, stop.clone()));
    Server { port, stop, task }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }
}

async fn ask(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 4_096];
    stream.write_all(REQUEST).await.is_ok()
        && matches!(stream.read(&mut answer).await, Ok(count) if {
            let answer = String::from_utf8_lossy(&answer[..count]);
            answer.ends_with("hello") && answer.contains("\r\ncache-control: no-store\r\n")
        })
}

/// Returns how long the server takes to close the connection.
async fn until_closed(stream: &mut TcpStream) -> Duration {
    let begun = Instant::now();
    let mut rest = Vec::new();
    let _ = timeout(Duration::from_secs(10), stream.read_to_end(&mut rest))
        .await
        .expect("the server closes it");
    begun.elapsed()
}

#[tokio::test]
async fn a_head_that_dribbles_is_cut_and_an_idle_connection_later() {
    let server = server(10).await;
    let (mut slow, mut idle) = (server.connect().await, server.connect().await);
    assert!(ask(&mut idle).await);
    let begun = Instant::now();
    let mut sent = 0;
    for byte in REQUEST.iter().cycle().take(20) {
        if slow.write_all(&[*byte]).await.is_err() {
            break;
        }
        sent += 1;
        sleep(Duration::from_millis(100)).await;
    }
    assert!(sent < 20, "a byte now and then does not keep it open");
    assert!(begun.elapsed() < PATIENCE.idle);
    assert!(ask(&mut idle).await, "the idle one is still there");
    assert!(
        until_closed(&mut idle).await >= PATIENCE.idle.saturating_sub(Duration::from_millis(200))
    );
}

#[tokio::test]
async fn an_answer_nobody_reads_is_given_up() {
    let server = server(10).await;
    let mut deaf = server.connect().await;
    deaf.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    sleep(PATIENCE.answer * 3).await;
    let mut got = Vec::new();
    let _ = timeout(Duration::from_secs(5), deaf.read_to_end(&mut got))
        .await
        .expect("it has been closed");
    assert!(got.len() < 16 << 20, "what lay in the buffers, no more");
}

#[tokio::test]
async fn when_places_are_taken_the_idlest_gives_way_and_work_does_not() {
    let server = server(3).await;
    let mut slow = server.connect().await;
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut first = server.connect().await;
    assert!(ask(&mut first).await);
    for _ in 0..20 {
        let mut next = server.connect().await;
        assert!(ask(&mut next).await);
    }
    assert!(!ask(&mut first).await, "the idlest was closed");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("late"), "{answer}");
}

#[tokio::test]
async fn stopping_finishes_what_is_in_work_and_waits_for_nobody_else() {
    let server = server(10).await;
    let (mut slow, mut fresh) = (server.connect().await, server.connect().await);
    let mut half = server.connect().await;
    half.write_all(&REQUEST[..10]).await.unwrap();
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    sleep(Duration::from_millis(100)).await;
    server.stop.cancel();
    until_closed(&mut half).await;
    until_closed(&mut fresh).await;
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("late"), "{answer}");
    timeout(Duration::from_secs(5), server.task)
        .await
        .expect("it ends")
        .unwrap();
}

#[tokio::test]
async fn one_request_more_than_there_is_room_for_is_refused_and_says_for_how_long() {
    const SLOW: &[u8] = b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n";
    let server = server(10).await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut slow = server.connect().await;
        slow.write_all(SLOW).await.unwrap();
        streams.push(slow);
    }
    sleep(Duration::from_millis(200)).await;
    let mut third = server.connect().await;
    third.write_all(REQUEST).await.unwrap();
    let mut answer = [0; 4_096];
    let count = third.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..count]).to_lowercase();
    assert!(answer.starts_with("http/1.1 503"), "{answer}");
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    assert!(
        answer.contains("\r\ncache-control: no-store\r\n"),
        "{answer}"
    );
    until_answered(&mut streams).await;
    let mut later = server.connect().await;
    assert!(ask(&mut later).await, "there is room again");
}

async fn until_answered(streams: &mut [TcpStream]) {
    for stream in streams {
        let mut answer = [0; 4_096];
        assert!(stream.read(&mut answer).await.unwrap() > 0);
    }
}

/// Returns a request for `/echo` that announces `length` bytes and sends `sent`.
async fn begin_echo(server: &Server, length: usize, sent: usize) -> TcpStream {
    let mut stream = server.connect().await;
    let head = format!("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b'x'; sent]).await.unwrap();
    stream
}

#[tokio::test]
async fn a_body_that_does_not_come_takes_no_place_among_the_requests() {
    let server = server(10).await;
    let mut slow = Vec::new();
    for sent in [0, 1, 9, 0, 1] {
        slow.push(begin_echo(&server, 10, sent).await);
    }
    let mut chunked = server.connect().await;
    let head = b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n";
    chunked.write_all(head).await.unwrap();
    sleep(Duration::from_millis(200)).await;
    for _ in 0..5 {
        assert!(ask(&mut server.connect().await).await);
    }
    slow[2].write_all(b"y").await.unwrap();
    let mut answer = [0; 4_096];
    let count = slow[2].read(&mut answer).await.unwrap();
    assert!(answer[..count].ends_with(b"xxxxxxxxxy"));
    chunked.write_all(b"1\r\ny\r\n0\r\n\r\n").await.unwrap();
    let count = chunked.read(&mut answer).await.unwrap();
    assert!(answer[..count].ends_with(b"xy"));
}

#[tokio::test]
async fn when_places_are_taken_a_body_that_does_not_come_gives_way() {
    let server = server(3).await;
    let mut slow = Vec::new();
    for _ in 0..6 {
        slow.push(begin_echo(&server, 10, 5).await);
    }
    assert!(ask(&mut server.connect().await).await);
    let waited = until_closed(&mut slow[0]).await;
    assert!(waited < Duration::from_secs(1), "{waited:?}");
}

#[tokio::test]
async fn bodies_that_wait_for_their_end_have_bounded_memory() {
    const KEPT: usize = 60 * 1024;
    let server = server(1_000).await;
    let mut slow = Vec::new();
    // 300 × 60 KiB exceed the 16 MiB for arriving bodies.
    for _ in 0..300 {
        slow.push(begin_echo(&server, KEPT + 1, KEPT).await);
    }
    // Closed immediately, not at the body's deadline.
    let waited = until_closed(&mut slow[0]).await;
    assert!(waited < Duration::from_secs(2), "{waited:?}");
    // Other connections are not affected.
    let mut last = slow.pop().unwrap();
    last.write_all(b"x").await.unwrap();
    let mut answer = vec![0; KEPT];
    last.read_exact(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}
