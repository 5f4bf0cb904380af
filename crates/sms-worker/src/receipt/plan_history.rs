//! Receipt plans of the current configuration and, for a grace period after a reload, of earlier
//! ones, so that a gateway may still sign with its previous secret.

use std::collections::BTreeMap;
use std::sync::Arc;

use watchword_core::{ProviderName, Timestamp};
use watchword_events::ReceiptReceived;

use super::{Call, ReceiptPlan, Refusal};

type Plans = BTreeMap<ProviderName, Arc<ReceiptPlan>>;

/// Maximum number of earlier configurations to keep, which bounds memory and the work for a forged
/// call when the file is reloaded often.
const KEPT: usize = 16;

/// Receipt plans by provider.
pub struct ReceiptPlans {
    now: Plans,
    /// Earlier plans with the end of their grace period, newest last.
    before: Vec<(Plans, Timestamp)>,
}

impl ReceiptPlans {
    /// Creates the plans of a configuration, without earlier ones.
    pub const fn new(plans: Plans) -> Self {
        Self {
            now: plans,
            before: Vec::new(),
        }
    }

    /// Returns the plans of the configuration that replaces this one at `now`. Earlier secrets stay
    /// valid for `grace_minutes`; 0 revokes them at once.
    #[must_use]
    pub fn followed_by(&self, plans: Plans, now: Timestamp, grace_minutes: u64) -> Self {
        let end = now.plus_millis(grace_minutes.saturating_mul(60_000));
        let earlier = self.before.iter().cloned();
        let mut before: Vec<_> = earlier
            .chain([(self.now.clone(), end)])
            .map(|(plans, until)| (plans, until.min(end)))
            .filter(|(_, until)| now < *until)
            .collect();
        before.drain(..before.len().saturating_sub(KEPT));
        Self { now: plans, before }
    }

    /// Whether receipts of `provider` are accepted.
    pub fn has(&self, provider: &ProviderName) -> bool {
        self.now.contains_key(provider)
    }

    /// Verifies `call` as one of `provider` and returns its receipts.
    pub fn read(
        &self,
        provider: &ProviderName,
        call: &Call<'_>,
    ) -> Result<Vec<ReceiptReceived>, Refusal> {
        let plan = self.now.get(provider).ok_or(Refusal::Forged)?;
        let mut read = plan.read(call);
        for (plans, until) in self.before.iter().rev() {
            if !matches!(read, Err(Refusal::Forged)) {
                break;
            }
            if let Some(earlier) = plans.get(provider).filter(|_| call.now < *until) {
                read = earlier.read(call);
            }
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;
    use crate::config::Secrets;

    fn plans(secret: &str) -> Plans {
        let config = toml::from_str(
            r#"
            verify = { kind = "basic", username = "u", secret = "s" }
            reference = "/query/d"
            state = "/query/s"
            states = { ok = "delivered" }"#,
        )
        .unwrap();
        let name: ProviderName = "acme".parse().unwrap();
        let secrets = Secrets::of(&[("s", secret)]);
        let plan = ReceiptPlan::compile(name.clone(), &config, &secrets).unwrap();
        Plans::from([(name, Arc::new(plan))])
    }

    fn is_taken(plans: &ReceiptPlans, secret: &str, now: Timestamp) -> bool {
        let pair = data_encoding::BASE64.encode(format!("u:{secret}").as_bytes());
        let value = format!("Basic {pair}").parse().unwrap();
        let call = Call {
            method: &Method::GET,
            url: "https://otp.example.org/",
            headers: &HeaderMap::from_iter([(http::header::AUTHORIZATION, value)]),
            query: &[],
            body: b"",
            now,
        };
        plans.read(&"acme".parse().unwrap(), &call).is_ok()
    }

    #[test]
    fn an_earlier_secret_is_good_for_its_grace_and_not_at_all_without() {
        let at = |minutes: u64| Timestamp::from_millis(0).plus_millis(minutes * 60_000);
        let first = ReceiptPlans::new(plans("secret-one"));
        let second = first.followed_by(plans("secret-two"), at(0), 15);
        for (now, taken) in [(at(0), true), (at(14), true), (at(15), false)] {
            assert_eq!(is_taken(&second, "secret-one", now), taken);
            assert!(is_taken(&second, "secret-two", now));
        }
        let third = second.followed_by(plans("secret-three"), at(1), 0);
        for earlier in ["secret-one", "secret-two"] {
            assert!(!is_taken(&third, earlier, at(1)), "{earlier}");
        }
        assert!(is_taken(&third, "secret-three", at(1)));
    }
}
