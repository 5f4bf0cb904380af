//! What can be scripted. Shares are parts of one; what they leave is accepted. Refuses keys it
//! does not know.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimulatorConfig {
    /// Makes a run repeatable.
    #[serde(default)]
    pub seed: u64,
    /// The SMS gateway; without it there is none.
    pub sms: Option<SmsBehaviour>,
    /// The SMTP relay; without it there is none.
    pub smtp: Option<SmtpBehaviour>,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            sms: Some(SmsBehaviour {
                listen: SocketAddr::from(([127, 0, 0, 1], 9925)),
                ..SmsBehaviour::default()
            }),
            smtp: Some(SmtpBehaviour {
                listen: SocketAddr::from(([127, 0, 0, 1], 2525)),
                ..SmtpBehaviour::default()
            }),
        }
    }
}

/// `[sms]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SmsBehaviour {
    /// Where it listens; read at start only.
    pub listen: SocketAddr,
    /// The bearer token it wants.
    pub token: String,
    /// The key its receipts are signed with.
    pub secret: String,
    /// How long an answer takes.
    pub latency: Latency,
    /// Which part of messages has which outcome.
    pub outcomes: BTreeMap<Outcome, f64>,
    /// The outcome for a number, for all numbers that end in the pattern (`*0001`), or for all that
    /// begin with it (`+53*`).
    pub numbers: BTreeMap<String, Outcome>,
    /// Messages a second; above it 429.
    pub throttle_per_second: Option<u32>,
    /// Whether it may call back to other hosts than loopback.
    pub allow_remote_callbacks: bool,
    /// What it says later.
    pub receipts: ReceiptBehaviour,
}

impl Default for SmsBehaviour {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            token: "simulator".to_owned(),
            secret: "simulator-secret".to_owned(),
            latency: Latency::Fixed { ms: 0 },
            outcomes: BTreeMap::new(),
            numbers: BTreeMap::new(),
            throttle_per_second: None,
            allow_remote_callbacks: false,
            receipts: ReceiptBehaviour::default(),
        }
    }
}

/// `[sms.receipts]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReceiptBehaviour {
    /// How long after the answer.
    pub delay_ms: u64,
    /// Share of messages whose receipts never come.
    pub lost: f64,
    /// Share that fails.
    pub failed: f64,
    /// Share that comes late …
    pub late: f64,
    /// … by so much.
    pub late_ms: u64,
    /// Share that comes twice.
    pub duplicate: f64,
    /// Share whose `sent` comes after the last word.
    pub reordered: f64,
    /// Share that is preceded by one with a wrong signature that says the opposite.
    pub forged: f64,
}

impl Default for ReceiptBehaviour {
    fn default() -> Self {
        Self {
            delay_ms: 50,
            lost: 0.0,
            failed: 0.0,
            late: 0.0,
            late_ms: 30_000,
            duplicate: 0.0,
            reordered: 0.0,
            forged: 0.0,
        }
    }
}

/// `[smtp]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SmtpBehaviour {
    /// Where it listens; read at start only.
    pub listen: SocketAddr,
    /// How long the reply to the final dot takes.
    pub latency: Latency,
    /// Which part of mails has which outcome.
    pub outcomes: BTreeMap<Outcome, f64>,
    /// The outcome for an address, or for all of a domain (`*@example.net`).
    pub addresses: BTreeMap<String, Outcome>,
    /// Whether a recipient's first try gets 450.
    pub greylist: bool,
}

impl Default for SmtpBehaviour {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            latency: Latency::Fixed { ms: 0 },
            outcomes: BTreeMap::new(),
            addresses: BTreeMap::new(),
            greylist: false,
        }
    }
}

/// What becomes of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is taken.
    Accepted,
    /// The recipient does not exist.
    RecipientInvalid,
    /// The recipient has opted out.
    RecipientBlocked,
    /// The text is refused.
    MessageRejected,
    /// Try later.
    Transient,
    /// Messages to this country or domain are refused.
    DestinationRefused,
    /// The account is suspended.
    ConfigFault,
    /// Too many at once, with `Retry-After`.
    Throttled,
    /// No answer.
    Hang,
    /// It is taken, and the connection cut before the answer.
    DropAfterAccept,
    /// The connection is cut before it is taken.
    DropBeforeAccept,
}

/// How long something takes.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Latency {
    /// Always the same.
    Fixed {
        /// Milliseconds.
        ms: u64,
    },
    /// Between two bounds.
    Uniform {
        /// At least.
        from_ms: u64,
        /// At most.
        to_ms: u64,
    },
    /// Mostly about the median, now and then much longer.
    Lognormal {
        /// Half take less.
        median_ms: u64,
        /// One in a hundred takes more.
        p99_ms: u64,
    },
}

impl Latency {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "milliseconds of a simulation"
    )]
    pub(crate) fn draw(self, random: &mut impl Rng) -> Duration {
        let ms = match self {
            Self::Fixed { ms } => ms,
            Self::Uniform { from_ms, to_ms } => random.random_range(from_ms..=to_ms.max(from_ms)),
            Self::Lognormal { median_ms, p99_ms } => {
                // Box-Muller; 2.326 is the 99th percentile of the normal distribution.
                let (u, v): (f64, f64) = (random.random_range(1e-9..1.0), random.random());
                let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
                let spread = (p99_ms.max(1) as f64 / median_ms.max(1) as f64).ln() / 2.326;
                (median_ms as f64 * (spread * normal).exp()) as u64
            }
        };
        Duration::from_millis(ms.min(600_000))
    }
}

/// The outcome of a draw by shares.
pub(crate) fn draw(outcomes: &BTreeMap<Outcome, f64>, random: &mut impl Rng) -> Outcome {
    let mut dice: f64 = random.random();
    for (outcome, share) in outcomes {
        if dice < *share {
            return *outcome;
        }
        dice -= share;
    }
    Outcome::Accepted
}

/// The outcome listed for `to`: its own, or that of a pattern with one `*` at either end.
pub(crate) fn listed(outcomes: &BTreeMap<String, Outcome>, to: &str) -> Option<Outcome> {
    let fits = |pattern: &str| match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), _) => to.ends_with(end),
        (_, Some(start)) => to.starts_with(start),
        _ => pattern == to,
    };
    let own = outcomes.get(to);
    let own = own.or_else(|| outcomes.iter().find(|(it, _)| fits(it)).map(|(_, out)| out));
    own.copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_a_country_or_a_domain_can_have_an_outcome() {
        let outcomes = BTreeMap::from([
            ("+53*".to_owned(), Outcome::DestinationRefused),
            ("*0001".to_owned(), Outcome::RecipientInvalid),
            ("*@example.net".to_owned(), Outcome::ConfigFault),
            ("a@example.net".to_owned(), Outcome::Accepted),
        ]);
        for (to, outcome) in [
            ("+5351234567", Some(Outcome::DestinationRefused)),
            ("+4915110000001", Some(Outcome::RecipientInvalid)),
            ("b@example.net", Some(Outcome::ConfigFault)),
            ("a@example.net", Some(Outcome::Accepted)),
            ("+4915112345678", None),
        ] {
            assert_eq!(listed(&outcomes, to), outcome, "{to}");
        }
    }
}
