//! Reasons of failed TLS handshakes, found in the errors of any client that uses `rustls`.

use std::error::Error;
use std::io;
use std::sync::Arc;

use rustls::CertificateError as Certificate;

/// The reason of a failed TLS handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsFault {
    /// No trusted authority signed the peer's certificate.
    UnknownIssuer,
    /// The peer's certificate has expired.
    Expired,
    /// The peer's certificate is not valid yet.
    NotYetValid,
    /// The peer's certificate is for another name.
    WrongName,
    /// The peer's certificate is not acceptable for another reason.
    BadCertificate,
    /// The peer ended the handshake with an alert.
    Alert,
    /// The peer does not speak TLS on this port.
    NotTls,
    /// The handshake failed for another reason.
    Handshake,
}

impl TlsFault {
    const ALL: [Self; 8] = [
        Self::UnknownIssuer,
        Self::Expired,
        Self::NotYetValid,
        Self::WrongName,
        Self::BadCertificate,
        Self::Alert,
        Self::NotTls,
        Self::Handshake,
    ];

    /// Finds the fault in `error` or in the errors that it wraps.
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref() {
                return Some(Self::of_handshake(error));
            }
            // `source` of an I/O error, or of an `Arc`, skips the wrapped error and returns that
            // error's source.
            let shared: Option<&Arc<dyn Error + Send + Sync>> = error.downcast_ref();
            next = match (error.downcast_ref().and_then(io::Error::get_ref), shared) {
                (Some(inner), _) => Some(inner),
                (None, Some(inner)) => Some(inner.as_ref()),
                (None, None) => error.source(),
            };
        }
        None
    }

    const fn of_handshake(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(certificate) => match certificate {
                // The signature does not match if another authority has the name of a trusted one.
                Certificate::UnknownIssuer | Certificate::BadSignature => Self::UnknownIssuer,
                Certificate::Expired | Certificate::ExpiredContext { .. } => Self::Expired,
                Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
                    Self::NotYetValid
                }
                Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                    Self::WrongName
                }
                _ => Self::BadCertificate,
            },
            rustls::Error::AlertReceived(_) => Self::Alert,
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            _ => Self::Handshake,
        }
    }

    /// Finds the fault at the end of a reason such as `connect_tls_expired`.
    pub fn in_reason(reason: &str) -> Option<Self> {
        let (_, word) = reason.rsplit_once("tls_")?;
        Self::ALL.into_iter().find(|fault| fault.as_str() == word)
    }

    /// Returns the fault as a word for reasons in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownIssuer => "unknown_issuer",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongName => "wrong_name",
            Self::BadCertificate => "bad_certificate",
            Self::Alert => "alert",
            Self::NotTls => "not_tls",
            Self::Handshake => "handshake",
        }
    }

    /// Returns a clause that ends a sentence about the peer: the fault, and the next step for the
    /// operator.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::UnknownIssuer => {
                "no authority that is trusted here signed its certificate; add the authority to the system's, or to `ca_file` of a relay"
            }
            Self::Expired => "its certificate has expired; renew it there",
            Self::NotYetValid => "its certificate is not valid yet; compare the clocks",
            Self::WrongName => {
                "its certificate is for another name; use a name that the certificate contains"
            }
            Self::BadCertificate => {
                "its certificate is not acceptable; look at it with `openssl s_client`"
            }
            Self::Alert => {
                "it ended the TLS handshake; it may require a client certificate or another TLS version"
            }
            Self::NotTls => "it does not speak TLS on this port; compare port and TLS mode",
            Self::Handshake => "the TLS handshake failed; look at it with `openssl s_client`",
        }
    }
}

impl std::fmt::Display for TlsFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_found_however_deep_it_lies() {
        let tls = || rustls::Error::InvalidCertificate(Certificate::UnknownIssuer);
        let wrapped = || io::Error::new(io::ErrorKind::InvalidData, tls());
        let twice = io::Error::other(wrapped());
        for error in [wrapped(), twice] {
            assert_eq!(TlsFault::of(&error), Some(TlsFault::UnknownIssuer));
        }
        let shared: Arc<dyn Error + Send + Sync> = Arc::new(wrapped());
        assert_eq!(TlsFault::of(&shared), Some(TlsFault::UnknownIssuer));
        assert_eq!(TlsFault::of(&tls()), Some(TlsFault::UnknownIssuer));
        for error in [
            io::Error::from(io::ErrorKind::UnexpectedEof),
            io::Error::other("unknown_issuer"),
        ] {
            assert_eq!(TlsFault::of(&error), None);
        }
    }

    #[test]
    fn a_reason_ends_with_its_fault() {
        for fault in TlsFault::ALL {
            for before in ["tls_", "starttls_tls_", "connect_tls_"] {
                let reason = format!("{before}{fault}");
                assert_eq!(TlsFault::in_reason(&reason), Some(fault), "{reason}");
            }
        }
        for reason in ["connect", "tls_", "starttls_broken", "expired"] {
            assert_eq!(TlsFault::in_reason(reason), None, "{reason}");
        }
    }
}
