//! The series of the admin API. Labels come from closed sets.

use watchword_chassis::Problem;
use watchword_metrics::prometheus::{Error, IntCounterVec, Registry};
use watchword_metrics::{Kind, Maker, Series};

use crate::http::Action;

const REQUESTS: Series = Series {
    name: "watchword_admin_requests_total",
    kind: Kind::Counter,
    labels: &["action", "result"],
    help: "Requests of the admin API by action and result: `ok`, or the code of the problem; `none` is a request without a known key.",
    action: "`unauthorized` growing: someone tries keys; is the listener reachable from where it should not be? `too_many_requests`: a script asks too fast. Who did what stands in the audit trail, `watchword audit-trail`.",
};

/// Everything this crate counts.
pub const SERIES: &[Series] = &[REQUESTS];

/// Counters of the admin API; cheap to clone.
#[derive(Debug, Clone)]
pub struct AdminMetrics(IntCounterVec);

impl AdminMetrics {
    /// Registers the counter; the actions start at zero.
    pub fn register(registry: &Registry) -> Result<Self, Error> {
        let requests = Maker::new(registry).counters(&REQUESTS)?;
        for action in Action::ALL {
            requests.with_label_values(&[action.as_str(), "ok"]);
        }
        requests.with_label_values(&["none", "unauthorized"]);
        Ok(Self(requests))
    }

    pub(crate) fn answered(&self, action: Option<Action>, problem: Option<&Problem>) {
        let action = action.map_or("none", Action::as_str);
        let result = problem.map_or("ok", |problem| problem.code.as_str());
        self.0.with_label_values(&[action, result]).inc();
    }
}
