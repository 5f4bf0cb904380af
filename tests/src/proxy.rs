//! A TCP proxy with faults: it delays, holds or swallows each direction, and cuts or refuses
//! connections. With a certificate it speaks TLS to its clients and clear text to its target.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// The most bytes that are read at once and held.
const CHUNK: usize = 256 * 1024;
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// How the proxy treats the bytes of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Flow {
    /// Passes them on.
    #[default]
    Free,
    /// Passes them on after so many milliseconds.
    Slow(u64),
    /// Holds them; none are lost.
    Held,
    /// Drops them.
    Swallowed,
}

/// The current state of a proxy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weather {
    /// From the client to the server.
    pub forth: Flow,
    /// From the server to the client.
    pub back: Flow,
    /// New connections are closed at once.
    pub refuses: bool,
    /// Increases with each cut of all connections.
    cuts: u64,
}

/// A proxy in front of one address.
pub struct TcpProxy {
    port: u16,
    weather: watch::Sender<Weather>,
    certificate: Option<watch::Sender<Arc<ServerConfig>>>,
    accepted: Arc<AtomicUsize>,
}

impl TcpProxy {
    /// Listens on a free port and passes everything on to `target` on loopback.
    pub async fn start(target: u16) -> Self {
        Self::listen(target, None).await
    }

    /// The same, with TLS towards the client.
    pub async fn start_tls(target: u16, certificate: Arc<ServerConfig>) -> Self {
        Self::listen(target, Some(watch::Sender::new(certificate))).await
    }

    async fn listen(target: u16, certificate: Option<watch::Sender<Arc<ServerConfig>>>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let weather = watch::Sender::new(Weather::default());
        let accepted = Arc::new(AtomicUsize::new(0));
        let shown = certificate.as_ref().map(watch::Sender::subscribe);
        tokio::spawn(accept(
            listener,
            target,
            weather.subscribe(),
            shown,
            accepted.clone(),
        ));
        Self {
            port,
            weather,
            certificate,
            accepted,
        }
    }

    /// Returns the port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Changes the state from now on.
    pub fn set(&self, change: impl FnOnce(&mut Weather)) {
        self.weather.send_modify(change);
    }

    /// Drops the bytes of the server.
    pub fn mute(&self, on: bool) {
        self.set(|weather| weather.back = if on { Flow::Swallowed } else { Flow::Free });
    }

    /// Holds both directions; no bytes are lost.
    pub fn hold(&self, on: bool) {
        let flow = if on { Flow::Held } else { Flow::Free };
        self.set(|weather| (weather.forth, weather.back) = (flow, flow));
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        self.set(|weather| weather.cuts += 1);
    }

    /// Presents this certificate to new connections.
    pub fn show(&self, certificate: Arc<ServerConfig>) {
        let shown = self.certificate.as_ref().expect("a proxy that speaks TLS");
        shown.send_replace(certificate);
    }

    /// Returns the number of connections so far whose handshake, if any, completed.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

async fn accept(
    listener: TcpListener,
    target: u16,
    weather: watch::Receiver<Weather>,
    certificate: Option<watch::Receiver<Arc<ServerConfig>>>,
    accepted: Arc<AtomicUsize>,
) {
    while let Ok((client, _)) = listener.accept().await {
        if weather.borrow().refuses {
            continue;
        }
        let _ = client.set_nodelay(true);
        let acceptor = certificate
            .as_ref()
            .map(|shown| TlsAcceptor::from(shown.borrow().clone()));
        let (weather, accepted) = (weather.clone(), accepted.clone());
        tokio::spawn(async move {
            match acceptor {
                None => {
                    accepted.fetch_add(1, Ordering::SeqCst);
                    join(client, target, weather).await;
                }
                Some(acceptor) => {
                    let handshake = timeout(HANDSHAKE_DEADLINE, acceptor.accept(client)).await;
                    if let Ok(Ok(client)) = handshake {
                        accepted.fetch_add(1, Ordering::SeqCst);
                        join(client, target, weather).await;
                    }
                }
            }
        });
    }
}

async fn join(
    client: impl AsyncRead + AsyncWrite,
    target: u16,
    mut weather: watch::Receiver<Weather>,
) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else {
        return;
    };
    let _ = server.set_nodelay(true);
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = server.into_split();
    let cuts = weather.borrow_and_update().cuts;
    let (forth, back) = (weather.clone(), weather.clone());
    tokio::select! {
        () = pass(from_client, to_server, forth, |weather| weather.forth) => {}
        () = pass(from_server, to_client, back, |weather| weather.back) => {}
        _ = weather.wait_for(|weather| weather.cuts != cuts) => {}
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut weather: watch::Receiver<Weather>,
    flow: impl Fn(&Weather) -> Flow,
) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(mut count @ 1..) = from.read(&mut buffer).await {
        // Keep reading while held: the bytes of a sender that has closed meanwhile must not be
        // delivered.
        let now = loop {
            tokio::select! {
                biased;
                changed = weather.wait_for(|weather| flow(weather) != Flow::Held) => match changed {
                    Ok(weather) => break flow(&weather),
                    Err(_) => return,
                },
                more = from.read(&mut buffer[count..]), if count < CHUNK => match more {
                    Ok(more @ 1..) => count += more,
                    _ => return,
                },
            }
        };
        match now {
            Flow::Swallowed => continue,
            Flow::Slow(delay_ms) => sleep(Duration::from_millis(delay_ms)).await,
            Flow::Free | Flow::Held => {}
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
