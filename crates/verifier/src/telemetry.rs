//! What the verifier counts. Labels come from closed sets; series start at zero.

use prometheus::{IntCounterVec, Opts, Registry};
use watchword_core::{Channel, CheckVerdict, VerificationStatus};

use crate::store::Checked;

/// Counters of the verifier.
#[derive(Debug, Clone)]
pub struct VerifierMetrics {
    opened: IntCounterVec,
    ended: IntCounterVec,
    checks: IntCounterVec,
}

const CHECK_RESULTS: [&str; 4] = ["approved", "wrong", "refused", "repeated"];
const ENDINGS: [VerificationStatus; 3] = [
    VerificationStatus::Approved,
    VerificationStatus::Canceled,
    VerificationStatus::MaxAttemptsReached,
];

impl VerifierMetrics {
    /// Registers the counters.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, label: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let opened = counter(
            "watchword_verifications_opened_total",
            "Verifications opened, by channel.",
            "channel",
        )?;
        let ended = counter(
            "watchword_verifications_ended_total",
            "Verifications ended, by status. Those that ran out of time end unobserved: \
             opened less ended less live.",
            "status",
        )?;
        let checks = counter(
            "watchword_checks_total",
            "Checks by result: refused ones were not compared, repeated ones got a stored answer.",
            "result",
        )?;
        for channel in Channel::ALL {
            opened.with_label_values(&[channel.as_str()]);
        }
        for status in ENDINGS {
            ended.with_label_values(&[status.as_str()]);
        }
        for result in CHECK_RESULTS {
            checks.with_label_values(&[result]);
        }
        Ok(Self {
            opened,
            ended,
            checks,
        })
    }

    pub(crate) fn opened(&self, channel: Channel) {
        self.opened.with_label_values(&[channel.as_str()]).inc();
    }

    pub(crate) fn canceled(&self, status: VerificationStatus) {
        if status == VerificationStatus::Canceled {
            self.ended.with_label_values(&[status.as_str()]).inc();
        }
    }

    pub(crate) fn checked(&self, checked: &Checked) {
        let result = match checked.verdict {
            _ if checked.repeated => "repeated",
            CheckVerdict::Approved => "approved",
            CheckVerdict::Wrong | CheckVerdict::LastWrong => "wrong",
            CheckVerdict::Refused => "refused",
        };
        self.checks.with_label_values(&[result]).inc();
        let ending = match checked.verdict {
            _ if checked.repeated => None,
            CheckVerdict::Approved => Some(VerificationStatus::Approved),
            CheckVerdict::LastWrong => Some(VerificationStatus::MaxAttemptsReached),
            CheckVerdict::Wrong | CheckVerdict::Refused => None,
        };
        if let Some(status) = ending {
            self.ended.with_label_values(&[status.as_str()]).inc();
        }
    }
}
