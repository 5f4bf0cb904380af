//! Scripted behavior. Outcomes have shares between 0 and 1; the rest of the messages is accepted.
//! Unknown keys are errors.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// The configuration file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimulatorConfig {
    /// Seed of the random generator; the same seed repeats a run.
    #[serde(default)]
    pub seed: u64,
    /// The SMS gateway; it does not run without this section.
    pub sms: Option<SmsBehaviour>,
    /// The SMTP relay; it does not run without this section.
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
    /// Listen address; changes take effect only at start.
    pub listen: SocketAddr,
    /// The bearer token that requests must have.
    pub token: String,
    /// The key that signs receipts.
    pub secret: String,
    /// The response time.
    pub latency: Latency,
    /// The share of messages with each outcome.
    pub outcomes: BTreeMap<Outcome, f64>,
    /// The outcome for a number, for all numbers that end with the pattern (`*0001`), or for all
    /// that begin with it (`+53*`).
    pub numbers: BTreeMap<String, Outcome>,
    /// The most messages per second; more are answered with 429.
    pub throttle_per_second: Option<u32>,
    /// Whether receipts may go to hosts other than loopback.
    pub allow_remote_callbacks: bool,
    /// The delivery receipts.
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
    /// Delay after the response.
    pub delay_ms: u64,
    /// Share of messages without receipts.
    pub lost: f64,
    /// Share of messages that fail.
    pub failed: f64,
    /// Share of messages with late receipts …
    pub late: f64,
    /// … and their additional delay.
    pub late_ms: u64,
    /// Share of messages whose last receipt is duplicated.
    pub duplicate: f64,
    /// Share of messages whose `sent` receipt arrives after the last one.
    pub reordered: f64,
    /// Share of messages whose receipts are preceded by one with the opposite status and a wrong
    /// signature.
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
    /// Listen address; changes take effect only at start.
    pub listen: SocketAddr,
    /// Delay of the reply to the final dot.
    pub latency: Latency,
    /// The share of mails with each outcome.
    pub outcomes: BTreeMap<Outcome, f64>,
    /// The outcome for an address, or for all of a domain (`*@example.net`).
    pub addresses: BTreeMap<String, Outcome>,
    /// Whether a recipient's first mail gets 450 (greylisting).
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

/// The outcome of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The message is accepted.
    Accepted,
    /// The recipient does not exist.
    RecipientInvalid,
    /// The recipient has opted out.
    RecipientBlocked,
    /// The text is rejected.
    MessageRejected,
    /// A temporary failure.
    Transient,
    /// Messages to this country or domain are refused.
    DestinationRefused,
    /// The account is suspended.
    ConfigFault,
    /// Too many requests, with `Retry-After`.
    Throttled,
    /// No response.
    Hang,
    /// The message is accepted, but the connection is closed before the response.
    DropAfterAccept,
    /// The connection is closed before the message is accepted.
    DropBeforeAccept,
}

/// A distribution of durations.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Latency {
    /// Always the same duration.
    Fixed {
        /// Duration in milliseconds.
        ms: u64,
    },
    /// Uniformly distributed.
    Uniform {
        /// Lower bound in milliseconds.
        from_ms: u64,
        /// Upper bound in milliseconds.
        to_ms: u64,
    },
    /// Log-normally distributed: mostly near the median, sometimes much longer.
    Lognormal {
        /// Median in milliseconds.
        median_ms: u64,
        /// 99th percentile in milliseconds.
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

/// Draws an outcome by shares.
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

/// Returns the outcome listed for `to`: by exact match, or by a pattern with one `*` at either end.
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
