//! TLS towards a relay: the system's authorities and, if configured, one more. Names are always
//! checked.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use lettre::transport::smtp::client::{AsyncTokioStream, Certificate, TlsParameters};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use watchword_chassis::config::ConfigError;

/// What TLS to the relay needs, for either mode.
pub(super) struct Tls {
    pub(super) starttls: TlsParameters,
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    pub(super) fn new(host: &str, ca_file: Option<&Path>) -> Result<Self, ConfigError> {
        let wrong_ca =
            || ConfigError::new("ca_file", "must be a readable PEM file with a certificate");
        let pem = ca_file
            .map(std::fs::read)
            .transpose()
            .map_err(|_| wrong_ca())?;
        let mut parameters = TlsParameters::builder(host.to_owned());
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(pem) = &pem {
            let certificate = CertificateDer::from_pem_slice(pem).map_err(|_| wrong_ca())?;
            roots.add(certificate).map_err(|_| wrong_ca())?;
            parameters = parameters
                .add_root_certificate(Certificate::from_pem(pem).map_err(|_| wrong_ca())?);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| ConfigError::new("tls", "cannot be set up"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            starttls: parameters
                .build_rustls()
                .map_err(|_| ConfigError::new("tls", "cannot be set up"))?,
            connector: TlsConnector::from(Arc::new(config)),
            name: ServerName::try_from(host.to_owned())
                .map_err(|_| ConfigError::new("host", "must be a host name or an address"))?,
        })
    }

    /// TLS from the first byte.
    pub(super) async fn wrap(&self, stream: TcpStream) -> std::io::Result<TlsStream> {
        self.connector
            .connect(self.name.clone(), stream)
            .await
            .map(TlsStream)
    }
}

/// A TLS stream in the form the SMTP client takes.
#[derive(Debug)]
pub(super) struct TlsStream(tokio_rustls::client::TlsStream<TcpStream>);

impl AsyncTokioStream for TlsStream {
    fn peer_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.get_ref().0.peer_addr()
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
