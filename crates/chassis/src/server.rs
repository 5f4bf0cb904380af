//! HTTP listeners: connection limits, deadlines for each step of a connection, and graceful
//! shutdown. A handler receives a request only after its body has arrived. When connections or the
//! memory for bodies run out, the listener closes the connection that has waited longest for its
//! client.

mod connection;
mod places;

use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http::receive;
use connection::{Order, Step, Watched};
use places::{Place, Places};

/// Connection limit of the public listener: eight times the default limit of concurrent requests,
/// because clients keep connections open between requests. An idle connection takes about 10 KiB.
pub const PUBLIC_CONNECTIONS: usize = 4_096;
/// Connection limit of the admin listener, which serves an orchestrator and a few scrapers.
pub const ADMIN_CONNECTIONS: usize = 64;

/// Maximum size of the request line and the headers together. Requests to Watchword's routes take a
/// few hundred bytes.
const MAX_HEAD_BYTES: usize = 32 * 1024;
/// Interval between checks for overdue connections, and therefore the error of each deadline.
const LOOK: Duration = Duration::from_secs(1);
/// Pause after a failed `accept`: causes such as a lack of file descriptors do not go away at once.
const REST: Duration = Duration::from_millis(50);

/// Maximum time of a connection in each step.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Between requests. Longer than the 60 s for which load balancers keep idle connections: they
    /// close first, so no request meets a connection that the server is closing.
    pub idle: Duration,
    /// From the first byte of a request to the end of its headers. The headers fit in one packet;
    /// 10 s outlast the retransmission of a packet that is lost three times (1, 2 and 4 s).
    pub head: Duration,
    /// From the response to its last byte in the socket's buffer, which holds all responses but
    /// large metrics.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(75),
            head: Duration::from_secs(10),
            answer: Duration::from_secs(10),
        }
    }
}

/// Serves `router` on `listener` over at most `connections` connections until `stop`; then finishes
/// the requests in progress. The router limits how many requests run at once
/// ([`crate::http::within`]).
pub async fn serve(
    listener: TcpListener,
    router: Router,
    connections: usize,
    stop: CancellationToken,
) {
    // The other half of the file descriptors is for peers, files and the other listener.
    let half = usize::try_from(crate::process::descriptors() / 2).unwrap_or(connections);
    let connections = connections.min(half).max(1);
    serve_within(listener, router, connections, Patience::default(), stop).await;
}

async fn serve_within(
    listener: TcpListener,
    router: Router,
    connections: usize,
    patience: Patience,
    stop: CancellationToken,
) {
    let places = Arc::new(Places::new(connections));
    let routes = TowerToHyperService::new(router.with_state(()));
    let tasks = TaskTracker::new();
    let mut look = interval(LOOK.min(patience.head / 4));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut troubled = false;
    loop {
        let room = places.make_room();
        tokio::select! {
            () = stop.cancelled() => break,
            _ = look.tick() => places.close_overdue(patience),
            () = places.freed(), if !room => {}
            accepted = listener.accept(), if room => match accepted {
                Ok((stream, _)) => {
                    troubled = false;
                    let place = places.take();
                    tasks.spawn(attend(stream, routes.clone(), place));
                }
                Err(error) if is_the_callers(&error) => {}
                Err(error) => {
                    if !troubled {
                        tracing::warn!(%error, "cannot accept connections; closing idle ones");
                    }
                    troubled = true;
                    places.close_idlest();
                    sleep(REST).await;
                }
            },
        }
    }
    drop(listener);
    places.finish();
    tasks.close();
    let patience = Patience {
        idle: LOOK,
        ..patience
    };
    loop {
        tokio::select! {
            () = tasks.wait() => break,
            _ = look.tick() => places.close_overdue(patience),
        }
    }
}

/// Serves one connection until it ends.
async fn attend(stream: TcpStream, routes: TowerToHyperService<Router>, place: Place) {
    // Without `TCP_NODELAY` only latency suffers, so the error is ignored.
    let _ = stream.set_nodelay(true);
    let place = Arc::new(place);
    let connection = place.connection().clone();
    let own = place.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (routes, place) = (routes.clone(), own.clone());
        async move {
            let connection = place.connection();
            let request = if request.body().is_end_stream() {
                request.map(Body::new)
            } else {
                connection.enter(Step::Body);
                let request = receive(request, |bytes| place.hold(bytes)).await;
                place.release();
                request
            };
            connection.enter(Step::Work);
            let mut answer = routes.call(request).await?;
            // Responses must not be cached unless the route says otherwise.
            let headers = answer.headers_mut().entry(header::CACHE_CONTROL);
            headers.or_insert(HeaderValue::from_static("no-store"));
            connection.enter(Step::Answer);
            Ok::<_, Infallible>(answer)
        }
    });
    let io = TokioIo::new(Watched::new(stream, connection.clone()));
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD_BYTES);
    let mut served = pin!(builder.serve_connection(io, service));
    let mut is_finishing = false;
    poll_fn(|context| {
        match connection.order(context) {
            Order::Serve => {}
            Order::Finish if is_finishing => {}
            Order::Finish => {
                is_finishing = true;
                served.as_mut().graceful_shutdown();
            }
            Order::Close => return Poll::Ready(()),
        }
        // Ignore errors of the connection: the client sees them, and nothing is left to clean up.
        served.as_mut().poll(context).map(drop)
    })
    .await;
}

/// Returns whether the client caused the error by leaving between the handshake and `accept`.
fn is_the_callers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod tests;
