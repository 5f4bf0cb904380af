//! One connection to the relay, each step of its dialogue with a deadline that holds (the
//! client's own covers connecting only, facts M1). Refuses any end of a mail but 250.

use std::fmt;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use lettre::address::Envelope;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Response;
use lettre::transport::smtp::{Error, extension};
use tokio::net::TcpStream;
use tokio::time::timeout;
use watchword_chassis::config::ConfigError;

use super::failure::{Cause, Failure, Step};
use super::tls::Tls;
use crate::config::{SmtpConfig, TlsMode};

/// For each step but the last.
const STEP_DEADLINE: Duration = Duration::from_secs(5);
/// For the reply to the final dot: relays scan here.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// Makes connections.
pub(super) struct Dialler {
    host: String,
    port: u16,
    mode: TlsMode,
    tls: Tls,
    credentials: Option<Credentials>,
    hello: ClientId,
}

/// A connection that is ready for a mail.
pub(super) struct Link(AsyncSmtpConnection);

impl Dialler {
    pub(super) fn new(config: &SmtpConfig) -> Result<Self, ConfigError> {
        if config.tls == TlsMode::None && !is_loopback(&config.host) {
            return Err(ConfigError::new(
                "tls",
                "must be implicit or starttls beyond loopback",
            ));
        }
        let credentials = match (&config.username, &config.password) {
            (Some(username), Some(password)) => {
                let password = password
                    .resolve()
                    .map_err(|error| error.within("password"))?;
                Some(Credentials::new(
                    username.clone(),
                    password.expose().to_owned(),
                ))
            }
            (None, None) => None,
            _ => return Err(ConfigError::new("username", "and password belong together")),
        };
        Ok(Self {
            host: config.host.clone(),
            port: config.port,
            mode: config.tls,
            tls: Tls::new(&config.host, config.ca_file.as_deref())?,
            credentials,
            hello: ClientId::default(),
        })
    }

    /// Whether it has something to log in with.
    pub(super) const fn logs_in(&self) -> bool {
        self.credentials.is_some()
    }

    /// Connects, protects the connection and logs in.
    pub(super) async fn dial(&self) -> Result<Link, Failure> {
        // lettre panics at a reply to EHLO with a line of nothing but space; that is no reply.
        let dialled = AssertUnwindSafe(self.connect()).catch_unwind().await;
        dialled.unwrap_or_else(|_| Err(Failure::connection()))
    }

    async fn connect(&self) -> Result<Link, Failure> {
        let connecting = TcpStream::connect((self.host.as_str(), self.port));
        let stream = within(STEP_DEADLINE, Step::Connect, connecting)
            .await?
            .map_err(|_| Failure::connection())?;
        // Without this whatever takes two packets waits 40 ms.
        stream
            .set_nodelay(true)
            .map_err(|_| Failure::connection())?;
        let mut connection = match self.mode {
            TlsMode::Implicit => {
                let tls = within(STEP_DEADLINE, Step::StartTls, self.tls.wrap(stream)).await?;
                let tls = tls.map_err(|error| Failure {
                    step: Step::StartTls,
                    // Only what was said in TLS is a matter of certificates or versions.
                    cause: match error.kind() {
                        ErrorKind::InvalidData => Cause::Tls,
                        _ => Cause::Broken,
                    },
                })?;
                step(
                    Step::Connect,
                    AsyncSmtpConnection::connect_with_transport(Box::new(tls), &self.hello),
                )
                .await?
            }
            TlsMode::Starttls | TlsMode::None => {
                step(
                    Step::Connect,
                    AsyncSmtpConnection::connect_with_transport(Box::new(stream), &self.hello),
                )
                .await?
            }
        };
        if self.mode == TlsMode::Starttls {
            if !connection.can_starttls() {
                return Err(Failure {
                    step: Step::StartTls,
                    cause: Cause::NotOffered,
                });
            }
            step(
                Step::StartTls,
                connection.starttls(self.tls.starttls.clone(), &self.hello),
            )
            .await?;
        }
        if let Some(credentials) = &self.credentials {
            let mechanisms = [Mechanism::Plain, Mechanism::Login];
            step(Step::Auth, connection.auth(&mechanisms, credentials)).await?;
        }
        Ok(Link(connection))
    }
}

impl Link {
    /// Sends one mail to its one recipient; `is_out` from its first byte on. After an error the
    /// connection must not be used again.
    pub(super) async fn send(
        &mut self,
        envelope: &Envelope,
        body: &[u8],
        is_out: &AtomicBool,
    ) -> Result<(), Failure> {
        let mut parameters = Vec::new();
        if !body.is_ascii() {
            parameters.push(extension::MailParameter::Body(
                extension::MailBodyParameter::EightBitMime,
            ));
        }
        step(
            Step::Mail,
            self.0
                .command(Mail::new(envelope.from().cloned(), parameters)),
        )
        .await?;
        for to in envelope.to() {
            step(
                Step::Rcpt,
                self.0.command(Rcpt::new(to.clone(), Vec::new())),
            )
            .await?;
        }
        let go_ahead = step(Step::Data, self.0.command(Data)).await?;
        expect(Step::Data, &go_ahead, 354)?;
        is_out.store(true, Ordering::Relaxed);
        let end = within(BODY_DEADLINE, Step::Body, self.end(body)).await?;
        let end = end.map_err(|error| Failure::of(Step::Body, &error))?;
        expect(Step::Body, &end, 250)
    }

    /// Sends the mail with its final dot, in one write where the client would make two.
    async fn end(&mut self, body: &[u8]) -> Result<Response, Error> {
        match std::str::from_utf8(body) {
            Ok(text) => self.0.command(Body(text)).await,
            Err(_) => self.0.message(body).await,
        }
    }
}

/// A mail as it goes over the wire: lines that begin with a dot get another, and one alone ends it.
struct Body<'a>(&'a str);

impl fmt::Display for Body<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.starts_with('.') {
            f.write_str(".")?;
        }
        for (index, part) in self.0.split("\n.").enumerate() {
            f.write_str(if index == 0 { "" } else { "\n.." })?;
            f.write_str(part)?;
        }
        f.write_str("\r\n.\r\n")
    }
}

fn expect(step: Step, response: &Response, code: u16) -> Result<(), Failure> {
    if response.has_code(code) {
        return Ok(());
    }
    Err(Failure {
        step,
        cause: Cause::Reply {
            code: u16::from(response.code()),
            policy: false,
        },
    })
}

async fn step<T>(step: Step, call: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
    within(STEP_DEADLINE, step, call)
        .await?
        .map_err(|error| Failure::of(step, &error))
}

async fn within<T>(
    deadline: Duration,
    step: Step,
    call: impl Future<Output = T>,
) -> Result<T, Failure> {
    timeout(deadline, call).await.map_err(|_| Failure {
        step,
        cause: Cause::Timeout,
    })
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
    fn a_line_with_a_dot_in_front_gets_another_and_only_the_end_is_one_alone() {
        let wire = |text| Body(text).to_string();
        assert_eq!(wire("a\r\nb.c"), "a\r\nb.c\r\n.\r\n");
        assert_eq!(wire(".\r\n.\r\n..a"), "..\r\n..\r\n...a\r\n.\r\n");
        assert_eq!(wire("a\r\n.\r\n"), "a\r\n..\r\n\r\n.\r\n");
        assert_eq!(wire("a\n.\nb"), "a\n..\nb\r\n.\r\n");
        assert_eq!(wire(""), "\r\n.\r\n");
    }
}
