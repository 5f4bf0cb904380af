//! SMTP relays with arbitrary replies. A mail counts as accepted only after a positive reply to its
//! final dot, a recipient as invalid only after a permanent reply to RCPT or later, the
//! configuration as faulty never after the sender was accepted, and no reply is quoted.
//!
//! An input is the output of the relay, one reply line per line; a line with `-` as its fourth
//! character is sent together with the next. A line that ends in CR is sent as it is, others get
//! one. At the end of the input the relay closes.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use watchword_chassis::SystemClock;
use watchword_core::{AttemptClass, Channel, Clock, Recipient, Variables};
use watchword_delivery::{Dispatch, Inbox, Provider, Sender};
use watchword_email_worker::EmailConfig;

/// How long the relay leaves a client waiting that expects more replies.
const PATIENCE: Duration = Duration::from_millis(20);

static WORLD: LazyLock<World> = LazyLock::new(World::start);

struct World {
    runtime: Runtime,
    listener: TcpListener,
    provider: Arc<dyn Provider>,
    dispatch: Dispatch,
}

/// The relay's record of the dialogue.
#[derive(Debug, Default)]
struct Said {
    rcpt: Vec<String>,
    data: Vec<String>,
    dot: Vec<String>,
}

/// Sends one mail to a relay that replies as the input says.
pub fn run(input: &[u8]) {
    let replies = replies(input);
    let said = Arc::new(Mutex::new(Said::default()));
    let relay = async {
        // The connection of the previous input is found closed, and another one is opened.
        while let Ok((stream, _)) = WORLD.listener.accept().await {
            let _ = serve(stream, &replies, &said).await;
        }
    };
    let attempted = WORLD.runtime.block_on(async {
        tokio::select! {
            attempted = WORLD.provider.attempt(&WORLD.dispatch) => attempted,
            () = relay => unreachable!("the relay listens for ever"),
        }
    });
    let said = said.lock().unwrap_or_else(PoisonError::into_inner);
    let says =
        |replies: &[String], digit: char| replies.iter().any(|reply| reply.starts_with(digit));
    match attempted.class {
        AttemptClass::Accepted => assert!(says(&said.dot, '2'), "taken? {said:?}"),
        AttemptClass::RecipientInvalid | AttemptClass::DestinationRefused => {
            let later = [&said.rcpt, &said.data, &said.dot];
            assert!(later.iter().any(|replies| says(replies, '5')), "{said:?}");
        }
        AttemptClass::ConfigFault => assert!(said.rcpt.is_empty(), "fault? {said:?}"),
        _ => {}
    }
    let is_word = attempted.reason.bytes().all(|byte| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'.')
    });
    assert!(
        is_word && attempted.reason.len() <= 24,
        "{}",
        attempted.reason
    );
}

fn replies(input: &[u8]) -> Vec<Vec<u8>> {
    let mut replies = Vec::new();
    let mut reply = Vec::new();
    for line in input.split(|byte| *byte == b'\n').take(64) {
        reply.extend_from_slice(line);
        // Send bare line feeds, too.
        reply.extend_from_slice(if line.ends_with(b"\r") {
            b"\n"
        } else {
            b"\r\n"
        });
        if line.get(3) != Some(&b'-') {
            replies.push(std::mem::take(&mut reply));
        }
    }
    replies
}

async fn serve(stream: TcpStream, replies: &[Vec<u8>], said: &Mutex<Said>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut line, mut in_body) = (Vec::new(), false);
    for reply in replies {
        let text = String::from_utf8_lossy(reply).into_owned();
        {
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            if in_body {
                said.dot.push(text);
            } else if line.starts_with(b"RCPT") {
                said.rcpt.push(text);
            } else if line.starts_with(b"DATA") {
                said.data.push(text);
            }
        }
        in_body = line.starts_with(b"DATA") && reply.starts_with(b"3");
        stream.write_all(reply).await?;
        loop {
            line.clear();
            let read = timeout(PATIENCE, stream.read_until(b'\n', &mut line)).await;
            if !matches!(read, Ok(Ok(1..))) {
                return Ok(());
            }
            if !in_body || line == b".\r\n" {
                break;
            }
        }
    }
    Ok(())
}

impl World {
    fn start() -> Self {
        // libFuzzer's panic hook aborts at any panic. A panic that the product catches is not a
        // finding; one that reaches the fuzzer still ends the process.
        drop(std::panic::take_hook());
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let section = format!(
            "[providers.relay]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\nfrom = \"no-reply@example.org\"\n"
        );
        let config: EmailConfig = toml::from_str(&section).expect("a section");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let built = watchword_email_worker::build(&config, None, &Inbox::default(), &clock);
        let built = built.unwrap_or_else(|error| panic!("{error}"));
        let dispatch = Dispatch {
            delivery_id: format!("{}-1", "a".repeat(32)).parse().expect("an id"),
            recipient: Recipient::parse(Channel::Email, "jane@example.org").expect("an address"),
            code: "012345".parse().expect("a code"),
            sender: Sender {
                app: "Fuzz".to_owned(),
                host: None,
            },
            locale: None,
            variables: Variables::default(),
            remaining: Duration::from_secs(300),
        };
        Self {
            runtime,
            listener,
            provider: built.providers[0].clone(),
            dispatch,
        }
    }
}
