//! A simulated SMS gateway that records every message with its time and answers as configured, for
//! example by breaking off in the middle of a response.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

use super::Mailbox;

/// How the gateway answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Temper {
    /// Accepts the message.
    Sound,
    /// Reads the request and sends nothing.
    Hangs,
    /// 429 with `Retry-After` of so many seconds.
    Throttles(u64),
    /// Answers with this 5xx status.
    Fails(u16),
    /// Redirects to another path of the same gateway.
    Redirects,
    /// Accepts the message and closes the connection.
    CutsAfterAccept,
    /// Accepts the message and answers with a body that is not JSON.
    Mumbles,
    /// Answers 200 with an error in the body, and does not accept the message.
    LiesInTheStatus,
    /// Accepts the message and sends its answer at one byte per second.
    Drips,
}

/// A running gateway.
pub struct SmsGateway {
    port: u16,
    temper: watch::Sender<Temper>,
    refused: Arc<Mutex<Option<&'static str>>>,
}

impl SmsGateway {
    /// Starts the gateway on a free port. Accepted messages go to `mailbox`.
    pub async fn start(mailbox: Arc<Mailbox>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let temper = watch::Sender::new(Temper::Sound);
        let tempers = temper.subscribe();
        let refused = Arc::<Mutex<Option<&'static str>>>::default();
        let refuses = refused.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (mailbox, tempers, refuses) =
                    (mailbox.clone(), tempers.clone(), refuses.clone());
                tokio::spawn(async move {
                    // A caller that disconnects ends its own connection only.
                    let _ = serve(stream, &mailbox, &tempers, &refuses).await;
                });
            }
        });
        Self {
            port,
            temper,
            refused,
        }
    }

    /// Returns the configuration of a provider `gateway` that is reached at `port`.
    pub fn config(port: u16) -> String {
        format!(
            r#"[sms.providers.gateway]
kind = "http"
sender = "Test"
timeout_seconds = 3
[sms.providers.gateway.request]
method = "POST"
url = "http://127.0.0.1:{port}/messages"
json = {{ to = "{{to}}", text = "{{text}}", reference = "{{message_id}}" }}
[sms.providers.gateway.response]
rules = [{{ status = ["202"], class = "accepted" }}]
"#
        )
    }

    /// Returns the port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Answers requests to numbers with this prefix with 403 from now on; `None` ends that.
    pub fn refuse(&self, prefix: Option<&'static str>) {
        *self.refused.lock().expect("the prefix") = prefix;
    }

    /// Changes how the gateway answers.
    pub fn set(&self, temper: Temper) {
        self.temper.send_replace(temper);
    }
}

async fn serve(
    mut stream: TcpStream,
    mailbox: &Mailbox,
    tempers: &watch::Receiver<Temper>,
    refused: &Mutex<Option<&'static str>>,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut read = Vec::new();
    while let Some(body) = request(&mut stream, &mut read).await? {
        let message: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let field = |name: &str| message[name].as_str().unwrap_or_default();
        let keep = || mailbox.put(field("to"), field("reference"), field("text"));
        let temper = *tempers.borrow();
        let refused = *refused.lock().expect("the prefix");
        let (status, header, body) = match temper {
            _ if refused.is_some_and(|prefix| field("to").starts_with(prefix)) => {
                ("403 Forbidden", String::new(), "{}")
            }
            Temper::Sound => {
                keep();
                ("202 Accepted", String::new(), "{\"id\":\"m-1\"}")
            }
            Temper::Hangs => {
                // Wait until the caller gives up.
                let _ = stream.read(&mut [0; 1]).await;
                return Ok(());
            }
            Temper::Throttles(seconds) => (
                "429 Too Many Requests",
                format!("retry-after: {seconds}\r\n"),
                "{}",
            ),
            Temper::Fails(500) => ("500 Internal Server Error", String::new(), "{}"),
            Temper::Fails(_) => ("503 Service Unavailable", String::new(), "{}"),
            Temper::Redirects => (
                "307 Temporary Redirect",
                "location: /elsewhere\r\n".to_owned(),
                "",
            ),
            Temper::CutsAfterAccept => {
                keep();
                return Ok(());
            }
            Temper::Mumbles => {
                keep();
                ("202 Accepted", String::new(), "<html>{")
            }
            Temper::LiesInTheStatus => ("200 OK", String::new(), "{\"error\":\"busy\"}"),
            Temper::Drips => {
                keep();
                for byte in b"HTTP/1.1 202 Accepted\r\n" {
                    stream.write_all(&[*byte]).await?;
                    sleep(Duration::from_secs(1)).await;
                }
                return Ok(());
            }
        };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{header}content-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

/// Reads the body of the next request; `None` at the end of the connection.
async fn request(stream: &mut TcpStream, read: &mut Vec<u8>) -> std::io::Result<Option<Vec<u8>>> {
    loop {
        if let Some(head) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&read[..head]).to_ascii_lowercase();
            let length = text
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"))
                .and_then(|length| length.trim().parse::<usize>().ok())
                .unwrap_or(0);
            let end = head + 4 + length;
            if read.len() >= end {
                let body = read[head + 4..end].to_vec();
                read.drain(..end);
                return Ok(Some(body));
            }
        }
        if stream.read_buf(read).await? == 0 {
            return Ok(None);
        }
    }
}
