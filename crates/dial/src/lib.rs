#![doc = include_str!("../README.md")]

mod tls;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::sleep;

pub use tls::TlsFault;

/// How long one attempt runs alone (RFC 8305 §5, "Connection Attempt Delay").
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// The most addresses that a call tries, which bounds the sockets that it opens. If a host has more,
/// some of the first 16 are assumed to be alive.
const MAX_ADDRESSES: usize = 16;

/// Connects to `host`, a name or an address, and disables Nagle's algorithm: a command in two
/// packets would otherwise wait 40 ms for a delayed acknowledgement.
///
/// Runs until a connection is established or every address has failed. The caller sets the
/// deadline.
pub async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = race(resolve(host, port).await?, TcpStream::connect).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Returns the addresses of `host` in the order in which [`race`] tries them. Takes an IPv6 address
/// with or without brackets.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let host = host.trim_matches(['[', ']']);
    let addresses = tokio::net::lookup_host((host, port)).await?;
    Ok(alternating(addresses.take(MAX_ADDRESSES).collect()))
}

/// Runs `attempt` for each of `addresses`, staggered, and returns the first success, or the first
/// failure once all have failed. Dropping the future ends every attempt.
pub async fn race<T, F>(
    addresses: Vec<SocketAddr>,
    attempt: impl Fn(SocketAddr) -> F,
) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut waiting = addresses.into_iter();
    let mut running = FuturesUnordered::new();
    let mut failure = None;
    loop {
        running.extend(waiting.next().map(&attempt));
        tokio::select! {
            ended = running.next() => match ended {
                Some(Ok(connected)) => return Ok(connected),
                Some(Err(error)) => _ = failure.get_or_insert(error),
                None => return Err(failure.unwrap_or_else(|| {
                    io::Error::new(io::ErrorKind::NotFound, "the host has no address")
                })),
            },
            () = sleep(ATTEMPT_DELAY), if !waiting.as_slice().is_empty() => {}
        }
    }
}

/// Interleaves the address families, starting with that of the first address (RFC 8305 §4).
fn alternating(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let starts_with_ipv6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == starts_with_ipv6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut ordered = Vec::new();
    loop {
        match (first.next(), second.next()) {
            (None, None) => return ordered,
            (one, other) => ordered.extend(one.into_iter().chain(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::net::{TcpListener, TcpSocket};
    use tokio::time::timeout;

    use super::*;

    /// Returns a listener with a full queue: the kernel drops further connection requests, so a
    /// connection is neither established nor refused.
    async fn deaf(ip: &str) -> (SocketAddr, Vec<TcpStream>, TcpListener) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{ip}:0").parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) =
            timeout(Duration::from_millis(300), TcpStream::connect(address)).await
        {
            queued.push(stream.unwrap());
            assert!(queued.len() < 16, "the queue does not fill");
        }
        (address, queued, listener)
    }

    async fn live(ip: &str) -> (SocketAddr, TcpListener) {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        (listener.local_addr().unwrap(), listener)
    }

    async fn refusing() -> SocketAddr {
        live("127.0.0.1").await.0
    }

    #[tokio::test]
    async fn deaf_addresses_cost_their_head_start_only() {
        let (first, second) = (deaf("127.0.0.2").await, deaf("127.0.0.3").await);
        let (address, _listener) = live("127.0.0.1").await;
        let begun = Instant::now();
        let addresses = vec![first.0, second.0, address];
        let stream = timeout(Duration::from_secs(5), race(addresses, TcpStream::connect));
        let stream = stream.await.unwrap().unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        let took = begun.elapsed();
        assert!(took >= 2 * ATTEMPT_DELAY, "{took:?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }

    #[tokio::test]
    async fn a_refusal_starts_the_next_attempt_at_once() {
        let (address, _listener) = live("127.0.0.1").await;
        let begun = Instant::now();
        let mut addresses = Vec::new();
        for _ in 0..8 {
            addresses.push(refusing().await);
        }
        addresses.push(address);
        race(addresses, TcpStream::connect).await.unwrap();
        assert!(begun.elapsed() < 4 * ATTEMPT_DELAY, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn the_first_failure_is_returned_once_all_have_failed() {
        let fails = async |address: SocketAddr| {
            let kind = match address.port() {
                1 => io::ErrorKind::ConnectionRefused,
                _ => io::ErrorKind::NetworkUnreachable,
            };
            Err::<(), _>(io::Error::from(kind))
        };
        let addresses = (1..4).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let error = race(addresses.collect(), fails).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let error = race(Vec::new(), fails).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn hosts_are_names_and_addresses() {
        let (address, _listener) = live("127.0.0.1").await;
        for host in ["localhost", "127.0.0.1"] {
            let stream = connect(host, address.port()).await.unwrap();
            assert!(stream.nodelay().unwrap(), "{host}");
        }
        let resolved = resolve("[::1]", 25).await.unwrap();
        assert_eq!(resolved, [SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 25))]);
        assert!(resolve("", 25).await.is_err() || connect("", 1).await.is_err());
    }

    #[test]
    fn families_take_turns() {
        let parse = |text: &str| -> Vec<SocketAddr> {
            text.split(' ')
                .map(|address| address.parse().unwrap())
                .collect()
        };
        let resolved = parse("[::1]:1 [::2]:1 [::3]:1 1.1.1.1:1 2.2.2.2:1");
        let tried = parse("[::1]:1 1.1.1.1:1 [::2]:1 2.2.2.2:1 [::3]:1");
        assert_eq!(alternating(resolved), tried);
        let single = parse("1.1.1.1:1 2.2.2.2:1");
        assert_eq!(alternating(single.clone()), single);
    }
}
