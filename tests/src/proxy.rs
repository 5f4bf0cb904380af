//! A TCP proxy with faults: replies swallowed, everything held, connections cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Default)]
struct Faults {
    mute: AtomicBool,
    hold: AtomicBool,
    accepted: AtomicUsize,
}

/// A proxy in front of one address.
pub struct TcpProxy {
    port: u16,
    faults: Arc<Faults>,
    cut: watch::Sender<u64>,
}

impl TcpProxy {
    /// Listens on a free port and passes everything on to `target` on loopback.
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let faults = Arc::new(Faults::default());
        let cut = watch::Sender::new(0);
        let (shared, cuts) = (faults.clone(), cut.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                shared.accepted.fetch_add(1, Ordering::SeqCst);
                if let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await {
                    tokio::spawn(join(client, server, shared.clone(), cuts.subscribe()));
                }
            }
        });
        Self { port, faults, cut }
    }

    /// Its port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Swallows what the server says.
    pub fn mute(&self, on: bool) {
        self.faults.mute.store(on, Ordering::SeqCst);
    }

    /// Passes nothing on in either direction, and loses nothing.
    pub fn hold(&self, on: bool) {
        self.faults.hold.store(on, Ordering::SeqCst);
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        self.cut.send_modify(|count| *count += 1);
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.faults.accepted.load(Ordering::SeqCst)
    }
}

async fn join(
    client: TcpStream,
    server: TcpStream,
    faults: Arc<Faults>,
    mut cut: watch::Receiver<u64>,
) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let forth = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            wait_while(&faults.hold).await;
            if to_server.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
    };
    let back = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            wait_while(&faults.hold).await;
            if !faults.mute.load(Ordering::SeqCst)
                && to_client.write_all(&buffer[..count]).await.is_err()
            {
                break;
            }
        }
    };
    tokio::select! {
        () = forth => {}
        () = back => {}
        _ = cut.changed() => {}
    }
}

async fn wait_while(flag: &AtomicBool) {
    while flag.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
