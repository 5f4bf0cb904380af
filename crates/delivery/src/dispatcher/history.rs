//! Earlier attempts of a delivery: how many have an unknown outcome, which provider would recognize
//! a repeat, and which refused the destination. [`crate::decision`] uses them.

use watchword_broker::Received;
use watchword_core::{AttemptClass, ProviderName};
use watchword_events::Order;
use watchword_ledger::{Attempt, LedgerError};

use super::Dispatcher;
use crate::route::Router;

impl Dispatcher {
    /// Returns the earlier attempts. The ledger is not asked for a message's first delivery, which
    /// has none, or with a single provider, where they make no difference.
    pub(super) async fn history(
        &self,
        order: &Order,
        router: &Router,
        received: &Received,
    ) -> Result<History, LedgerError> {
        if (received.retries == 0 && !received.redelivered) || router.providers().len() < 2 {
            return Ok(History::default());
        }
        let id = std::slice::from_ref(&order.delivery_id);
        let records = self.parts.ledger.get(id).await?;
        let attempts = records.iter().flat_map(|record| &record.attempts);
        Ok(History::of(attempts.map(tried_as), router))
    }
}

/// The earlier attempts as they matter for the next one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct History {
    /// Attempts of unknown outcome if another provider gets the message now. A provider that
    /// recognizes a repeat counts once for all its consecutive attempts; any other counts for each
    /// attempt.
    pub(super) elsewhere: u32,
    /// The index of the last provider, if it may have the message and would recognize a repeat.
    pub(super) knows: Option<usize>,
    /// Indexes of providers that do not deliver to this destination. They are not called again for
    /// this delivery.
    pub(super) refused: Vec<usize>,
}

impl History {
    /// Summarizes `attempts`, each with its provider. An attempt during which a worker crashed has
    /// none.
    pub(super) fn of<'a>(
        attempts: impl Iterator<Item = (Option<&'a ProviderName>, AttemptClass)>,
        router: &Router,
    ) -> Self {
        let mut history = Self::default();
        let mut last = None;
        for (provider, class) in attempts {
            if last != Some(provider) {
                history.knows = None;
                last = Some(provider);
            }
            let place = provider.and_then(|name| router.place(name));
            if class == AttemptClass::DestinationRefused {
                history.knows = None;
                history.refused.extend(place);
            }
            if class != AttemptClass::UnknownOutcome || history.knows.is_some() {
                continue;
            }
            history.elsewhere += 1;
            history.knows = place.filter(|place| router.providers()[*place].is_idempotent());
        }
        history
    }

    /// Returns whether only the provider in `knows` may get the message, because another one would
    /// exceed `most` attempts of unknown outcome.
    pub(super) fn bind(&self, most: u32) -> bool {
        self.knows.is_some() && self.elsewhere > most
    }
}

/// Returns an attempt's provider and its class.
pub(super) fn tried_as(attempt: &Attempt) -> (Option<&ProviderName>, AttemptClass) {
    (attempt.provider.as_ref(), attempt.class)
}

#[cfg(test)]
mod tests {
    use watchword_core::Timestamp;

    use super::*;
    use crate::route::tests::{providers, route};

    fn unknowns(attempts: &[(&str, AttemptClass)]) -> (u32, bool) {
        let names = ["plain", "knows"].map(|name| name.parse::<ProviderName>().unwrap());
        let routes = route("routes = [{ providers = [\"plain\", \"knows\"] }]");
        let providers = providers(&["plain", "knows"]);
        let router = Router::new(providers, &routes, Timestamp::from_millis(0)).unwrap();
        let attempts = attempts.iter().map(|(name, class)| {
            let name = names.iter().find(|known| known.as_str() == *name);
            (name, *class)
        });
        let history = History::of(attempts, &router);
        (history.elsewhere, history.knows == Some(1))
    }

    #[test]
    fn attempts_in_a_row_where_repeats_are_recognised_count_once() {
        use AttemptClass::{
            DestinationRefused as Refused, Transient as Busy, UnknownOutcome as Lost,
        };
        assert_eq!(unknowns(&[]), (0, false));
        assert_eq!(unknowns(&[("plain", Lost), ("plain", Lost)]), (2, false));
        assert_eq!(unknowns(&[("knows", Lost), ("knows", Lost)]), (1, true));
        // Although it is busy with the repeat, it may have the message.
        assert_eq!(unknowns(&[("knows", Lost), ("knows", Busy)]), (1, true));
        assert_eq!(unknowns(&[("knows", Busy)]), (0, false));
        let left = [("knows", Lost), ("plain", Busy)];
        assert_eq!(unknowns(&left), (1, false));
        let back = [("knows", Lost), ("plain", Lost), ("knows", Lost)];
        assert_eq!(unknowns(&back), (3, true));
        // A provider that refused the message does not have it.
        assert_eq!(unknowns(&[("knows", Lost), ("knows", Refused)]), (1, false));
        // A crash leaves no provider name.
        let crashed = [("", Lost), ("", Lost), ("knows", Busy)];
        assert_eq!(unknowns(&crashed), (2, false));
    }

    #[test]
    fn another_provider_is_one_attempt_more() {
        let open = History {
            elsewhere: 1,
            knows: Some(1),
            refused: Vec::new(),
        };
        assert!(open.bind(0) && !open.bind(1));
        let left = History {
            elsewhere: 3,
            ..History::default()
        };
        assert!(!left.bind(0));
    }
}
