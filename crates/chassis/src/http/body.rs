//! Request bodies. The listener reads the complete body before the handler runs, so that a slow
//! sender occupies only a connection.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http;
use tokio::time::timeout;

use crate::{Problem, ProblemCode};

/// The largest body that the listener passes on. Each route has a lower limit.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// How much of an oversized body is read and discarded. A client whose connection is reset while it
/// is sending does not see the response.
const MAX_DISCARDED_BYTES: usize = 2 * 1024 * 1024;
/// The maximum time from the end of the headers to the end of the body.
pub const BODY_DEADLINE: Duration = Duration::from_secs(5);

/// The reason why an announced body is missing. It is stored in the request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// The body did not arrive within [`BODY_DEADLINE`].
    Late,
    /// The body exceeds the limit.
    Large,
    /// The framing is invalid, or the connection ended.
    Broken,
}

impl Unread {
    fn problem(self, limit: usize) -> Problem {
        match self {
            Self::Late => Problem::new(
                ProblemCode::RequestTimeout,
                format!("the body must arrive within {} s", BODY_DEADLINE.as_secs()),
            ),
            Self::Large => Problem::new(
                ProblemCode::BodyTooLarge,
                format!("a body has at most {} KiB", limit / 1024),
            ),
            Self::Broken => Problem::new(ProblemCode::InvalidJson, "the body cannot be read"),
        }
    }
}

/// Replaces the body of `request` with one that is in memory. Calls `hold` with the size of each
/// chunk that has to wait for the next.
///
/// If the body cannot be read, inserts an [`Unread`] into the request's extensions, so that the
/// route decides which error to report first: a missing key or a missing body.
pub(crate) async fn receive<B>(request: http::Request<B>, hold: impl Fn(usize)) -> Request
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let (mut parts, body) = request.into_parts();
    let arrived = timeout(BODY_DEADLINE, collect(body, MAX_BODY_BYTES, hold)).await;
    let body = match arrived.unwrap_or(Err(Unread::Late)) {
        Ok(bytes) => Body::from(bytes),
        Err(unread) => {
            parts.extensions.insert(unread);
            Body::empty()
        }
    };
    Request::from_parts(parts, body)
}

/// Returns the body of `request` if it has at most `limit` bytes.
pub async fn whole(request: Request, limit: usize) -> Result<Bytes, Problem> {
    let unread = request.extensions().get().copied();
    let body = match unread {
        Some(unread) => Err(unread),
        None => collect(request.into_body(), limit, |_| ()).await,
    };
    body.map_err(|unread: Unread| unread.problem(limit))
}

async fn collect<B>(mut body: B, limit: usize, hold: impl Fn(usize)) -> Result<Bytes, Unread>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let mut kept = Vec::new();
    let mut seen = 0;
    let mut is_large = body.size_hint().lower() > limit as u64;
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(chunk) = frame.map_err(|_| Unread::Broken)?.into_data() else {
            continue;
        };
        seen += chunk.len();
        is_large |= seen > limit;
        if is_large {
            kept = Vec::new();
            if seen > MAX_DISCARDED_BYTES {
                break;
            }
            continue;
        }
        // Copy the chunk, so that the connection's buffer, which it is a slice of, can be reused.
        kept.extend_from_slice(&chunk);
        if !body.is_end_stream() {
            hold(chunk.len());
        }
    }
    if is_large {
        Err(Unread::Large)
    } else {
        Ok(kept.into())
    }
}
