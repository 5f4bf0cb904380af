//! A TCP proxy that records every byte of both directions.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// A recorder in front of one address.
pub struct Recorder {
    port: u16,
    bytes: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Recorder {
    /// Listens on a free port and passes everything on to `target` on loopback.
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let bytes = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let kept = bytes.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else {
                    continue;
                };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let ((up, back), (down, forth)) = (client.into_split(), server.into_split());
                tokio::spawn(pass(up, forth, kept.clone()));
                tokio::spawn(pass(down, back, kept.clone()));
            }
        });
        Self { port, bytes }
    }

    /// Returns the port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns one byte stream for each direction of each connection so far.
    pub fn recorded(&self) -> Vec<Vec<u8>> {
        self.bytes.lock().expect("the record").clone()
    }
}

/// Passes one direction on. Each direction is recorded as its own stream, so that a search finds
/// text that crosses a packet boundary.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, kept: Arc<Mutex<Vec<Vec<u8>>>>) {
    let stream = {
        let mut kept = kept.lock().expect("the record");
        kept.push(Vec::new());
        kept.len() - 1
    };
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        kept.lock().expect("the record")[stream].extend_from_slice(&buffer[..count]);
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
}
