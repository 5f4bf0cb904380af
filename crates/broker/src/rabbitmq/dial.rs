//! Parsing the URL and opening connections. The deadline also covers a peer that accepts the
//! connection and then sends nothing: the client library reads the URL's `connection_timeout` only
//! in its blocking connector. No error shows the URL, which may hold a password.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use lapin::runtime::default_runtime;
use lapin::tcp::TLSConfig;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties};
use tokio::time::timeout;
use url::Url;
use watchword_dial::TlsFault;

use super::{RabbitMqSettings, UrlError};

/// Two missed heartbeats close a connection, so a dead peer is noticed within 20 s. `RabbitMQ`
/// recommends 5 to 20 s; its default is 60 s.
const HEARTBEAT_SECONDS: u64 = 10;
/// The largest frame in bytes on the publishing connection. The client keeps room for 32 frames in
/// each direction, which is 8 MiB at the broker's default of 128 KiB. Published headers are short,
/// and a body may span several frames. The consuming connection keeps the broker's default: foreign
/// headers arrive as one frame of any length, and a frame longer than negotiated would end the
/// connection at each redelivery.
const PUBLISHED_FRAME_MAX: u32 = 16_384;

/// A validated URL with heartbeat and password, one for each node of a cluster.
#[derive(Clone)]
pub(super) struct Address {
    uris: Vec<String>,
    connect_deadline: Duration,
}

/// An error of connecting. It never quotes the client library, whose messages can contain the URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The broker refused the connection or the handshake failed, for example because of a wrong
    /// user, virtual host or certificate.
    #[error("the broker refused the connection: {0}")]
    Refused(&'static str),
    /// No answer before the deadline.
    #[error("the broker did not answer in time")]
    Timeout,
    /// A queue or exchange exists with other arguments.
    #[error("{0} exists with other arguments; delete or rename it, and it is declared again")]
    Mismatch(String),
    /// A declaration failed for another reason.
    #[error("{0} could not be declared")]
    Undeclared(String),
}

impl Address {
    pub(super) fn parse(settings: &RabbitMqSettings) -> Result<Self, UrlError> {
        let nodes = each_node(settings.url.expose());
        let uris = nodes.iter().map(|url| uri(url, settings));
        Ok(Self {
            uris: uris.collect::<Result<_, _>>()?,
            connect_deadline: Duration::from_millis(settings.connect_timeout_ms),
        })
    }

    /// Opens a connection, shown as `name` in the broker's management page.
    pub(super) async fn connect(&self, name: &str) -> Result<Connection, LinkError> {
        self.dial("", name).await
    }

    /// Opens a connection for publishing, with a smaller frame size: it receives only returned
    /// messages.
    pub(super) async fn connect_to_publish(&self, name: &str) -> Result<Connection, LinkError> {
        self.dial(&format!("&frame_max={PUBLISHED_FRAME_MAX}"), name)
            .await
    }

    /// Tries the nodes in turn. The first node depends on the process id, to spread processes over
    /// the cluster.
    async fn dial(&self, more: &str, name: &str) -> Result<Connection, LinkError> {
        let first = usize::try_from(std::process::id()).unwrap_or(0) % self.uris.len();
        let mut last = LinkError::Timeout;
        for uri in self.uris[first..].iter().chain(&self.uris[..first]) {
            let properties = ConnectionProperties::default()
                .with_connection_name(format!("watchword {name}").into());
            let uri = format!("{uri}{more}");
            match timeout(self.connect_deadline, self.open(&uri, properties)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => last = LinkError::Refused(kind(&error)),
                Err(_) => last = LinkError::Timeout,
            }
        }
        Err(last)
    }

    /// Opens one connection. The client library's own dialing tries the addresses of a host in
    /// turn, and continues in its thread after the caller has given up.
    async fn open(&self, uri: &str, properties: ConnectionProperties) -> lapin::Result<Connection> {
        let uri: AMQPUri = uri.parse().map_err(io::Error::other)?;
        let deadline = self.connect_deadline;
        let connect = async move |uri: AMQPUri, runtime| {
            let dialed = timeout(deadline, async {
                let AMQPUri { authority, .. } = &uri;
                let addresses = watchword_dial::resolve(&authority.host, authority.port).await?;
                let dial = |address| AsyncTcpStream::connect(&runtime, address);
                let stream = watchword_dial::race(addresses, dial).await?;
                match uri.scheme {
                    AMQPScheme::AMQP => Ok(stream),
                    AMQPScheme::AMQPS => {
                        stream.into_tls(&authority.host, TLSConfig::default()).await
                    }
                }
            });
            let dialed: io::Result<_> = dialed.await.map_err(io::Error::from).flatten();
            Ok(dialed?)
        };
        Connection::connector(uri, default_runtime()?, connect, properties).await
    }

    /// Returns the longest time that dialing all nodes can take.
    pub(super) fn connect_deadline(&self) -> Duration {
        self.connect_deadline * u32::try_from(self.uris.len()).unwrap_or(u32::MAX)
    }
}

/// Splits a URL with several hosts (`amqp://user@a:5672,b:5672/vhost`) into one URL for each host.
fn each_node(url: &str) -> Vec<String> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return vec![url.to_owned()];
    };
    let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    hosts
        .split(',')
        .map(|host| format!("{scheme}://{user}{host}{tail}"))
        .collect()
}

/// Validates one URL and returns it in the form that the client library takes.
fn uri(url: &str, settings: &RabbitMqSettings) -> Result<String, UrlError> {
    let mut url = Url::parse(url).map_err(|_| UrlError("is no URL"))?;
    if !matches!(url.scheme(), "amqp" | "amqps") {
        return Err(UrlError("must be amqp:// or amqps://"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(UrlError("names no host"));
    }
    if url.scheme() == "amqp" && !settings.allow_cleartext && !is_loopback(&url) {
        return Err(UrlError(
            "must be amqps:// beyond loopback: requests by event carry recipients in clear; \
             rabbitmq.allow_cleartext allows it in a network you trust",
        ));
    }
    if url.username().is_empty() {
        url.set_username("guest")
            .map_err(|()| UrlError("cannot hold a user"))?;
    }
    if let Some(password) = &settings.password {
        url.set_password(Some(password.expose()))
            .map_err(|()| UrlError("cannot hold a password"))?;
    }
    if url.path().is_empty() || url.path() == "/" {
        url.set_path("/%2f");
    }
    let kept: Vec<_> = url
        .query_pairs()
        .filter(|(name, _)| name != "heartbeat" && name != "frame_max")
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    url.query_pairs_mut()
        .clear()
        .extend_pairs(kept)
        .append_pair("heartbeat", &HEARTBEAT_SECONDS.to_string());
    Ok(url.into())
}

/// Returns the virtual host of the settings' URL.
pub(super) fn virtual_host(settings: &RabbitMqSettings) -> Result<String, UrlError> {
    Ok(parts(settings)?.vhost)
}

/// Returns the user of the settings' URL.
pub(super) fn user(settings: &RabbitMqSettings) -> Result<String, UrlError> {
    Ok(parts(settings)?.authority.userinfo.username)
}

fn parts(settings: &RabbitMqSettings) -> Result<AMQPUri, UrlError> {
    let address = Address::parse(settings)?;
    let uri = address.uris.first().ok_or(UrlError("names no host"))?;
    uri.parse().map_err(|_| UrlError("is no URL"))
}

/// Returns whether the URL's host is this machine. For schemes other than `http`, the URL parser
/// returns IP addresses as names.
fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

fn kind(error: &lapin::Error) -> &'static str {
    match error.kind() {
        lapin::ErrorKind::IOError(error) => {
            TlsFault::of(error.as_ref()).map_or("network", TlsFault::advice)
        }
        lapin::ErrorKind::AuthProviderError(_) => "credentials",
        lapin::ErrorKind::ProtocolError(_) => "user, vhost or protocol",
        _ => "handshake",
    }
}

#[cfg(test)]
mod tests {
    use watchword_core::SecretString;

    use super::*;

    fn parse(url: &str, password: Option<&str>) -> Result<String, UrlError> {
        let password = password.map(|password| SecretString::new(password.to_owned()));
        let settings = RabbitMqSettings {
            password,
            allow_cleartext: true,
            ..RabbitMqSettings::new(SecretString::new(url.to_owned()))
        };
        Address::parse(&settings).map(|address| address.uris.join(" "))
    }

    #[test]
    fn the_heartbeat_is_ours_and_the_password_is_put_in() {
        assert_eq!(
            parse("amqp://bob@h:1/v?heartbeat=99&frame_max=4096", Some("a/b")).unwrap(),
            "amqp://bob:a%2Fb@h:1/v?heartbeat=10"
        );
        assert_eq!(
            parse("amqps://h", None).unwrap(),
            "amqps://guest@h/%2f?heartbeat=10"
        );
        assert_eq!(
            parse("amqp://bob@a:1,b:2/v", Some("p")).unwrap(),
            "amqp://bob:p@a:1/v?heartbeat=10 amqp://bob:p@b:2/v?heartbeat=10"
        );
        for wrong in [
            "",
            "amqp://a,",
            "amqp://a,b:x",
            "http://h",
            "amqp://",
            "redis://h",
        ] {
            assert!(parse(wrong, None).is_err(), "{wrong}");
        }
    }

    #[test]
    fn cleartext_stays_on_this_machine_unless_it_is_allowed() {
        for (url, is_private) in [
            ("amqp://127.0.0.1", true),
            ("amqp://bob@127.8.0.1:5672/v", true),
            ("amqp://[::1]:5672", true),
            ("amqp://localhost", true),
            ("amqps://mq.example", true),
            ("amqp://mq.example", false),
            ("amqp://rabbitmq:5672/%2f", false),
            ("amqp://localhost.example", false),
            ("amqp://127.0.0.1.example", false),
            ("amqp://10.0.0.1", false),
            ("amqp://[fe80::1]", false),
            ("amqp://127.0.0.1,mq.example", false),
        ] {
            let mut settings = RabbitMqSettings::new(SecretString::new(url.to_owned()));
            assert_eq!(Address::parse(&settings).is_ok(), is_private, "{url}");
            settings.allow_cleartext = true;
            assert!(Address::parse(&settings).is_ok(), "{url}");
        }
    }

    #[test]
    fn user_and_virtual_host_are_decoded() {
        for (url, user, host) in [
            ("amqps://bob@h", "bob", "/"),
            ("amqps://bob%2Bx@h:1,i/%2f", "bob+x", "/"),
            ("amqps://h/otp%2Dlive", "guest", "otp-live"),
        ] {
            let settings = RabbitMqSettings::new(SecretString::new(url.to_owned()));
            assert_eq!(settings.user().unwrap(), user, "{url}");
            assert_eq!(settings.virtual_host().unwrap(), host, "{url}");
        }
    }
}
