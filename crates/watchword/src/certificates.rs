//! Watches when the certificates of TLS peers expire. Once an hour it makes a handshake that sends
//! no data and accepts every certificate; the connections of the pipeline verify certificates
//! themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use watchword_core::Live;
use watchword_delivery::{Router, TlsPeer};
use watchword_metrics::prometheus::{IntGaugeVec, Registry};
use watchword_metrics::{Kind, Maker, Series};
use x509_parser::parse_x509_certificate;

use crate::config::{Config, EngineKind};

const EXPIRY: Series = Series {
    name: "watchword_certificate_expiry_timestamp_seconds",
    kind: Kind::Gauge,
    labels: &["peer"],
    help: "Expiry time of the certificate that a peer presents, in seconds since 1970, checked every hour. The peer is `rabbitmq`, `redis`, a relay, or an HTTP gateway (the earlier of the gateway and its token endpoint). Only peers over TLS, in the roles that use them.",
    action: "Near: renew the certificate of the peer, or ask its operator to. Once it has expired, nothing is sent there.",
};

/// The series of this module.
pub const SERIES: &[Series] = &[EXPIRY];

const LOOK_EVERY: Duration = Duration::from_secs(3_600);
/// Some relays greet only after several seconds, to detect spammers that do not wait.
const DEADLINE: Duration = Duration::from_secs(20);

/// Exports the expiry times of the peers' certificates. While a peer cannot be reached its series
/// keeps the last value.
pub struct Watch {
    engine: Vec<(String, TlsPeer)>,
    routers: Vec<Live<Router>>,
    expiry: IntGaugeVec,
}

impl Watch {
    /// Creates a watch of the store of `config`, of its broker if the process uses `queues`, and of
    /// the providers of `routers`.
    pub fn new(
        registry: &Registry,
        config: &Config,
        queues: bool,
        routers: Vec<Live<Router>>,
    ) -> anyhow::Result<Self> {
        let engine = [
            ("rabbitmq", &config.rabbitmq, queues),
            ("redis", &config.redis, true),
        ];
        let is_distributed = config.engine == EngineKind::Distributed;
        let engine = engine.into_iter().filter(|of| is_distributed && of.2);
        let peers = engine.flat_map(|(name, section, _)| {
            let peers = section.iter().flat_map(|section| peers_of(&section.url));
            peers.map(move |peer| (name.to_owned(), peer))
        });
        Ok(Self {
            engine: peers.collect(),
            routers,
            expiry: Maker::new(registry).gauges(&EXPIRY)?,
        })
    }

    /// Returns the current peers. A reload adds and removes providers.
    fn peers(&self) -> Vec<(String, TlsPeer)> {
        let mut peers = self.engine.clone();
        for router in &self.routers {
            for provider in router.get().providers() {
                let name = provider.name().to_string();
                let shown = provider.tls_peers().into_iter();
                peers.extend(shown.map(|peer| (name.clone(), peer)));
            }
        }
        peers
    }

    /// Checks the certificates every hour; never returns.
    pub async fn run(self) {
        let mut known = BTreeSet::new();
        loop {
            let peers = self.peers();
            let names: BTreeSet<_> = peers.iter().map(|(name, _)| name.clone()).collect();
            for gone in known.difference(&names) {
                // An error means that the series is absent already.
                let _ = self.expiry.remove_label_values(&[gone]);
            }
            known = names;
            let mut soonest = BTreeMap::<&str, i64>::new();
            for (name, peer) in &peers {
                match expiry(peer).await {
                    // A peer with several hosts shows the earliest expiry.
                    Ok(at) => {
                        let soonest = soonest.entry(name).or_insert(at);
                        *soonest = at.min(*soonest);
                    }
                    Err(error) => {
                        tracing::debug!(peer = name, %error, "cannot read the certificate of a peer");
                    }
                }
            }
            for (name, at) in soonest {
                self.expiry.with_label_values(&[name]).set(at);
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// Returns the hosts of an `amqps://…` or `rediss…://…` URL; the latter may name several. Returns
/// none for a URL without TLS.
fn peers_of(url: &str) -> Vec<TlsPeer> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Vec::new();
    };
    let port = match scheme {
        "amqps" => 5671,
        _ if scheme.starts_with("rediss") => 6379,
        _ => return Vec::new(),
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let hosts = authority.rsplit('@').next().unwrap_or_default();
    let peer = |host: &str| {
        let (host, port) = host
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse().ok()?)))
            .unwrap_or((host, port));
        TlsPeer {
            host: host.to_owned(),
            port,
            starttls: false,
        }
    };
    hosts.split(',').map(peer).collect()
}

/// Returns the expiry time of the certificate that `peer` presents, in seconds since 1970.
async fn expiry(peer: &TlsPeer) -> anyhow::Result<i64> {
    timeout(DEADLINE, handshake(peer))
        .await
        .context("no answer in time")?
}

async fn handshake(peer: &TlsPeer) -> anyhow::Result<i64> {
    let host = peer.host.trim_matches(['[', ']']);
    let mut stream = watchword_dial::connect(host, peer.port).await?;
    if peer.starttls {
        stream = watchword_email_worker::starttls(stream, Instant::now() + DEADLINE).await?;
    }
    let provider = ring::default_provider().signature_verification_algorithms;
    let config = ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned())?;
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await?;
    let certificates = stream.get_ref().1.peer_certificates();
    let shown = certificates.and_then(|shown| shown.first());
    let (_, certificate) = parse_x509_certificate(shown.context("none was shown")?)?;
    Ok(certificate.validity().not_after.timestamp())
}

/// A verifier that accepts every certificate, so that the expiry of an expired or untrusted one is
/// exported too. This is safe because no data is sent over the connection.
#[derive(Debug)]
struct Anyone(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_read_from_urls_with_tls_only() {
        let told = |url: &str| -> Vec<String> {
            let peers = peers_of(url).into_iter();
            peers
                .map(|peer| format!("{} {}", peer.host, peer.port))
                .collect()
        };
        assert_eq!(
            told("amqps://user:p%40@mq.example/vhost"),
            ["mq.example 5671"]
        );
        assert_eq!(told("amqps://mq.example:5670?x=1"), ["mq.example 5670"]);
        assert_eq!(told("rediss://:secret@[::1]:7000/0"), ["[::1] 7000"]);
        let several = told("rediss+sentinel://a:1,b/main/0");
        assert_eq!(several, ["a 1", "b 6379"]);
        for clear in ["amqp://h", "redis://h", "redis+cluster://a,b", "", "h"] {
            assert!(told(clear).is_empty(), "{clear}");
        }
    }
}
