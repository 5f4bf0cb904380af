//! One connection: which step it is in and since when, learnt from the bytes that pass.
//! Refuses to know what the bytes mean.

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

/// What a connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Between requests.
    Idle,
    /// A request has begun to arrive.
    Head,
    /// Its headers are there, its body is not; the deadline of bodies holds.
    Body,
    /// A handler has it; the handler's own deadlines hold.
    Work,
    /// Its answer is on the way out.
    Answer,
}

/// What the listener wants of a connection; each goes further than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Go on.
    Serve,
    /// End after the request in work.
    Finish,
    /// End now.
    Close,
}

/// A connection as its listener sees it.
#[derive(Debug)]
pub struct Connection {
    step: Mutex<(Step, Instant)>,
    order: AtomicU8,
    attendant: AtomicWaker,
}

impl Connection {
    /// One that has just been accepted.
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

    /// It is at `step` from now on.
    pub fn enter(&self, step: Step) {
        *self.step() = (step, Instant::now());
    }

    /// It is at `to` from now on if it was at `from`.
    fn go_on(&self, from: Step, to: Step) {
        let mut step = self.step();
        if step.0 == from {
            *step = (to, Instant::now());
        }
    }

    /// Since when it waits for its caller, if it does.
    pub fn waits_since(&self) -> Option<Instant> {
        let (step, since) = *self.step();
        (step != Step::Work).then_some(since)
    }

    /// Since when its body has been arriving, if one is.
    pub fn receives_since(&self) -> Option<Instant> {
        let (step, since) = *self.step();
        (step == Step::Body).then_some(since)
    }

    /// Whether its caller has had all the time there is.
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

    /// Ends it once it is done with its request.
    pub fn finish(&self) {
        self.demand(Order::Finish);
    }

    /// Ends it.
    pub fn close(&self) {
        self.demand(Order::Close);
    }

    fn demand(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::AcqRel);
        self.attendant.wake();
    }

    /// What is wanted of it. Whoever asks is woken when that changes.
    pub fn order(&self, context: &Context<'_>) -> Order {
        self.attendant.register(context.waker());
        match self.order.load(Ordering::Acquire) {
            order if order == Order::Serve as u8 => Order::Serve,
            order if order == Order::Finish as u8 => Order::Finish,
            _ => Order::Close,
        }
    }
}

/// The socket of a [`Connection`].
pub struct Watched {
    stream: TcpStream,
    connection: Arc<Connection>,
}

impl Watched {
    /// Tells `connection` what passes through `stream`.
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

    /// Called when all that was to be written is in the socket's buffer.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.stream().poll_flush(context))?;
        self.connection.go_on(Step::Answer, Step::Idle);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }
}
