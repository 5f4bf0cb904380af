//! The state that all processes of a history share: true time, every peer, the pending faults, and
//! the trace. Each call of a peer goes through [`Seat::call`], which yields to other tasks before
//! and after the effect, and applies the fault that was set for it.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use watchword_core::{Clock, DeliveryId, Entropy, EntropyError, Timestamp, VerificationId};

use watchword_events::Lane;

use crate::broker::Queues;
use crate::caller::Callers;
use crate::codes::CodeState;
use crate::gateway::Gateways;
use crate::history::{Fault, Node, Peer};
use crate::kit::Kit;
use crate::ledger::LedgerState;
use crate::limits::LimitState;

/// The true time at which every history begins.
const BEGIN: Timestamp = Timestamp::from_millis(1_800_000_000_000);
/// How long a process stays down after a crash.
const DOWN: Duration = Duration::from_secs(2);
/// Deadline of a store call.
pub const STORE_PATIENCE: Duration = Duration::from_secs(1);
/// More calls than any history needs: reaching it means an endless loop.
const MOST_CALLS: u32 = 50_000;

/// The world of one history.
pub struct World {
    pub kit: Arc<Kit>,
    /// Notified when a message is put into a queue or becomes ready.
    arrived: [Notify; Lane::ALL.len()],
    state: Mutex<State>,
}

/// The mutable state.
pub struct State {
    pub queues: Queues,
    pub codes: CodeState,
    pub ledger: LedgerState,
    pub limits: LimitState,
    pub gateways: Gateways,
    pub callers: Callers,
    pub began: Instant,
    /// The disturbances so far; some invariants hold without exception only in their absence.
    pub disturbed: Disturbed,
    /// How far each clock is ahead, in milliseconds.
    pub ahead_ms: [i64; 4],
    pub strikes: Vec<Strike>,
    lives: [u32; 4],
    tasks: [Vec<AbortHandle>; 4],
    chance: u64,
    turns: u64,
    calls: u32,
    names: HashMap<VerificationId, usize>,
    trace: Option<Vec<String>>,
    broken: Option<String>,
}

/// The kinds of disturbance in a history.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a question of its own"
)]
pub struct Disturbed {
    /// A process died or was suspended.
    pub silence: bool,
    pub ledger: bool,
    pub clock: bool,
    pub publish: bool,
}

/// A fault that waits for its call.
pub struct Strike {
    pub node: Node,
    pub peer: Peer,
    pub after: u8,
    pub fault: Fault,
}

/// The failure of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    Refused,
    Returned,
    NoAnswer,
}

impl World {
    pub fn new(kit: Arc<Kit>, seed: u16, traced: bool) -> Arc<Self> {
        let began = Instant::now();
        Arc::new(Self {
            kit,
            arrived: Default::default(),
            state: Mutex::new(State {
                queues: Queues::default(),
                codes: CodeState::default(),
                ledger: LedgerState::default(),
                limits: LimitState::default(),
                gateways: Gateways::default(),
                callers: Callers::default(),
                began,
                disturbed: Disturbed::default(),
                ahead_ms: [0; 4],
                strikes: Vec::new(),
                lives: [0; 4],
                tasks: Default::default(),
                chance: u64::from(seed) << 32,
                turns: u64::from(seed),
                calls: 0,
                names: HashMap::new(),
                trace: traced.then(Vec::new),
                broken: None,
            }),
        })
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Returns the notification that the readers of `lane` wait for.
    pub fn arrived(&self, lane: Lane) -> &Notify {
        let place = Lane::ALL.iter().position(|known| *known == lane);
        &self.arrived[place.unwrap()]
    }

    /// Returns a handle for the current life of `node`.
    pub fn seat(self: &Arc<Self>, node: Node) -> Seat {
        let life = self.lock().lives[node as usize];
        Seat {
            world: self.clone(),
            node,
            life,
        }
    }

    /// Registers a task of `node`, to be aborted with it.
    pub fn owns(&self, node: Node, task: AbortHandle) {
        self.lock().tasks[node as usize].push(task);
    }

    /// Aborts all tasks of `node`, requeues its messages, and restarts it after [`DOWN`].
    pub fn crash(self: &Arc<Self>, node: Node) {
        let mut state = self.lock();
        if state.tasks[node as usize].is_empty() {
            return;
        }
        state.say(node, || "crashes".to_owned());
        state.disturbed.silence = true;
        state.lives[node as usize] += 1;
        for task in std::mem::take(&mut state.tasks[node as usize]) {
            task.abort();
        }
        state.queues.died(node);
        if let Some(front) = state.callers.fronts.get_mut(node as usize) {
            *front = None;
        }
        drop(state);
        for arrived in &self.arrived {
            arrived.notify_waiters();
        }
        let world = self.clone();
        tokio::spawn(async move {
            sleep(DOWN).await;
            crate::node::start(&world, node);
        });
    }
}

impl State {
    /// Returns the true time.
    pub fn now(&self) -> Timestamp {
        let passed = Instant::now().duration_since(self.began).as_millis();
        BEGIN.plus_millis(u64::try_from(passed).unwrap())
    }

    pub fn now_at(&self, node: Node) -> Timestamp {
        let at = self.now().as_millis() + self.ahead_ms[node as usize];
        Timestamp::from_millis(at)
    }

    pub fn is_traced(&self) -> bool {
        self.trace.is_some()
    }

    /// Adds `what` by `who` to the trace, if the history is traced.
    pub fn say<W: Display>(&mut self, who: impl std::fmt::Debug, what: impl FnOnce() -> W) {
        if let Some(trace) = &mut self.trace {
            let ms = Instant::now().duration_since(self.began).as_millis();
            trace.push(format!(
                "{:>6}.{:03} {who:?}: {}",
                ms / 1_000,
                ms % 1_000,
                what()
            ));
        }
    }

    /// Reports a broken invariant. Only the first one is kept.
    pub fn broken(&mut self, promise: impl Into<String>) {
        let promise = promise.into();
        self.say("PROMISE", || promise.clone());
        self.broken.get_or_insert(promise);
    }

    pub fn verdict(&mut self) -> (Option<String>, Vec<String>) {
        (self.broken.take(), self.trace.take().unwrap_or_default())
    }

    pub fn has_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Returns the name of a verification in the trace, such as `v1`.
    pub fn name(&mut self, id: &VerificationId) -> String {
        let next = self.names.len() + 1;
        let number = *self.names.entry(id.clone()).or_insert(next);
        format!("v{number}")
    }

    pub fn name_of(&mut self, id: &DeliveryId) -> String {
        let verification = self.name(id.verification());
        format!("{verification}-{}", id.send())
    }

    /// Returns for how many turns the next call yields: one, or with a seed one to three.
    fn turns(&mut self) -> u64 {
        if self.turns == 0 {
            return 1;
        }
        self.turns = mix(self.turns);
        1 + self.turns % 3
    }

    fn fault(&mut self, node: Node, peer: Peer) -> Option<Fault> {
        let fits = |strike: &Strike| strike.node == node && strike.peer == peer;
        let place = self.strikes.iter().position(fits)?;
        if self.strikes[place].after > 0 {
            self.strikes[place].after -= 1;
            return None;
        }
        let fault = self.strikes.remove(place).fault;
        self.say(node, || format!("{fault:?} at {peer:?}"));
        if matches!(fault, Fault::Stopped(_)) {
            self.disturbed.silence = true;
        }
        match peer {
            Peer::Ledger => self.disturbed.ledger = true,
            Peer::Publish => self.disturbed.publish = true,
            _ => {}
        }
        Some(fault)
    }
}

/// A handle for one life of a process. After the process has died, it has no further effect.
#[derive(Clone)]
pub struct Seat {
    pub world: Arc<World>,
    pub node: Node,
    life: u32,
}

impl Seat {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.world.lock()
    }

    fn is_alive(&self, state: &State) -> bool {
        state.lives[self.node as usize] == self.life
    }

    /// Locks the state. Pending forever if the process is dead.
    fn alive(&self) -> impl Future<Output = MutexGuard<'_, State>> + Send {
        std::future::poll_fn(|_| {
            let state = self.lock();
            if self.is_alive(&state) && state.calls < MOST_CALLS {
                std::task::Poll::Ready(state)
            } else {
                std::task::Poll::Pending
            }
        })
    }

    /// Returns at once, or never if the process is dead.
    pub async fn breathe(&self) {
        drop(self.alive().await);
    }

    /// Yields to other tasks.
    pub async fn pause(&self) {
        let turns = self.alive().await.turns();
        for _ in 0..turns {
            Turn(false).await;
        }
        self.breathe().await;
    }

    /// Calls a peer, which answers within `patience` or not at all.
    pub async fn call<T: Send>(
        &self,
        peer: Peer,
        patience: Duration,
        effect: impl FnOnce(&mut State) -> T + Send,
    ) -> Result<T, Failed> {
        let fault = {
            let mut state = self.alive().await;
            state.calls += 1;
            if state.calls == MOST_CALLS {
                state.broken("no endless loop of calls");
            }
            state.fault(self.node, peer)
        };
        self.pause().await;
        match fault {
            Some(Fault::CrashBefore) => self.crash().await,
            Some(Fault::Refused) => return Err(Failed::Refused),
            Some(Fault::Returned) => return Err(Failed::Returned),
            Some(Fault::Lost) => {
                sleep(patience).await;
                self.breathe().await;
                return Err(Failed::NoAnswer);
            }
            Some(Fault::Slow(ms)) => {
                sleep(patience.min(Duration::from_millis(ms.into()))).await;
            }
            _ => {}
        }
        let value = effect(&mut *self.alive().await);
        self.pause().await;
        match fault {
            Some(Fault::CrashAfter) => self.crash().await,
            // A resumed process sees the answer first, even if its deadline has passed meanwhile.
            Some(Fault::Stopped(seconds)) => {
                sleep(Duration::from_secs(seconds.into())).await;
                self.breathe().await;
                Ok(value)
            }
            Some(Fault::Unheard) => {
                sleep(patience).await;
                self.breathe().await;
                Err(Failed::NoAnswer)
            }
            _ => Ok(value),
        }
    }

    async fn crash<T>(&self) -> T {
        self.world.crash(self.node);
        std::future::pending().await
    }
}

/// Yields once.
struct Turn(bool);

impl Future for Turn {
    type Output = ();

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<()> {
        if self.0 {
            return std::task::Poll::Ready(());
        }
        self.0 = true;
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    }
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.node.fmt(f)
    }
}

/// The clock of the process.
impl Clock for Seat {
    fn now(&self) -> Timestamp {
        self.lock().now_at(self.node)
    }
}

/// Deterministic randomness. Codes drawn from it are `001000` or above, so that [`crate::caller`]
/// has guesses that are certainly wrong.
impl Entropy for World {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), EntropyError> {
        const CODES: u64 = 1_000_000;
        let mut state = self.lock();
        let is_code = bytes.len() == 8;
        for chunk in bytes.chunks_mut(8) {
            loop {
                state.chance = state.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let drawn = mix(state.chance);
                if !is_code || drawn % CODES >= 1_000 {
                    chunk.copy_from_slice(&drawn.to_le_bytes()[..chunk.len()]);
                    break;
                }
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}

/// The finalizer of `SplitMix64`.
const fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
