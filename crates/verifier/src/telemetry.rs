//! What the verifier counts. Labels come from closed sets; series start at zero, those of a country
//! with its first verification.

use std::sync::Arc;
use std::time::Duration;

use watchword_core::{Channel, CheckVerdict, Recipient, VerificationStatus};
use watchword_metrics::prometheus::{Error, Histogram, IntCounter, IntCounterVec, Registry};
use watchword_metrics::{Countries, Kind, LATENCY, Maker, Series};

use crate::store::Checked;

const OPENED: Series = Series {
    name: "watchword_verifications_opened_total",
    kind: Kind::Counter,
    labels: &["channel", "country"],
    help: "Verifications whose first message was queued, by channel and the recipient's country (ISO 3166; `none` for mail). A request that a limit refused opens none. Begins with the first of a country.",
    action: "One country grows out of nothing: someone earns by your messages; take it from the service's `countries`.",
};
const APPROVED: Series = Series {
    name: "watchword_verifications_approved_total",
    kind: Kind::Counter,
    labels: &["channel"],
    help: "Verifications approved, by the channel they were opened for; a fallback step may have brought the code by another.",
    action: "Over those opened it is the share of codes that people use. It falls: messages do not arrive, or nobody waits for them.",
};
const ENDED: Series = Series {
    name: "watchword_verifications_ended_total",
    kind: Kind::Counter,
    labels: &["status"],
    help: "Verifications ended, by status. Those that ran out of time end unobserved: opened less ended less live.",
    action: "`max_attempts_reached` grows: someone guesses.",
};
const CHECKS: Series = Series {
    name: "watchword_checks_total",
    kind: Kind::Counter,
    labels: &["result"],
    help: "Checks by result: `approved`; `wrong`; `refused` were not compared (unknown, ended, expired, or a subject that may not guess); `repeated` got a stored answer; `failed` got none.",
    action: "`refused` or `wrong` grow: someone guesses, or codes come too late. `failed`: the store.",
};
const SECONDS: Series = Series {
    name: "watchword_check_seconds",
    kind: Kind::Histogram(LATENCY),
    labels: &[],
    help: "How long a check took: the store's one decision.",
    action: "Slow: compare `watchword_store_call_seconds`.",
};

/// Everything this crate counts.
pub const SERIES: &[Series] = &[OPENED, APPROVED, ENDED, CHECKS, SECONDS];

const ENDINGS: [VerificationStatus; 3] = [
    VerificationStatus::Approved,
    VerificationStatus::Canceled,
    VerificationStatus::MaxAttemptsReached,
];

/// Counters of the verifier; cheap to clone.
#[derive(Debug, Clone)]
pub struct VerifierMetrics(Arc<Handles>);

#[derive(Debug)]
struct Handles {
    opened: IntCounterVec,
    opened_in: [Countries<IntCounter>; Channel::ALL.len()],
    approved: [IntCounter; Channel::ALL.len()],
    /// Approved, canceled, used up.
    ended: [IntCounter; ENDINGS.len()],
    checks: Checks,
    seconds: Histogram,
}

#[derive(Debug)]
struct Checks {
    approved: IntCounter,
    wrong: IntCounter,
    refused: IntCounter,
    repeated: IntCounter,
    failed: IntCounter,
}

impl VerifierMetrics {
    /// Registers the counters.
    pub fn register(registry: &Registry) -> Result<Self, Error> {
        let make = Maker::new(registry);
        let approved = make.counters(&APPROVED)?;
        let ended = make.counters(&ENDED)?;
        let checks = make.counters(&CHECKS)?;
        Ok(Self(Arc::new(Handles {
            opened: make.counters(&OPENED)?,
            opened_in: Channel::ALL.map(|_| Countries::default()),
            approved: Channel::ALL.map(|channel| approved.with_label_values(&[channel.as_str()])),
            ended: ENDINGS.map(|status| ended.with_label_values(&[status.as_str()])),
            checks: Checks {
                approved: checks.with_label_values(&["approved"]),
                wrong: checks.with_label_values(&["wrong"]),
                refused: checks.with_label_values(&["refused"]),
                repeated: checks.with_label_values(&["repeated"]),
                failed: checks.with_label_values(&["failed"]),
            },
            seconds: make.histogram(&SECONDS)?,
        })))
    }

    pub(crate) fn opened(&self, recipient: &Recipient) {
        let channel = recipient.channel();
        let country = match recipient {
            Recipient::Sms(number) => number.country().unwrap_or_default(),
            Recipient::Email(_) => "",
        };
        let counter = self.0.opened_in[channel as usize].of(country, |country| {
            let labels = [channel.as_str(), country];
            self.0.opened.with_label_values(&labels)
        });
        counter.inc();
    }

    pub(crate) fn canceled(&self, status: VerificationStatus) {
        if status == VerificationStatus::Canceled {
            self.0.ended[1].inc();
        }
    }

    /// A check has ended, with an answer or without.
    pub(crate) fn checked<E>(&self, checked: &Result<Checked, E>, took: Duration) {
        let checks = &self.0.checks;
        self.0.seconds.observe(took.as_secs_f64());
        let Ok(checked) = checked else {
            checks.failed.inc();
            return;
        };
        match checked.verdict {
            _ if checked.repeated => checks.repeated.inc(),
            CheckVerdict::Approved => {
                checks.approved.inc();
                self.0.ended[0].inc();
                if let Some(approval) = &checked.approval {
                    self.0.approved[approval.channel as usize].inc();
                }
            }
            CheckVerdict::Wrong => checks.wrong.inc(),
            CheckVerdict::LastWrong => {
                checks.wrong.inc();
                self.0.ended[2].inc();
            }
            CheckVerdict::Refused => checks.refused.inc(),
        }
    }
}
