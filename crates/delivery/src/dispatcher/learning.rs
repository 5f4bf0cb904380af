//! The effects of an attempt's outcome on metrics, the provider's health and the log.

use watchword_chassis::spans::{Key, Span};
use watchword_core::{AttemptClass, ProviderName, millis};

use super::Dispatcher;
use super::attempt::{CallOutcome, ClaimedJob};
use crate::health::{Seen, witness};
use crate::provider::Scope;

impl Dispatcher {
    /// Updates metrics and health with the outcome of one attempt, and logs faults that an operator
    /// can fix.
    pub(super) fn learn(&self, claimed: &ClaimedJob<'_>, call: &CallOutcome) {
        let (job, pick) = (claimed.job, &claimed.pick);
        let (attempted, took, now) = (&call.attempted, call.took, call.ended);
        let metrics = &self.parts.metrics;
        let (name, country) = (claimed.provider.name(), pick.region.country());
        let health = &job.router.health;
        health.see(&Seen {
            provider: pick.place,
            region: &pick.region,
            is_probe: pick.is_probe,
            recipient: witness(&job.order.recipient),
            class: attempted.class,
            scope: attempted.scope,
            took,
            retry_after: attempted.retry_after,
            now,
        });
        if attempted.class == AttemptClass::TextFault {
            metrics.text_faults.inc();
        } else if attempted.scope == Scope::NotCalled {
            metrics.not_called(name);
        } else {
            metrics.attempted(name, country, attempted.class, took);
            let here = health.country_level(pick.place, &pick.region, now);
            let shown = health.level(pick.place, now);
            metrics.share(name, shown, Some((country, here)));
        }
        match attempted.class {
            AttemptClass::ConfigFault => tracing::error!(
                provider = %name, reason = attempted.reason,
                "the provider refuses our account or configuration; run 'watchword provider test' and fix it",
            ),
            AttemptClass::DestinationRefused => tracing::warn!(
                provider = %name, reason = attempted.reason, country,
                "the provider does not deliver to this destination; enable it there, route it to \
                 another provider, or remove it from the service's countries",
            ),
            AttemptClass::TextFault => tracing::warn!(
                delivery_id = %job.order.delivery_id, reason = attempted.reason,
                "the text could not be rendered and no provider was called; fix the template and reload",
            ),
            _ => {}
        }
        if attempted.class == AttemptClass::Accepted {
            // Use the duration of the call, not a second reading of the clock: a clock that was set
            // in between would make an acceptance look late, or hide a late one.
            let age = call.begun.since(job.sealed_at) + took;
            metrics.age_seconds.observe(age.as_secs_f64());
            if call.begun.plus_millis(millis(took)) > job.order.deadline {
                metrics.past_deadline.inc();
            }
        }
    }
}

/// Ends the span of a call of `callee`.
pub(super) fn called(mut calling: Span, callee: Option<&ProviderName>, class: AttemptClass) {
    if let Some(callee) = callee {
        calling.say(Key::Provider, || callee.to_string());
    }
    calling.say(Key::Class, || class.to_string());
    if class != AttemptClass::Accepted {
        calling.fail();
    }
}
