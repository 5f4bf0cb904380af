//! Whose receipts are taken: the receivers of the configuration and, for a while after it was read
//! anew, those of the one before, so that a gateway may go on signing with the secret it had.

use std::collections::BTreeMap;
use std::sync::Arc;

use watchword_core::{ProviderName, Timestamp};
use watchword_events::ReceiptReceived;

use super::{Call, ReceiptPlan, Refusal};

/// How long an earlier secret is good for.
const GRACE_MS: u64 = 15 * 60_000;

type Plans = BTreeMap<ProviderName, Arc<ReceiptPlan>>;

/// The receivers, by provider.
pub struct ReceiptPlans {
    now: Plans,
    before: Plans,
    until: Timestamp,
}

impl ReceiptPlans {
    /// The receivers of a configuration.
    pub const fn new(plans: Plans) -> Self {
        Self {
            now: plans,
            before: Plans::new(),
            until: Timestamp::from_millis(0),
        }
    }

    /// Those of a configuration that follows this one at `now`.
    #[must_use]
    pub fn followed_by(&self, plans: Plans, now: Timestamp) -> Self {
        Self {
            now: plans,
            before: self.now.clone(),
            until: now.plus_millis(GRACE_MS),
        }
    }

    /// Whether `provider` brings receipts.
    pub fn has(&self, provider: &ProviderName) -> bool {
        self.now.contains_key(provider)
    }

    /// The receipts in `call`, if it is from `provider`.
    pub fn read(
        &self,
        provider: &ProviderName,
        call: &Call<'_>,
    ) -> Result<Vec<ReceiptReceived>, Refusal> {
        let plan = self.now.get(provider).ok_or(Refusal::Forged)?;
        let read = plan.read(call);
        let earlier = self.before.get(provider).filter(|_| call.now < self.until);
        match (read, earlier) {
            (Err(Refusal::Forged), Some(earlier)) => earlier.read(call),
            (read, _) => read,
        }
    }
}
