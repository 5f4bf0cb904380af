//! Certificates made for a test: a valid one, and three kinds that clients must refuse.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use data_encoding::BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

/// The defect of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// A valid certificate.
    None,
    /// Expired years ago.
    Expired,
    /// Issued for another host name.
    WrongName,
    /// Signed by an authority that clients do not trust.
    UnknownAuthority,
}

/// A certificate authority that clients are configured to trust.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Generates a new authority.
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "Watchword test authority");
        let certificate = params.self_signed(&key).expect("a certificate");
        Self {
            pem: pem(certificate.der()),
            issuer: Issuer::new(params, key),
        }
    }

    /// Returns the authority's certificate in PEM, for the clients' trust store.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Returns the TLS configuration of a server on loopback whose certificate has this flaw.
    pub fn server(&self, flaw: Flaw) -> Arc<ServerConfig> {
        crate::tls();
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.subject_alt_names = if flaw == Flaw::WrongName {
            vec![SanType::DnsName(
                "elsewhere.example".try_into().expect("a name"),
            )]
        } else {
            vec![
                SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                SanType::DnsName("localhost".try_into().expect("a name")),
            ]
        };
        if flaw == Flaw::Expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let stranger = Self::new_if(flaw == Flaw::UnknownAuthority);
        let issuer = stranger
            .as_ref()
            .map_or(&self.issuer, |other| &other.issuer);
        let certificate = params.signed_by(&key, issuer).expect("a certificate");
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(certificate.der().to_vec())],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .expect("a server's certificate");
        Arc::new(config)
    }

    fn new_if(wanted: bool) -> Option<Self> {
        wanted.then(Self::new)
    }
}

/// Encodes as PEM (RFC 7468): base64 in lines of 64 characters.
fn pem(der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(String::from_utf8_lossy)
        .collect();
    let body = lines.join("\n");
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
