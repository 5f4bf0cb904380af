//! State of one connection: its current step and when the step began, derived from the bytes that
//! pass through the socket without parsing them.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::Patience;

/// Step of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Between requests.
    Idle,
    /// A request has begun to arrive.
    Head,
    /// The headers have arrived, the body has not; [`crate::http`] limits the time of the body.
    Body,
    /// A handler is running; the handler's own deadlines apply.
    Work,
    /// The response is being written.
    Answer,
}

/// Instruction of the listener to a connection. A later variant overrides an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Keep serving.
    Serve,
    /// End after the current request.
    Finish,
    /// End immediately.
    Close,
}

/// Connection as the listener sees it.
#[derive(Debug)]
pub struct Connection {
    step: Mutex<(Step, Instant)>,
    order: AtomicU8,
    attendant: AtomicWaker,
}

impl Connection {
    /// Creates the state of a connection that has just been accepted.
    pub fn new() -> Self {
        Self {
            step: Mutex::new((Step::Idle, Instant::now())),
            order: AtomicU8::new(Order::Serve as u8),
            attendant: AtomicWaker::new(),
        }
    }

    fn step(&self) -> MutexGuard<'_, (Step, Instant)> {
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves to `step` and restarts its timer.
    pub fn enter(&self, step: Step) {
        *self.step() = (step, Instant::now());
    }

    /// Moves to `to` if the current step is `from`.
    fn go_on(&self, from: Step, to: Step) {
        let mut step = self.step();
        if step.0 == from {
            *step = (to, Instant::now());
        }
    }

    /// Returns when the connection began to wait for its client; `None` while a handler runs.
    pub fn waits_since(&self) -> Option<Instant> {
        let (step, since) = *self.step();
        (step != Step::Work).then_some(since)
    }

    /// Returns when the body began to arrive; `None` in every other step.
    pub fn receives_since(&self) -> Option<Instant> {
        let (step, since) = *self.step();
        (step == Step::Body).then_some(since)
    }

    /// Whether the client has used up the time of the current step.
    pub fn is_overdue(&self, patience: Patience) -> bool {
        let (step, since) = *self.step();
        let limit: Duration = match step {
            Step::Idle => patience.idle,
            Step::Head => patience.head,
            Step::Answer => patience.answer,
            Step::Body | Step::Work => return false,
        };
        since.elapsed() >= limit
    }

    /// Ends the connection after its current request.
    pub fn finish(&self) {
        self.demand(Order::Finish);
    }

    /// Ends the connection immediately.
    pub fn close(&self) {
        self.demand(Order::Close);
    }

    fn demand(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::AcqRel);
        self.attendant.wake();
    }

    /// Returns the current instruction and registers the task to be woken when it changes.
    pub fn order(&self, context: &Context<'_>) -> Order {
        self.attendant.register(context.waker());
        match self.order.load(Ordering::Acquire) {
            order if order == Order::Serve as u8 => Order::Serve,
            order if order == Order::Finish as u8 => Order::Finish,
            _ => Order::Close,
        }
    }
}

/// Socket that reports its traffic to a [`Connection`].
pub struct Watched {
    stream: TcpStream,
    connection: Arc<Connection>,
}

impl Watched {
    /// Reports reads and flushes of `stream` to `connection`.
    pub const fn new(stream: TcpStream, connection: Arc<Connection>) -> Self {
        Self { stream, connection }
    }

    fn stream(&mut self) -> Pin<&mut TcpStream> {
        Pin::new(&mut self.stream)
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(self.stream().poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.connection.go_on(Step::Idle, Step::Head);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Completes when all written bytes are in the socket's buffer: the response is finished.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream().poll_flush(context))?;
        self.connection.go_on(Step::Answer, Step::Idle);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }
}
