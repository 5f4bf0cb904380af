//! TLS client for relays: trusts the system's certificate authorities and those of `ca_file`. The
//! server name is always verified.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use watchword_chassis::config::ConfigError;

use super::wire::Stream;

/// TLS settings for one relay.
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    pub(super) fn new(host: &str, ca_file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = ca_file {
            add(path, &mut roots).ok_or_else(|| {
                ConfigError::new("ca_file", "must be a readable PEM file with a certificate")
            })?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| ConfigError::new("tls", "cannot be set up"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            name: ServerName::try_from(host.to_owned())
                .map_err(|_| ConfigError::new("host", "must be a host name or an address"))?,
        })
    }

    /// Performs the handshake over `stream`.
    pub(super) async fn wrap<S: Stream>(&self, stream: S) -> std::io::Result<TlsStream<S>> {
        self.connector.connect(self.name.clone(), stream).await
    }
}

/// Adds the certificates of a PEM file; `None` if it cannot be read or has none.
fn add(path: &Path, roots: &mut RootCertStore) -> Option<()> {
    let pem = std::fs::read(path).ok()?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.ok().filter(|found| !found.is_empty())?;
    for certificate in certificates {
        roots.add(certificate).ok()?;
    }
    Some(())
}
