//! Simulated gateways and a relay that behave as configured. Every hand-over is checked against the
//! message's deadline, and the messages that people get are counted.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;
use watchword_core::{AttemptClass, DeliveryId, ProviderName};
use watchword_delivery::{Attempted, Dispatch, Provider};

use crate::caller;
use crate::history::{Gateway, Manner, Node, Peer};
use crate::world::{Failed, Seat, State};

/// Time limit of an attempt.
const LIMIT: Duration = Duration::from_secs(10);

/// The hand-overs, and the behavior of each gateway.
pub struct Gateways {
    pub manners: [Manner; 3],
    pub handovers: Vec<Handover>,
    /// Acceptances that a worker received.
    pub heard: HashMap<DeliveryId, u32>,
    known_to_two: HashSet<DeliveryId>,
}

impl Default for Gateways {
    fn default() -> Self {
        Self {
            manners: [Manner::Takes(0); 3],
            handovers: Vec::new(),
            heard: HashMap::new(),
            known_to_two: HashSet::new(),
        }
    }
}

/// A call of a gateway.
#[derive(Debug, Clone)]
pub struct Handover {
    pub delivery: DeliveryId,
    pub gateway: Gateway,
    pub message_id: String,
}

impl Gateway {
    pub fn name(self) -> ProviderName {
        let name = match self {
            Self::One => "one",
            Self::Two => "two",
            Self::Mail => "mail",
        };
        name.parse().unwrap()
    }
}

/// A gateway as one process sees it.
pub struct SimProvider {
    pub seat: Seat,
    pub gateway: Gateway,
    pub name: ProviderName,
}

fn begin(state: &mut State, node: Node, gateway: Gateway, dispatch: &Dispatch) -> Manner {
    let id = &dispatch.delivery_id;
    let name = state.name_of(id);
    state.say(node, || format!("hands {name} to {gateway:?}"));
    let deadline = state.codes.deadlines.get(id).copied();
    match deadline {
        None => state.broken(format!("{name} was asked for before it is handed over")),
        Some(deadline) => {
            if state.now_at(node) >= deadline {
                state.broken(format!("{name} is not handed over past its deadline"));
            }
            if !state.disturbed.clock && state.now() >= deadline {
                state.broken(format!(
                    "{name} is not handed over past its deadline in true time"
                ));
            }
        }
    }
    let number = state.gateways.handovers.len();
    let message_id = match gateway {
        Gateway::Two => format!("two-{id}"),
        _ => format!("{gateway:?}-{number}"),
    };
    state.gateways.handovers.push(Handover {
        delivery: id.clone(),
        gateway,
        message_id,
    });
    state.gateways.manners[gateway as usize]
}

/// Delivers the message, unless this gateway recognizes it as a repeat.
fn take(state: &mut State, gateway: Gateway, dispatch: &Dispatch) {
    let id = &dispatch.delivery_id;
    if gateway == Gateway::Two && !state.gateways.known_to_two.insert(id.clone()) {
        return;
    }
    let name = state.name_of(id);
    state.say(gateway, || format!("takes {name}"));
    let shown = dispatch.variables.as_map().get(caller::AMOUNT);
    let shown = shown.map_or(0, |amount| amount.parse().unwrap());
    (state.callers).arrived(id, dispatch.code.expose(), shown);
}

#[async_trait]
impl Provider for SimProvider {
    fn name(&self) -> &ProviderName {
        &self.name
    }

    fn attempt_limit(&self) -> Duration {
        LIMIT
    }

    fn is_idempotent(&self) -> bool {
        self.gateway == Gateway::Two
    }

    fn wants_name(&self) -> bool {
        self.gateway == Gateway::Two
    }

    async fn attempt(&self, dispatch: &Dispatch) -> Attempted {
        let gateway = self.gateway;
        let (manner, message_id) = {
            let mut state = self.seat.lock();
            let manner = begin(&mut state, self.seat.node, gateway, dispatch);
            let newest = state.gateways.handovers.last();
            (manner, newest.map(|handover| handover.message_id.clone()))
        };
        match manner {
            Manner::Takes(ms) => sleep(Duration::from_millis(ms.into())).await,
            Manner::TakesLate(ms) => {
                let (world, late) = (self.seat.world.clone(), dispatch.clone());
                tokio::spawn(async move {
                    sleep(Duration::from_millis(ms.into())).await;
                    take(&mut world.lock(), gateway, &late);
                });
                return std::future::pending().await;
            }
            _ => {}
        }
        let answered = self.seat.call(Peer::Gateway, LIMIT, |state| {
            if matches!(manner, Manner::Takes(_) | Manner::TakesUnheard) {
                take(state, gateway, dispatch);
            }
        });
        let answered = answered.await;
        let class = match (answered, manner) {
            (Err(Failed::Refused | Failed::Returned), _) => AttemptClass::Transient,
            (Err(Failed::NoAnswer), _)
            | (_, Manner::TakesUnheard | Manner::TakesLate(_) | Manner::Breaks) => {
                AttemptClass::UnknownOutcome
            }
            (_, Manner::Takes(_)) => AttemptClass::Accepted,
            (_, Manner::Busy(_)) => AttemptClass::Transient,
            (_, Manner::Invalid) => AttemptClass::RecipientInvalid,
            (_, Manner::Blocked) => AttemptClass::RecipientBlocked,
            (_, Manner::Rejects) => AttemptClass::MessageRejected,
            (_, Manner::Unroutable) => AttemptClass::DestinationRefused,
            (_, Manner::Misconfigured) => AttemptClass::ConfigFault,
        };
        let mut attempted = Attempted::new(class, "simulated");
        if let Manner::Busy(rest) = manner {
            attempted.retry_after = (rest > 0).then(|| Duration::from_secs(rest.into()));
        }
        if class == AttemptClass::Accepted {
            attempted.provider_message_id = message_id;
            let mut state = self.seat.lock();
            let heard = &mut state.gateways.heard;
            *heard.entry(dispatch.delivery_id.clone()).or_default() += 1;
        }
        attempted
    }
}
