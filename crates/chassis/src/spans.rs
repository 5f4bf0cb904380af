//! Trace spans: begun where work begins, finished when dropped, and passed to the exporter over a
//! bounded channel. With tracing off, nothing is recorded. Spans that do not fit in the channel are
//! dropped and counted, so a slow collector delays no request. Attributes are limited to [`Key`],
//! none of which can hold a code or a recipient.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use watchword_core::{Entropy, SpanId, TraceId, TraceParent};
use watchword_metrics::prometheus::{Error, IntCounter, Registry};
use watchword_metrics::{Kind as SeriesKind, Maker, Series};

use crate::SystemEntropy;

/// Capacity of the channel to the exporter, in finished spans.
const BACKLOG: usize = 8_192;

/// Spans that the collector did not take.
pub const DROPPED: Series = Series {
    name: "watchword_spans_dropped_total",
    kind: SeriesKind::Counter,
    labels: &[],
    help: "Trace spans dropped because the collector did not take them in time. Only with `[traces]`.",
    action: "The collector is down or too slow, or `traces.share` is too high. Codes are not delayed by it.",
};

/// Span kind, as OpenTelemetry defines it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "names defined by OpenTelemetry")]
pub enum Kind {
    Server,
    Producer,
    Consumer,
    Client,
}

macro_rules! keys {
    ($($name:ident = $text:literal,)*) => {
        /// Span attribute keys.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the attribute name says it")]
        pub enum Key { $($name,)* }

        impl Key {
            /// Returns the attribute's name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

keys! {
    Channel = "watchword.channel",
    Class = "watchword.attempt.class",
    Delivery = "watchword.delivery.id",
    Problem = "error.type",
    Provider = "watchword.provider",
    Retries = "watchword.delivery.retries",
    Service = "watchword.service",
    Settled = "watchword.delivery.settled",
    Verdict = "watchword.check.verdict",
    Verification = "watchword.verification.id",
}

/// Finished span.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Trace id.
    pub trace: TraceId,
    /// Span id.
    pub id: SpanId,
    /// Parent span.
    pub parent: Option<SpanId>,
    /// Name of the operation.
    pub name: &'static str,
    /// Span kind.
    pub kind: Kind,
    /// Start, in nanoseconds since the Unix epoch.
    pub begun_ns: u64,
    /// End, in nanoseconds since the Unix epoch.
    pub ended_ns: u64,
    /// Attributes in the order in which they were set.
    pub attributes: Vec<(Key, String)>,
    /// Whether the operation failed.
    pub is_failed: bool,
}

/// Source of spans; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Spans(Option<Arc<Sink>>);

#[derive(Debug)]
struct Sink {
    sender: mpsc::Sender<Finished>,
    dropped: IntCounter,
    /// The share of traces to keep, as a fraction of 2^32.
    share: u64,
    anchor: (u64, Instant),
    seed: u64,
    number: AtomicU64,
}

impl Spans {
    /// Records nothing.
    pub const fn off() -> Self {
        Self(None)
    }

    /// Keeps `share` (0 to 1) of the traces that begin here, and every trace that the caller
    /// sampled. Finished spans come out of the returned receiver.
    pub fn on(share: f64, registry: &Registry) -> Result<(Self, mpsc::Receiver<Finished>), Error> {
        let dropped = Maker::new(registry).counter(&DROPPED)?;
        let (sender, finished) = mpsc::channel(BACKLOG);
        #[expect(clippy::disallowed_methods, reason = "spans carry wall-clock time")]
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let began_ns = u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX);
        let mut seed = [0; 8];
        // Without a random seed, ids may repeat those of another process and join unrelated traces.
        let _ = SystemEntropy.fill(&mut seed);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 2^32"
        )]
        let share = (share.clamp(0.0, 1.0) * 4_294_967_296.0) as u64;
        let sink = Sink {
            sender,
            dropped,
            share,
            anchor: (began_ns, Instant::now()),
            seed: u64::from_ne_bytes(seed),
            number: AtomicU64::new(0),
        };
        Ok((Self(Some(Arc::new(sink))), finished))
    }

    /// Counts spans that the collector did not take.
    pub fn lost(&self, count: usize) {
        if let Some(sink) = &self.0 {
            sink.dropped
                .inc_by(u64::try_from(count).unwrap_or(u64::MAX));
        }
    }

    /// Begins a span below the caller's span, if there is one.
    pub fn begin(&self, name: &'static str, kind: Kind, caller: Option<TraceParent>) -> Span {
        let is_kept = caller.is_none_or(|caller| caller.is_sampled);
        let sink = self.0.as_ref().filter(|_| is_kept);
        Span {
            trace: caller.map(|caller| caller.trace),
            open: sink.map(|sink| Box::new(Open::new(sink, name, kind, caller))),
        }
    }
}

impl Sink {
    fn now_ns(&self) -> u64 {
        let since = u64::try_from(self.anchor.1.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.anchor.0.saturating_add(since)
    }

    /// Returns a new span id: a counter mixed by `SplitMix64`. The mix maps exactly one count to
    /// zero, which is not a valid id, hence the loop.
    fn id(&self) -> SpanId {
        loop {
            if let Some(id) = SpanId::new(self.number().to_be_bytes()) {
                return id;
            }
        }
    }

    fn trace(&self) -> Option<TraceId> {
        let halves = [self.number(), self.number()].map(u64::to_be_bytes);
        TraceId::new(halves.concat().try_into().ok()?)
    }

    fn number(&self) -> u64 {
        let count = self.number.fetch_add(1, Ordering::Relaxed);
        let z = self
            .seed
            .wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns whether this trace is in the share. The trace id decides, so all processes agree.
    fn keeps(&self, trace: TraceId) -> bool {
        let [.., a, b, c, d] = *trace.as_bytes();
        u64::from(u32::from_be_bytes([a, b, c, d])) < self.share
    }
}

/// Span in progress; dropping it finishes it.
#[derive(Debug)]
pub struct Span {
    trace: Option<TraceId>,
    open: Option<Box<Open>>,
}

#[derive(Debug)]
struct Open {
    sink: Arc<Sink>,
    id: SpanId,
    parent: Option<SpanId>,
    /// The caller sampled the trace, so it is kept regardless of the share.
    is_told: bool,
    name: &'static str,
    kind: Kind,
    begun_ns: u64,
    attributes: Vec<(Key, String)>,
    is_failed: bool,
}

impl Open {
    fn new(sink: &Arc<Sink>, name: &'static str, kind: Kind, caller: Option<TraceParent>) -> Self {
        Self {
            sink: sink.clone(),
            id: sink.id(),
            parent: caller.map(|caller| caller.span),
            is_told: caller.is_some(),
            name,
            kind,
            begun_ns: sink.now_ns(),
            attributes: Vec::new(),
            is_failed: false,
        }
    }

    fn is_kept(&self, trace: TraceId) -> bool {
        self.is_told || self.sink.keeps(trace)
    }
}

impl Span {
    /// Returns a span that is not recorded and has no trace.
    pub const fn none() -> Self {
        Self {
            trace: None,
            open: None,
        }
    }

    /// Returns the trace this span belongs to, if it is known yet.
    pub const fn trace(&self) -> Option<TraceId> {
        self.trace
    }

    /// Sets the trace, unless the caller already did.
    pub const fn join(&mut self, trace: Option<TraceId>) {
        if self.trace.is_none() {
            self.trace = trace;
        }
    }

    /// Adds an attribute. `value` is called only if the span is recorded.
    pub fn say(&mut self, key: Key, value: impl FnOnce() -> String) {
        if let Some(open) = &mut self.open {
            open.attributes.push((key, value()));
        }
    }

    /// Marks the span as failed.
    pub fn fail(&mut self) {
        if let Some(open) = &mut self.open {
            open.is_failed = true;
        }
    }

    /// Begins a child span.
    #[must_use]
    pub fn child(&self, name: &'static str, kind: Kind) -> Self {
        let open = self.open.as_ref().map(|open| {
            let mut child = Open::new(&open.sink, name, kind, None);
            (child.parent, child.is_told) = (Some(open.id), open.is_told);
            Box::new(child)
        });
        Self {
            trace: self.trace,
            open,
        }
    }

    /// Returns the parent to send along with a request or message, so that the receiver continues
    /// the trace.
    pub fn parent(&self) -> Option<TraceParent> {
        let (open, trace) = (self.open.as_ref()?, self.trace?);
        open.is_kept(trace).then_some(TraceParent {
            trace,
            span: open.id,
            is_sampled: true,
        })
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(open) = self.open.take() else {
            return;
        };
        // The span ended before it joined a trace: give it a trace of its own.
        let Some(trace) = self.trace.or_else(|| open.sink.trace()) else {
            return;
        };
        if !open.is_kept(trace) {
            return;
        }
        let open = *open;
        let finished = Finished {
            trace,
            id: open.id,
            parent: open.parent,
            name: open.name,
            kind: open.kind,
            begun_ns: open.begun_ns,
            ended_ns: open.sink.now_ns(),
            attributes: open.attributes,
            is_failed: open.is_failed,
        };
        if open.sink.sender.try_send(finished).is_err() {
            open.sink.dropped.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(last: u8) -> TraceId {
        let mut bytes = [1; 16];
        bytes[12] = last;
        TraceId::new(bytes).unwrap()
    }

    #[test]
    fn a_child_belongs_to_its_parent_and_all_to_the_callers_trace() {
        let (spans, mut finished) = Spans::on(0.0, &Registry::new()).unwrap();
        let caller = TraceParent::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let mut span = spans.begin("request", Kind::Server, caller);
        span.join(Some(trace(9)));
        let mut child = span.child("send", Kind::Producer);
        child.say(Key::Channel, || "sms".to_owned());
        let sent = child.parent().unwrap();
        drop(child);
        span.fail();
        drop(span);
        let (child, span) = (finished.try_recv().unwrap(), finished.try_recv().unwrap());
        assert_eq!((child.parent, child.id), (Some(span.id), sent.span));
        assert_eq!(child.attributes, [(Key::Channel, "sms".to_owned())]);
        assert_eq!(span.parent, caller.map(|caller| caller.span));
        assert_eq!(
            (child.trace, span.trace),
            (caller.unwrap().trace, sent.trace)
        );
        assert!(span.is_failed && !child.is_failed && span.ended_ns >= child.ended_ns);
    }

    #[test]
    fn only_the_share_is_kept_and_nothing_of_a_caller_who_keeps_nothing() {
        let (spans, mut finished) = Spans::on(0.5, &Registry::new()).unwrap();
        for (last, kept) in [(0, true), (0x7f, true), (0x80, false), (0xff, false)] {
            let mut span = spans.begin("request", Kind::Server, None);
            span.join(Some(trace(last)));
            assert_eq!(span.parent().is_some(), kept);
            drop(span);
            assert_eq!(finished.try_recv().is_ok(), kept, "{last}");
        }
        let caller = TraceParent::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");
        drop(spans.begin("request", Kind::Server, caller));
        drop(Spans::off().begin("request", Kind::Server, None));
        assert!(finished.try_recv().is_err());
        let (all, mut finished) = Spans::on(1.0, &Registry::new()).unwrap();
        drop(all.begin("request", Kind::Server, None));
        assert!(finished.try_recv().is_ok(), "refused before it had a trace");
    }
}
