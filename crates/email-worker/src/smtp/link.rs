//! SMTP connection: connecting, TLS, login, and the conversation that sends a mail. Each step ends
//! at the attempt's deadline. Extensions that the relay offers before TLS are discarded (RFC 3207
//! section 4.2).

use std::io;
use std::net::IpAddr;

use data_encoding::BASE64;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;
use watchword_chassis::config::ConfigError;
use watchword_core::SecretString;

use super::failure::{Cause, Failure, Step};
use super::features::Features;
use super::hello::{default_hello, hello};
use super::reply::Reply;
use super::tls::Tls;
use super::wire::{Stream, Wire};
use crate::config::{SmtpConfig, TlsMode};

/// Factory of connections to one relay.
pub(super) struct Dialler {
    host: String,
    port: u16,
    mode: TlsMode,
    tls: Tls,
    login: Option<Login>,
    hello: String,
}

struct Login {
    username: String,
    password: SecretString,
}

/// Envelope and content of a mail.
#[derive(Clone, Copy)]
pub(super) struct Letter<'a> {
    pub(super) from: &'a str,
    pub(super) to: &'a str,
    pub(super) mail: &'a [u8],
}

/// Connection that is ready for a mail.
pub(super) struct Link {
    wire: Wire<Box<dyn Stream>>,
    features: Features,
}

impl Dialler {
    pub(super) fn new(config: &SmtpConfig) -> Result<Self, ConfigError> {
        if config.tls == TlsMode::None && !is_loopback(&config.host) {
            return Err(ConfigError::new(
                "tls",
                "must be implicit or starttls beyond loopback",
            ));
        }
        let login = match (&config.username, &config.password) {
            (Some(username), Some(password)) => Some(Login {
                username: username.clone(),
                password: password
                    .resolve()
                    .map_err(|error| error.within("password"))?,
            }),
            (None, None) => None,
            _ => return Err(ConfigError::new("username", "and password belong together")),
        };
        Ok(Self {
            host: config.host.clone(),
            port: config.port,
            mode: config.tls,
            tls: Tls::new(&config.host, config.ca_file.as_deref())?,
            login,
            hello: hello(config.hello.as_deref())?,
        })
    }

    /// Whether a login is configured.
    pub(super) const fn logs_in(&self) -> bool {
        self.login.is_some()
    }

    /// Connects, performs the TLS handshake and logs in.
    pub(super) async fn dial(&self, deadline: Instant) -> Result<Link, Failure> {
        let stream = self.connect(deadline).await?;
        let stream: Box<dyn Stream> = match self.mode {
            TlsMode::None => Box::new(stream),
            TlsMode::Implicit => Box::new(self.protect(stream, deadline).await?),
            TlsMode::Starttls => {
                let mut clear = Wire::new(stream);
                greeting(&mut clear, deadline).await?;
                let features = introduce(&mut clear, &self.hello, deadline).await?;
                let stream = ask_for_tls(clear, features, deadline).await?;
                Box::new(self.protect(stream, deadline).await?)
            }
        };
        let mut wire = Wire::new(stream);
        if self.mode != TlsMode::Starttls {
            greeting(&mut wire, deadline).await?;
        }
        let features = introduce(&mut wire, &self.hello, deadline).await?;
        let mut link = Link { wire, features };
        if let Some(login) = &self.login {
            link.log_in(login, deadline).await?;
        }
        Ok(link)
    }

    /// Connects within half of the remaining time: if TCP takes longer, too little is left for the
    /// mail, and another relay may be available.
    async fn connect(&self, deadline: Instant) -> Result<TcpStream, Failure> {
        let now = Instant::now();
        let half = now + deadline.saturating_duration_since(now) / 2;
        let connecting = watchword_dial::connect(&self.host, self.port);
        within(half, Step::Connect, connecting).await
    }

    async fn protect<S: Stream>(
        &self,
        stream: S,
        deadline: Instant,
    ) -> Result<TlsStream<S>, Failure> {
        match timeout_at(deadline, self.tls.wrap(stream)).await {
            Ok(Ok(protected)) => Ok(protected),
            Ok(Err(error)) => Err(Failure::handshake(&error)),
            Err(_) => Err(Failure::new(Step::StartTls, Cause::Timeout)),
        }
    }
}

impl Link {
    /// Sends one mail to one recipient. Waits for the reply to MAIL until `mail_deadline`. After an
    /// error the connection must be dropped.
    pub(super) async fn send(
        &mut self,
        letter: Letter<'_>,
        mail_deadline: Instant,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let body = if self.features.eight_bit_mime && !letter.mail.is_ascii() {
            " BODY=8BITMIME"
        } else {
            ""
        };
        let mail = format!("MAIL FROM:<{}>{body}\r\n", letter.from);
        self.step(Step::Mail, mail.as_bytes(), 2, mail_deadline)
            .await?;
        let rcpt = format!("RCPT TO:<{}>\r\n", letter.to);
        self.step(Step::Rcpt, rcpt.as_bytes(), 2, deadline).await?;
        self.step(Step::Data, b"DATA\r\n", 3, deadline).await?;
        let body = stuffed(letter.mail);
        self.step(Step::Body, &body, 2, deadline).await?;
        Ok(())
    }

    /// Logs in with PLAIN, or with LOGIN, whose prompts are ignored.
    async fn log_in(&mut self, login: &Login, deadline: Instant) -> Result<(), Failure> {
        let Login { username, password } = login;
        let password = password.expose();
        if self.features.plain {
            let secret = BASE64.encode(format!("\0{username}\0{password}").as_bytes());
            let plain = format!("AUTH PLAIN {secret}\r\n");
            let mut reply = self.ask(Step::Auth, plain.as_bytes(), deadline).await?;
            if reply.digit() == 3 {
                // A relay without support for the initial response asks for it.
                let line = format!("{secret}\r\n");
                reply = self.ask(Step::Auth, line.as_bytes(), deadline).await?;
            }
            // 504: the relay offers PLAIN but does not implement it.
            if reply.code() != 504 || !self.features.login {
                return expect(Step::Auth, &reply, 2);
            }
        }
        if !self.features.login {
            return Err(Failure::new(Step::Auth, Cause::NotOffered));
        }
        self.step(Step::Auth, b"AUTH LOGIN\r\n", 3, deadline)
            .await?;
        let line = format!("{}\r\n", BASE64.encode(username.as_bytes()));
        self.step(Step::Auth, line.as_bytes(), 3, deadline).await?;
        let line = format!("{}\r\n", BASE64.encode(password.as_bytes()));
        self.step(Step::Auth, line.as_bytes(), 2, deadline).await
    }

    async fn ask(&mut self, step: Step, bytes: &[u8], deadline: Instant) -> Result<Reply, Failure> {
        within(deadline, step, self.wire.ask(bytes)).await
    }

    async fn step(
        &mut self,
        step: Step,
        bytes: &[u8],
        digit: u16,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let reply = self.ask(step, bytes, deadline).await?;
        expect(step, &reply, digit)
    }
}

async fn greeting<S: Stream>(wire: &mut Wire<S>, deadline: Instant) -> Result<(), Failure> {
    let greeting = within(deadline, Step::Connect, wire.reply()).await?;
    expect(Step::Connect, &greeting, 2)
}

/// Sends EHLO, or HELO to a relay that does not know EHLO (RFC 5321 section 3.2).
async fn introduce<S: Stream>(
    wire: &mut Wire<S>,
    hello: &str,
    deadline: Instant,
) -> Result<Features, Failure> {
    let ehlo = format!("EHLO {hello}\r\n");
    let reply = within(deadline, Step::Connect, wire.ask(ehlo.as_bytes())).await?;
    if !matches!(reply.code(), 500 | 502) {
        expect(Step::Connect, &reply, 2)?;
        return Ok(Features::of(&reply));
    }
    let helo = format!("HELO {hello}\r\n");
    let reply = within(deadline, Step::Connect, wire.ask(helo.as_bytes())).await?;
    expect(Step::Connect, &reply, 2)?;
    Ok(Features::default())
}

/// Sends STARTTLS and returns the stream for the handshake. Any byte after the reply comes from an
/// attacker, because a relay waits for the handshake.
async fn ask_for_tls<S: Stream>(
    mut wire: Wire<S>,
    features: Features,
    deadline: Instant,
) -> Result<S, Failure> {
    if !features.starttls {
        return Err(Failure::new(Step::StartTls, Cause::NotOffered));
    }
    let reply = within(deadline, Step::StartTls, wire.ask(b"STARTTLS\r\n")).await?;
    expect(Step::StartTls, &reply, 2)?;
    wire.into_stream()
        .ok_or(Failure::new(Step::StartTls, Cause::Injected))
}

/// Runs the clear-text part of SMTP on `stream`, up to the TLS handshake, until `deadline`. For
/// callers that inspect the relay's certificate and send no mail.
///
/// # Errors
///
/// Fails if the relay does not reply as expected or offers no STARTTLS.
pub async fn starttls<S>(stream: S, deadline: Instant) -> io::Result<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut wire = Wire::new(stream);
    let clear = async {
        greeting(&mut wire, deadline).await?;
        let features = introduce(&mut wire, &default_hello(), deadline).await?;
        ask_for_tls(wire, features, deadline).await
    };
    let stream = clear.await;
    stream.map_err(|failure: Failure| io::Error::other(failure.reason()))
}

fn expect(step: Step, reply: &Reply, digit: u16) -> Result<(), Failure> {
    if reply.digit() == digit {
        return Ok(());
    }
    Err(Failure::refused(step, reply))
}

async fn within<T>(
    deadline: Instant,
    step: Step,
    call: impl Future<Output = io::Result<T>>,
) -> Result<T, Failure> {
    match timeout_at(deadline, call).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(_)) => Err(Failure::new(step, Cause::Broken)),
        Err(_) => Err(Failure::new(step, Cause::Timeout)),
    }
}

/// Encodes the mail for DATA: doubles a dot at the start of a line and ends with a single dot (RFC
/// 5321 section 4.5.2).
fn stuffed(mail: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(mail.len() + mail.len() / 64 + 8);
    for line in mail.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
    }
    if !wire.ends_with(b"\r\n") {
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

/// See [`SmtpConfig::has_full_hello`].
pub(crate) fn has_full_hello(config: &SmtpConfig) -> bool {
    is_loopback(&config.host)
        || hello(config.hello.as_deref())
            .is_ok_and(|name| name.contains('.') && !name.starts_with('['))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_a_dot_are_told_from_full_ones() {
        let is_full = |host: &str, hello: &str| {
            let text = format!(
                "host = \"{host}\"\nport = 25\ntls = \"starttls\"\nfrom = \"a@example.org\"\nhello = \"{hello}\""
            );
            has_full_hello(&toml::from_str(&text).unwrap())
        };
        assert!(is_full("relay.example.org", "otp.example.org"));
        assert!(!is_full("relay.example.org", "otp"));
        assert!(!is_full("relay.example.org", "[192.0.2.1]"));
        assert!(is_full("localhost", "otp") && is_full("::1", "otp"));
    }

    #[test]
    fn a_line_with_a_dot_in_front_gets_another_and_only_the_end_is_one_alone() {
        let wire = |text: &str| String::from_utf8(stuffed(text.as_bytes())).unwrap();
        assert_eq!(wire("a\r\nb.c"), "a\r\nb.c\r\n.\r\n");
        assert_eq!(wire("a\r\nb.c\r\n"), "a\r\nb.c\r\n.\r\n");
        assert_eq!(wire(".\r\n.\r\n..a"), "..\r\n..\r\n...a\r\n.\r\n");
        assert_eq!(wire("a\r\n.\r\n"), "a\r\n..\r\n.\r\n");
        assert_eq!(wire("a\n.\nb"), "a\n..\nb\r\n.\r\n");
        assert_eq!(wire("a\n.\r\nb"), "a\n..\r\nb\r\n.\r\n");
        assert_eq!(wire(""), "\r\n.\r\n");
    }
}
