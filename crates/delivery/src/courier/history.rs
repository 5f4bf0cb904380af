//! Earlier attempts of a delivery: how many have an unknown outcome, which provider would recognise
//! a repeat, and which refused the destination. [`crate::decision`] decides by it.

use watchword_core::{AttemptClass, ProviderName};
use watchword_events::Order;
use watchword_ledger::{Attempt, LedgerError};

use super::{Courier, Letter};
use crate::route::Router;

impl Courier {
    /// What was tried before. A message that comes for the first time has nothing, and where there
    /// is no choice it does not matter.
    pub(super) async fn history(
        &self,
        order: &Order,
        router: &Router,
        letter: &Letter,
    ) -> Result<History, LedgerError> {
        if (letter.retries == 0 && !letter.redelivered) || router.providers().len() < 2 {
            return Ok(History::default());
        }
        let id = std::slice::from_ref(&order.delivery_id);
        let records = self.parts.ledger.get(id).await?;
        let attempts = records.iter().flat_map(|record| &record.attempts);
        Ok(History::of(attempts.map(tried_as), router))
    }
}

/// The meaning of earlier attempts for the next one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct History {
    /// How many there are if another provider gets the message now. One that recognises a repeat
    /// counts once for all its attempts in a row, any other for each of them.
    pub(super) elsewhere: u32,
    /// The place of the last provider, if it may have the message and would recognise a repeat.
    pub(super) knows: Option<usize>,
    /// The places of providers that do not deliver to this destination: never called again.
    pub(super) refused: Vec<usize>,
}

impl History {
    /// Of these attempts, each with its provider; a crash leaves one without.
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

    /// Whether the provider that knows is the only one that may get it: with another there would be
    /// more than `most`.
    pub(super) fn bind(&self, most: u32) -> bool {
        self.knows.is_some() && self.elsewhere > most
    }
}

/// An attempt's provider, and how it ended.
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
        // Busy with the repeat, it may have the message all the same.
        assert_eq!(unknowns(&[("knows", Lost), ("knows", Busy)]), (1, true));
        assert_eq!(unknowns(&[("knows", Busy)]), (0, false));
        let left = [("knows", Lost), ("plain", Busy)];
        assert_eq!(unknowns(&left), (1, false));
        let back = [("knows", Lost), ("plain", Lost), ("knows", Lost)];
        assert_eq!(unknowns(&back), (3, true));
        // A provider that refused the message does not have it.
        assert_eq!(unknowns(&[("knows", Lost), ("knows", Refused)]), (1, false));
        // A crash leaves no name.
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
