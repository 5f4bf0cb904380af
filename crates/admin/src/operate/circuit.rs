//! The providers with their health in this process, and circuits that an operator holds.

use serde::{Deserialize, Serialize};
use watchword_chassis::{Problem, ProblemCode};
use watchword_core::{Channel, ProviderName, Timestamp};
use watchword_delivery::{ByHand, Circuit, ProviderView, hold_circuit};

use super::{OperatedChannel, Operator, elsewhere, fields};
use crate::trail::holds_address;

/// The longest time for which a circuit may be held: a day.
const LONGEST_SECONDS: u64 = 86_400;
/// The note of every change: health is local to a worker, and so is a held circuit.
const LOCAL: &str = "Applies to this worker only; set it on each worker. A held circuit ends at the \
    stated time, or when the process stops.";

/// The error of a request for a provider name that both channels use.
const SHARED: &str = "an SMS and a mail provider have this name; name the channel, sms or email \
    (--channel)";

/// The providers of the workers that this process runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvidersReport {
    /// The providers of all channels that run here.
    pub providers: Vec<ProviderReport>,
}

/// A provider with its health in this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderReport {
    /// The channel that it sends on.
    pub channel: Channel,
    /// The name in the configuration, unique within the channel.
    pub name: ProviderName,
    /// The state of its circuit breaker.
    pub circuit: Circuit,
    /// The part of its configured share that it gets, in tenths: 0 to 10.
    pub share_tenths: u8,
    /// The number of countries or mail domains that it was asked to send to.
    pub destinations: usize,
    /// The number of those whose circuit is open.
    pub destinations_open: usize,
    /// Present while an operator holds the circuit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_hand: Option<HeldCircuit>,
}

/// A circuit that an operator holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldCircuit {
    /// The held state, `open` or `closed`.
    pub state: CircuitState,
    /// When the circuit becomes automatic again, RFC 3339.
    pub until: String,
}

/// The state in which an operator holds a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CircuitState {
    /// The provider is not called.
    Open,
    /// The provider gets its full share, regardless of the outcomes of its calls.
    Closed,
    /// The outcomes of calls decide.
    Automatic,
}

/// A circuit to hold.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CircuitRequest {
    /// The channel of the provider. Needed if an SMS and a mail provider share the name.
    pub channel: Option<Channel>,
    /// The state to hold; `automatic` ends an earlier hold.
    pub state: CircuitState,
    /// How long to hold it, 1 to 86,400 s. Needed unless the state is `automatic`.
    pub for_seconds: Option<u64>,
    /// The operator's reason, for the audit trail.
    pub reason: String,
}

impl CircuitRequest {
    /// Returns the circuit and its new state as the audit trail records them.
    pub fn target(&self, name: &ProviderName) -> String {
        // The provider may not exist, so the caller could have sent anything as its name.
        let is_shown = !holds_address(name.as_str());
        let name = if is_shown { name.as_str() } else { "?" };
        let name = self
            .channel
            .map_or_else(|| name.to_owned(), |channel| format!("{channel} {name}"));
        let state = match self.state {
            CircuitState::Open => "open",
            CircuitState::Closed => "closed",
            CircuitState::Automatic => return format!("provider {name} automatic"),
        };
        let seconds = self.for_seconds.unwrap_or_default();
        format!("provider {name} {state} for {seconds} s")
    }
}

/// The provider after the change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CircuitReport {
    /// The provider with its held circuit.
    pub provider: ProviderReport,
    /// A sentence about the reach of the change: this process only.
    pub note: String,
}

impl Operator {
    /// Returns the providers of the workers of this process.
    pub fn providers(&self) -> Result<ProvidersReport, Problem> {
        if self.channels.is_empty() {
            return Err(elsewhere("an sms-worker or an email-worker"));
        }
        let now = self.clock.now();
        let of = |channel: &OperatedChannel| {
            let views = channel.router.get().views(now);
            let report = |view| report(channel.channel, view);
            views.into_iter().map(report).collect::<Vec<_>>()
        };
        Ok(ProvidersReport {
            providers: self.channels.iter().flat_map(of).collect(),
        })
    }

    /// Holds the circuit of the provider `name`, or makes it automatic again. If both channels have
    /// a provider of that name, the request must name the channel.
    pub fn hold_circuit(
        &self,
        name: &ProviderName,
        request: &CircuitRequest,
    ) -> Result<CircuitReport, Problem> {
        let now = self.clock.now();
        let held = held(request, now)?;
        if self.channels.is_empty() {
            return Err(elsewhere("an sms-worker or an email-worker"));
        }
        let unknown = || {
            let detail = "no worker of this process has a provider of this name";
            Problem::new(ProblemCode::NotFound, detail)
        };
        let channel = self
            .channel_of(name, request.channel)?
            .ok_or_else(unknown)?;
        let router = hold_circuit(&channel.router, name, held, now).ok_or_else(unknown)?;
        channel.metrics.show_shares(&router, now);
        let mut views = router.views(now).into_iter();
        let view = views.find(|view| view.name == *name).ok_or_else(unknown)?;
        Ok(CircuitReport {
            provider: report(channel.channel, view),
            note: LOCAL.to_owned(),
        })
    }

    /// Returns the channel of the provider `name`. Only `wanted` is searched if the request names a
    /// channel; otherwise a name that both channels use is an error.
    fn channel_of(
        &self,
        name: &ProviderName,
        wanted: Option<Channel>,
    ) -> Result<Option<&OperatedChannel>, Problem> {
        let fits = |one: &&OperatedChannel| {
            let router = one.router.get();
            let mut providers = router.providers().iter();
            wanted.is_none_or(|wanted| wanted == one.channel)
                && providers.any(|provider| provider.name() == name)
        };
        let mut found = self.channels.iter().filter(fits);
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => Err(fields::invalid("channel", SHARED)),
            (found, _) => Ok(found),
        }
    }
}

fn held(request: &CircuitRequest, now: Timestamp) -> Result<Option<ByHand>, Problem> {
    let is_open = match request.state {
        CircuitState::Open => true,
        CircuitState::Closed => false,
        CircuitState::Automatic => return Ok(None),
    };
    let seconds = request.for_seconds;
    let seconds = seconds.filter(|seconds| (1..=LONGEST_SECONDS).contains(seconds));
    let seconds = seconds.ok_or_else(|| fields::invalid("for_seconds", "must be 1 to 86400"))?;
    Ok(Some(ByHand {
        is_open,
        until: now.plus_millis(seconds * 1_000),
    }))
}

fn report(channel: Channel, view: ProviderView) -> ProviderReport {
    ProviderReport {
        channel,
        name: view.name,
        circuit: view.circuit,
        share_tenths: view.share_tenths,
        destinations: view.destinations,
        destinations_open: view.destinations_open,
        by_hand: view.by_hand.map(|held| HeldCircuit {
            state: if held.is_open {
                CircuitState::Open
            } else {
                CircuitState::Closed
            },
            until: held.until.to_rfc3339(),
        }),
    }
}
