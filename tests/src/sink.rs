//! An SMTP server that keeps what it gets and can be told how to answer: a reply, silence or a
//! cut at any verb.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What the sink does at a verb instead of its usual answer.
#[derive(Debug, Clone)]
pub enum Script {
    /// Sends this line.
    Reply(&'static str),
    /// Says nothing any more.
    Hang,
    /// Closes the connection.
    Cut,
}

/// One mail.
#[derive(Debug, Clone)]
pub struct Mail {
    /// From `RCPT`.
    pub to: String,
    /// The whole message.
    pub data: String,
}

#[derive(Default)]
struct State {
    scripts: HashMap<String, Vec<Script>>,
    mails: Vec<Mail>,
    connections: usize,
}

/// An SMTP server on loopback.
#[derive(Clone)]
pub struct Sink {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Sink {
    /// Starts it on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let sink = Self {
            port: listener.local_addr().expect("an address").port(),
            state: Arc::default(),
        };
        let server = sink.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                server.lock().connections += 1;
                tokio::spawn(server.clone().serve(stream));
            }
        });
        sink
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("the sink's state")
    }

    /// Its port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Does this once, at the next `verb` (`CONNECT`, `EHLO`, `MAIL`, `RCPT`, `DATA`, `.`).
    pub fn script(&self, verb: &str, script: Script) {
        self.lock()
            .scripts
            .entry(verb.to_owned())
            .or_default()
            .push(script);
    }

    /// The mails it took.
    pub fn mails(&self) -> Vec<Mail> {
        self.lock().mails.clone()
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.lock().connections
    }

    fn next(&self, verb: &str) -> Option<Script> {
        let mut state = self.lock();
        let scripts = state.scripts.get_mut(verb)?;
        (!scripts.is_empty()).then(|| scripts.remove(0))
    }

    async fn serve(self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let mut stream = BufReader::new(stream);
        if !self.answer(&mut stream, "CONNECT", "220 sink").await {
            return;
        }
        let mut to = String::new();
        let mut line = String::new();
        while let Ok(1..) = stream.read_line(&mut line).await {
            let verb = line
                .split([' ', '\r', ':'])
                .next()
                .unwrap_or_default()
                .to_ascii_uppercase();
            let usual = match verb.as_str() {
                "EHLO" => "250-sink\r\n250 8BITMIME",
                "DATA" => "354 go",
                "QUIT" => "221 bye",
                _ => "250 ok",
            };
            if verb == "RCPT" {
                to = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
            }
            let go_on = self.answer(&mut stream, &verb, usual).await;
            if !go_on || verb == "QUIT" {
                return;
            }
            if verb == "DATA" {
                let Some(data) = read_data(&mut stream).await else {
                    return;
                };
                if !self.answer_mail(&mut stream, &to, data).await {
                    return;
                }
            }
            line.clear();
        }
    }

    async fn answer_mail(&self, stream: &mut BufReader<TcpStream>, to: &str, data: String) -> bool {
        let script = self.next(".");
        if script.is_none() {
            self.lock().mails.push(Mail {
                to: to.to_owned(),
                data,
            });
        }
        act(stream, script, "250 kept").await
    }

    async fn answer(&self, stream: &mut BufReader<TcpStream>, verb: &str, usual: &str) -> bool {
        act(stream, self.next(verb), usual).await
    }
}

async fn act(stream: &mut BufReader<TcpStream>, script: Option<Script>, usual: &str) -> bool {
    let reply = match script {
        None => usual,
        Some(Script::Reply(reply)) => reply,
        Some(Script::Hang) => std::future::pending().await,
        Some(Script::Cut) => return false,
    };
    stream
        .get_mut()
        .write_all(format!("{reply}\r\n").as_bytes())
        .await
        .is_ok()
}

async fn read_data(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut data = String::new();
    loop {
        let start = data.len();
        if stream.read_line(&mut data).await.ok()? == 0 {
            return None;
        }
        if &data[start..] == ".\r\n" {
            data.truncate(start);
            return Some(data);
        }
    }
}
