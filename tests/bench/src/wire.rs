//! Minimal HTTP client and server for the load and the provider, with one persistent connection per
//! user. They must cost little, so that the measurement does not measure itself.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Maximum time for a response.
const PATIENCE: Duration = Duration::from_secs(20);

/// Persistent connection to one server.
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    authorization: String,
}

impl Client {
    /// Connects to `port` on this machine. Every request carries `key`.
    pub async fn connect(port: u16, key: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self {
            sender,
            authorization: format!("Bearer {key}"),
        })
    }

    /// Posts JSON and returns status and body.
    ///
    /// # Errors
    ///
    /// Fails if the response takes too long.
    pub async fn post(&mut self, path: &str, body: String) -> anyhow::Result<(StatusCode, Bytes)> {
        timeout(PATIENCE, self.exchange(path, body))
            .await
            .context("no response in time")?
    }

    async fn exchange(&mut self, path: &str, body: String) -> anyhow::Result<(StatusCode, Bytes)> {
        let request = Request::post(path)
            .header("host", "127.0.0.1")
            .header("content-type", "application/json")
            .header("authorization", &self.authorization)
            .body(Full::new(Bytes::from(body)))?;
        self.sender.ready().await.context("the connection")?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}

/// Serves `listener`: answers each request with the result of `answer` for its body.
pub async fn serve<A, F>(listener: TcpListener, answer: A)
where
    A: Fn(Bytes) -> F + Clone + Send + 'static,
    F: Future<Output = (StatusCode, &'static str)> + Send,
{
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let answer = answer.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = answer.clone();
            async move {
                let body = request.into_body().collect().await;
                let (status, text) = answer(
                    body.map(http_body_util::Collected::to_bytes)
                        .unwrap_or_default(),
                )
                .await;
                let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
                *response.status_mut() = status;
                Ok::<_, Infallible>(response)
            }
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service),
        );
    }
}
