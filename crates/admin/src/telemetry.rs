//! The metrics of the admin API. All labels have a fixed set of values.

use watchword_chassis::Problem;
use watchword_metrics::prometheus::{Error, IntCounterVec, Registry};
use watchword_metrics::{Kind, Maker, Series};

use crate::http::Action;

const REQUESTS: Series = Series {
    name: "watchword_admin_requests_total",
    kind: Kind::Counter,
    labels: &["action", "result"],
    help: "Admin API requests by action and result: `ok` or the problem's code. The action `none` is a request without a known key.",
    action: "`unauthorized` grows: someone is guessing keys; check from which networks the admin listener can be reached. `too_many_requests`: a script sends too many requests. `watchword audit-trail` shows who did what.",
};

/// All series of this crate.
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
