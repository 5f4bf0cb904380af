//! A simulated broker behind the product's traits: queues with prefetch, wait queues that run on
//! true time, dead-lettered messages, and redelivery of the messages that a dead process held. As
//! with RabbitMQ, a message is published to its wait queue before it is acknowledged, so that a
//! crash in between leaves two copies.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::{sleep, timeout};
use watchword_broker::{
    Consumer, DeadLetterReason, LinkState, Outbound, PublishError, Publisher, Received, Route,
    Settle, SettleError,
};
use watchword_core::{Rung, Timestamp, TraceParent};
use watchword_events::Lane;

use crate::history::{Node, Peer};
use crate::world::{Failed, Seat, State};

/// Deadline of a settlement, including the publish that it makes.
const SETTLE_PATIENCE: Duration = Duration::from_secs(5);
/// Messages that one consumer holds at most.
const PREFETCH: usize = 3;

/// A queued message.
#[derive(Debug, Clone)]
pub struct Message {
    id: String,
    body: Bytes,
    traceparent: Option<TraceParent>,
    retries: u32,
    redelivered: bool,
}

/// A queue with its wait queues.
#[derive(Debug, Default)]
struct Queue {
    ready: VecDeque<Message>,
    waiting: Vec<(Timestamp, Message)>,
    held: Vec<(u64, Node, Message)>,
}

/// All queues.
#[derive(Debug, Default)]
pub struct Queues {
    lanes: HashMap<Lane, Queue>,
    tags: u64,
    /// Ids of dead-lettered messages.
    pub parked: HashSet<String>,
    /// Ids of published events.
    pub told: HashSet<String>,
}

impl Queues {
    fn lane(&mut self, lane: Lane) -> &mut Queue {
        self.lanes.entry(lane).or_default()
    }

    pub fn put(&mut self, lane: Lane, id: String, body: Bytes, traceparent: Option<TraceParent>) {
        self.lane(lane).ready.push_back(Message {
            id,
            body,
            traceparent,
            retries: 0,
            redelivered: false,
        });
    }

    fn take(
        &mut self,
        lane: Lane,
        node: Node,
        now: Timestamp,
    ) -> Result<(u64, Message), Option<Duration>> {
        self.tags += 1;
        let tag = self.tags;
        let queue = self.lane(lane);
        // Messages become ready in the order in which they are due.
        while let Some(place) = (0..queue.waiting.len())
            .filter(|&place| queue.waiting[place].0 <= now)
            .min_by_key(|&place| queue.waiting[place].0)
        {
            let (_, message) = queue.waiting.remove(place);
            queue.ready.push_back(message);
        }
        let holds = queue.held.iter().filter(|held| held.1 == node).count();
        if holds < PREFETCH
            && let Some(message) = queue.ready.pop_front()
        {
            queue.held.push((tag, node, message.clone()));
            return Ok((tag, message));
        }
        Err(queue.waiting.iter().map(|(due, _)| due.since(now)).min())
    }

    fn release(&mut self, lane: Lane, tag: u64) -> Option<Message> {
        let held = &mut self.lane(lane).held;
        let place = held.iter().position(|held| held.0 == tag)?;
        Some(held.swap_remove(place).2)
    }

    fn hand_back(&mut self, lane: Lane, tag: u64) {
        if let Some(message) = self.release(lane, tag) {
            self.lane(lane).ready.push_front(Message {
                redelivered: true,
                ..message
            });
        }
    }

    /// Returns the messages held by a dead process to their queues.
    pub fn died(&mut self, node: Node) {
        for queue in self.lanes.values_mut() {
            let (back, held) = std::mem::take(&mut queue.held)
                .into_iter()
                .partition::<Vec<_>, _>(|held| held.1 == node);
            queue.held = held;
            for (_, _, message) in back.into_iter().rev() {
                queue.ready.push_front(Message {
                    redelivered: true,
                    ..message
                });
            }
        }
    }

    /// Delivers a queued or held message once more; returns its queue and id.
    pub fn duplicate(&mut self, nth: u8) -> Option<(Lane, String)> {
        let mut all = Vec::new();
        for lane in Lane::ALL {
            let queue = self.lane(lane);
            let held = queue.held.iter().map(|held| &held.2);
            let waiting = queue.waiting.iter().map(|(_, message)| message);
            all.extend(
                held.chain(&queue.ready)
                    .chain(waiting)
                    .map(|message| (lane, message.clone())),
            );
        }
        let (lane, message) = all.get(usize::from(nth) % all.len().max(1))?.clone();
        let id = message.id.clone();
        self.lane(lane).ready.push_back(Message {
            redelivered: true,
            ..message
        });
        Some((lane, id))
    }

    /// Returns the number of unsettled messages.
    pub fn len(&self) -> usize {
        let queues = self.lanes.values();
        queues
            .map(|queue| queue.ready.len() + queue.waiting.len() + queue.held.len())
            .sum()
    }
}

fn named(state: &mut State, id: &str) -> String {
    match id.parse() {
        Ok(delivery) => state.name_of(&delivery),
        Err(_) => match id.split_once('.') {
            Some((head, tail)) => match (head.parse(), head.parse()) {
                (Ok(delivery), _) => format!("{}.{tail}", state.name_of(&delivery)),
                (_, Ok(verification)) => format!("{}.{tail}", state.name(&verification)),
                _ => id.to_owned(),
            },
            None => id.to_owned(),
        },
    }
}

/// Publishes for one process.
pub struct SimPublisher(pub Seat);

#[async_trait]
impl Publisher for SimPublisher {
    async fn publish(&self, message: Outbound, deadline: Duration) -> Result<(), PublishError> {
        let node = self.0.node;
        let lane = match message.route {
            Route::Lane(lane) => Some(lane),
            Route::Parked(..) | Route::Event(_) => None,
        };
        let published = self.0.call(Peer::Publish, deadline, move |state| {
            if state.is_traced() {
                let name = named(state, &message.id);
                state.say(node, || format!("publishes {name}"));
            }
            match message.route {
                Route::Lane(lane) => {
                    state
                        .queues
                        .put(lane, message.id, message.body, message.traceparent);
                }
                Route::Parked(..) => {
                    state.queues.parked.insert(message.id);
                }
                Route::Event(_) => {
                    state.queues.told.insert(message.id);
                }
            }
        });
        let published = published.await;
        if let Some(lane) = lane {
            self.0.world.arrived(lane).notify_waiters();
        }
        published.map_err(|failed| match failed {
            Failed::Refused => PublishError::Rejected,
            Failed::Returned => PublishError::Unroutable,
            Failed::NoAnswer => PublishError::Unconfirmed,
        })
    }

    fn state(&self) -> LinkState {
        LinkState::Up
    }
}

/// Consumes from one queue for one process.
pub struct SimConsumer {
    pub seat: Seat,
    pub lane: Lane,
}

#[async_trait]
impl Consumer for SimConsumer {
    async fn receive(&mut self) -> Option<Received> {
        loop {
            // Use no turn of the scheduler: callers drop and repeat this call at will, and the
            // number of turns would depend on that.
            self.seat.breathe().await;
            let arrived = self.seat.world.arrived(self.lane).notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            let taken = {
                let mut state = self.seat.lock();
                let now = state.now();
                let taken = state.queues.take(self.lane, self.seat.node, now);
                if state.is_traced()
                    && let Ok((_, message)) = &taken
                {
                    let name = named(&mut state, &message.id);
                    let (node, lane) = (self.seat.node, self.lane.as_str());
                    state.say(node, || format!("takes {name} from {lane}"));
                }
                taken
            };
            match taken {
                Ok((tag, message)) => return Some(received(&self.seat, self.lane, tag, message)),
                Err(None) => arrived.await,
                Err(Some(wait)) => {
                    let _ = timeout(wait, arrived).await;
                }
            }
        }
    }

    async fn stop(&mut self) {}

    fn state(&self) -> LinkState {
        LinkState::Up
    }
}

fn received(seat: &Seat, lane: Lane, tag: u64, message: Message) -> Received {
    Received {
        id: Some(message.id),
        body: message.body,
        retries: message.retries,
        redelivered: message.redelivered,
        late: None,
        service: None,
        user: None,
        traceparent: message.traceparent,
        settle: Box::new(SimSettle {
            seat: seat.clone(),
            lane,
            tag,
        }),
    }
}

/// The right to settle one message.
struct SimSettle {
    seat: Seat,
    lane: Lane,
    tag: u64,
}

impl SimSettle {
    /// Settles with the broker. On a failure the channel breaks, and its messages are requeued.
    async fn settled(
        &self,
        what: &'static str,
        effect: impl FnOnce(&mut State, Lane, u64) + Send,
    ) -> Result<(), SettleError> {
        let (node, lane, tag) = (self.seat.node, self.lane, self.tag);
        let settled = self.seat.call(Peer::Settle, SETTLE_PATIENCE, move |state| {
            state.say(node, || format!("{what} on {}", lane.as_str()));
            effect(state, lane, tag);
        });
        let settled = settled.await;
        if settled.is_err() {
            self.seat.lock().queues.hand_back(lane, tag);
        }
        self.seat.world.arrived(self.lane).notify_waiters();
        settled.map_err(|_| SettleError)
    }

    async fn acknowledged(&self) -> Result<(), SettleError> {
        self.settled("acknowledges", |state, lane, tag| {
            state.queues.release(lane, tag);
        })
        .await
    }
}

#[async_trait]
impl Settle for SimSettle {
    async fn ack(self: Box<Self>) -> Result<(), SettleError> {
        self.acknowledged().await
    }

    async fn retry(self: Box<Self>, rung: Rung) -> Result<(), SettleError> {
        let queued = self.seat.call(Peer::Publish, SETTLE_PATIENCE, |state| {
            let due = state.now().plus_millis(rung.delay_ms);
            let queue = state.queues.lane(self.lane);
            let held = queue.held.iter().find(|held| held.0 == self.tag);
            if let Some((_, _, message)) = held.cloned() {
                queue.waiting.push((
                    due,
                    Message {
                        retries: message.retries + 1,
                        redelivered: false,
                        ..message
                    },
                ));
                state.say(self.seat.node, || format!("lets it wait {}", rung.name));
            }
        });
        if queued.await.is_err() {
            sleep(SETTLE_PATIENCE.min(Duration::from_millis(rung.delay_ms))).await;
            self.seat.breathe().await;
            self.seat.lock().queues.hand_back(self.lane, self.tag);
            self.seat.world.arrived(self.lane).notify_waiters();
            return Err(SettleError);
        }
        self.acknowledged().await
    }

    async fn dead_letter(self: Box<Self>, reason: DeadLetterReason) -> Result<(), SettleError> {
        self.settled(reason.as_str(), |state, lane, tag| {
            if let Some(message) = state.queues.release(lane, tag) {
                state.queues.parked.insert(message.id);
            }
        })
        .await
    }

    async fn requeue(self: Box<Self>) -> Result<(), SettleError> {
        self.settled("hands back", |state, lane, tag| {
            state.queues.hand_back(lane, tag);
        })
        .await
    }
}
