//! Reasons why a call to a Watchword process failed, with advice: nothing listens, the scheme is
//! wrong, the certificate is not trusted, or another program answers.

use watchword_dial::TlsFault;

/// The reason why no Watchword process answered at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreached {
    /// The connection failed.
    Nobody,
    /// The connection was made, but no answer came in time.
    Silent,
    /// The TLS handshake failed.
    Tls(TlsFault),
    /// The answer is not HTTP.
    NotHttp,
}

impl Unreached {
    /// Derives the reason from the error of a request.
    pub fn of(error: &reqwest::Error) -> Self {
        if let Some(fault) = TlsFault::of(error) {
            return Self::Tls(fault);
        }
        match error {
            error if error.is_connect() => Self::Nobody,
            error if error.is_timeout() => Self::Silent,
            _ => Self::NotHttp,
        }
    }

    /// Returns a sentence on the problem at `address` and the change to `option`, which named it.
    pub fn advice(self, address: &str, option: &str) -> String {
        let secure = address.replacen("http://", "https://", 1);
        let clear = address.replacen("https://", "http://", 1);
        match self {
            Self::Nobody => format!("nothing answers at {address}; start it, or correct {option}"),
            Self::Silent => {
                format!("{address} does not answer in time; look at its log, or correct {option}")
            }
            Self::NotHttp => format!(
                "{address} does not answer in HTTP: if it speaks TLS, set {option} to {secure}; otherwise \
                 another program listens there"
            ),
            Self::Tls(TlsFault::NotTls) => {
                format!("{address} does not speak TLS: set {option} to {clear}")
            }
            Self::Tls(TlsFault::UnknownIssuer) => format!(
                "no authority that is trusted here signed the certificate of {address}: set SSL_CERT_FILE to a \
                 PEM file with the authority's certificate, or add it to the system's"
            ),
            Self::Tls(fault) => format!("no TLS connection to {address}: {}", fault.advice()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Starts a server that answers the first bytes with `answer`, and returns its port.
    async fn server(answer: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer).await;
                if answer.is_empty() {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
            }
        });
        port
    }

    #[tokio::test]
    async fn the_scheme_and_the_address_are_named() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(2))
            .build()
            .unwrap();
        // The alert that a TLS server sends for a plain request.
        let tls = server(b"\x15\x03\x03\x00\x02\x02\x0a").await;
        let plain = server(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let silent = server(b"").await;
        for (url, expected, hint) in [
            (
                format!("http://127.0.0.1:{tls}"),
                Unreached::NotHttp,
                "set --url to https://127",
            ),
            (
                format!("https://127.0.0.1:{plain}"),
                Unreached::Tls(TlsFault::NotTls),
                "set --url to http://127",
            ),
            (
                "http://127.0.0.1:1".to_owned(),
                Unreached::Nobody,
                "nothing answers at http://127.0.0.1:1",
            ),
            (
                format!("http://127.0.0.1:{silent}"),
                Unreached::Silent,
                "in time",
            ),
        ] {
            let error = client.get(&url).send().await.unwrap_err();
            let reason = Unreached::of(&error);
            assert_eq!(reason, expected, "{url}");
            let advice = reason.advice(&url, "--url");
            assert!(
                advice.contains(hint) && advice.contains("127.0.0.1:"),
                "{advice}"
            );
        }
    }
}
