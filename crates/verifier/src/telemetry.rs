//! Metrics of checks and verifications. Labels come from closed sets; series start at zero, those
//! of a country with its first verification.

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
    help: "Verifications whose first message was queued, by channel and the recipient's country (ISO 3166; `none` for mail). A request that a limit refused opens none. A series starts with the first verification of its country.",
    action: "If a single country grows suddenly, it is probably SMS pumping fraud; remove it from the service's `countries`.",
};
const APPROVED: Series = Series {
    name: "watchword_verifications_approved_total",
    kind: Kind::Counter,
    labels: &["channel"],
    help: "Verifications approved, by the channel they were opened for; a fallback step may have sent the code by another.",
    action: "Approved / opened is the conversion rate. A drop means that messages do not arrive or that users give up.",
};
const ENDED: Series = Series {
    name: "watchword_verifications_ended_total",
    kind: Kind::Counter,
    labels: &["status"],
    help: "Verifications ended, by status. Expired ones are not counted: they are opened - ended - live.",
    action: "`max_attempts_reached` growing: someone is guessing codes.",
};
const CHECKS: Series = Series {
    name: "watchword_checks_total",
    kind: Kind::Counter,
    labels: &["result"],
    help: "Checks by result: `approved`; `wrong`; `refused` not compared (unknown, ended, expired, or the subject is locked); `repeated` got the stored result; `failed` got no result.",
    action: "`refused` or `wrong` growing: someone is guessing, or codes arrive too late. `failed`: check the store.",
};
const SECONDS: Series = Series {
    name: "watchword_check_seconds",
    kind: Kind::Histogram(LATENCY),
    labels: &[],
    help: "Duration of checks: one decision of the store.",
    action: "Slow: compare `watchword_store_call_seconds`.",
};

/// All metrics of this crate.
pub const SERIES: &[Series] = &[OPENED, APPROVED, ENDED, CHECKS, SECONDS];

const ENDINGS: [VerificationStatus; 3] = [
    VerificationStatus::Approved,
    VerificationStatus::Canceled,
    VerificationStatus::MaxAttemptsReached,
];

/// Metrics of the verifier; cheap to clone.
#[derive(Debug, Clone)]
pub struct VerifierMetrics(Arc<Handles>);

#[derive(Debug)]
struct Handles {
    opened: IntCounterVec,
    opened_in: [Countries<IntCounter>; Channel::ALL.len()],
    approved: [IntCounter; Channel::ALL.len()],
    /// By [`ENDINGS`].
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
    /// Registers the metrics.
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

    /// Counts a check, with or without a result.
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
