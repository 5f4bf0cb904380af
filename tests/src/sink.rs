//! An SMTP server that records the mails it gets. A test scripts its answers: a reply, silence or a
//! cut at any verb, once or every time. With a certificate it offers STARTTLS.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::load::Mailbox;

/// The server's behavior at a verb instead of its usual answer.
#[derive(Debug, Clone)]
pub enum Script {
    /// Sends this reply.
    Reply(&'static str),
    /// Sends nothing more and leaves the connection open.
    Hang,
    /// Closes the connection.
    Cut,
    /// After the mail: accepts it and closes the connection without a reply.
    CutAfterAccept,
}

/// A received mail.
#[derive(Debug, Clone)]
pub struct Mail {
    /// The address in `RCPT`.
    pub to: String,
    /// The whole message.
    pub data: String,
}

#[derive(Default)]
struct State {
    scripts: HashMap<String, Vec<Script>>,
    habits: HashMap<String, Script>,
    certificate: Option<Arc<ServerConfig>>,
    hides_starttls: bool,
    mails: Vec<Mail>,
    mailbox: Option<Arc<Mailbox>>,
    refused: Option<(&'static str, &'static str)>,
    connections: usize,
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}
type Dialogue = BufReader<Box<dyn Stream>>;

/// An SMTP server on loopback.
#[derive(Clone)]
pub struct Sink {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Sink {
    /// Starts the server on a free port.
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

    /// Returns the port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Behaves this way once, at the next `verb` (`CONNECT`, `EHLO`, `MAIL`, `RCPT`, `DATA`, `.`).
    pub fn script(&self, verb: &str, script: Script) {
        self.lock()
            .scripts
            .entry(verb.to_owned())
            .or_default()
            .push(script);
    }

    /// Behaves this way at every `verb`; `None` restores the usual answer.
    pub fn habit(&self, verb: &str, script: Option<Script>) {
        let mut state = self.lock();
        match script {
            Some(script) => state.habits.insert(verb.to_owned(), script),
            None => state.habits.remove(verb),
        };
    }

    /// Sends this reply to recipients of this domain from now on; `None` ends that.
    pub fn refuse(&self, domain_and_reply: Option<(&'static str, &'static str)>) {
        self.lock().refused = domain_and_reply;
    }

    /// Delivers mails to `mailbox` from now on.
    pub fn deliver_to(&self, mailbox: Arc<Mailbox>) {
        self.lock().mailbox = Some(mailbox);
    }

    /// Offers STARTTLS with this certificate.
    pub fn offer_starttls(&self, certificate: Arc<ServerConfig>) {
        self.lock().certificate = Some(certificate);
    }

    /// Removes STARTTLS from the greeting, as a man in the middle would.
    pub fn hide_starttls(&self, hides: bool) {
        self.lock().hides_starttls = hides;
    }

    /// Returns the accepted mails.
    pub fn mails(&self) -> Vec<Mail> {
        self.lock().mails.clone()
    }

    /// Returns the number of connections so far.
    pub fn connections(&self) -> usize {
        self.lock().connections
    }

    fn next(&self, verb: &str) -> Option<Script> {
        let mut state = self.lock();
        let once = state.scripts.get_mut(verb);
        let once = once.filter(|scripts| !scripts.is_empty());
        once.map(|scripts| scripts.remove(0))
            .or_else(|| state.habits.get(verb).cloned())
    }

    /// Returns the certificate if STARTTLS is offered now.
    fn starttls(&self) -> Option<Arc<ServerConfig>> {
        let state = self.lock();
        let offered = state.certificate.clone();
        offered.filter(|_| !state.hides_starttls)
    }

    async fn serve(self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let mut stream: Dialogue = BufReader::new(Box::new(stream));
        let mut is_protected = false;
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
            let offered = self.starttls().filter(|_| !is_protected);
            let usual = match verb.as_str() {
                "EHLO" if offered.is_some() => "250-sink\r\n250-STARTTLS\r\n250 8BITMIME",
                "EHLO" => "250-sink\r\n250 8BITMIME",
                "STARTTLS" if offered.is_some() => "220 go",
                "STARTTLS" => "502 what?",
                "DATA" => "354 go",
                "QUIT" => "221 bye",
                _ => "250 ok",
            };
            if verb == "RCPT" {
                to = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
            }
            let refused = self.lock().refused;
            let usual = match refused {
                Some((domain, reply)) if verb == "RCPT" && to.ends_with(domain) => reply,
                _ => usual,
            };
            let go_on = self.answer(&mut stream, &verb, usual).await;
            if !go_on || verb == "QUIT" {
                return;
            }
            if let Some(certificate) = offered.filter(|_| verb == "STARTTLS") {
                let acceptor = TlsAcceptor::from(certificate);
                let Ok(protected) = acceptor.accept(stream.into_inner()).await else {
                    return;
                };
                stream = BufReader::new(Box::new(protected));
                is_protected = true;
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

    async fn answer_mail(&self, stream: &mut Dialogue, to: &str, data: String) -> bool {
        let script = self.next(".");
        // Record the mail even if the client never receives the reply.
        if matches!(script, None | Some(Script::CutAfterAccept)) {
            let mailbox = self.lock().mailbox.clone();
            match mailbox {
                Some(mailbox) => {
                    // Skip the headers, which contain digits too.
                    let (head, text) = data.split_once("text/plain").unwrap_or(("", &data));
                    let id = head.split_once("Message-ID: <");
                    let id = id.and_then(|(_, rest)| rest.split('@').next());
                    mailbox.put(to, id.unwrap_or_default(), text);
                }
                None => self.lock().mails.push(Mail {
                    to: to.to_owned(),
                    data,
                }),
            }
        }
        act(stream, script, "250 kept").await
    }

    async fn answer(&self, stream: &mut Dialogue, verb: &str, usual: &str) -> bool {
        act(stream, self.next(verb), usual).await
    }
}

async fn act(stream: &mut Dialogue, script: Option<Script>, usual: &str) -> bool {
    let reply = match script {
        None => usual,
        Some(Script::Reply(reply)) => reply,
        Some(Script::Hang) => {
            // Wait until the client gives up.
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            return false;
        }
        Some(Script::Cut | Script::CutAfterAccept) => return false,
    };
    stream
        .get_mut()
        .write_all(format!("{reply}\r\n").as_bytes())
        .await
        .is_ok()
}

async fn read_data(stream: &mut Dialogue) -> Option<String> {
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
