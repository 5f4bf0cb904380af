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

/// Earlier configurations that are kept: more were read in a quarter of an hour by nobody.
const KEPT: usize = 16;

/// The receivers, by provider.
pub struct ReceiptPlans {
    now: Plans,
    /// Those before, each with the end of its grace; the newest last.
    before: Vec<(Plans, Timestamp)>,
}

impl ReceiptPlans {
    /// The receivers of a configuration.
    pub const fn new(plans: Plans) -> Self {
        Self {
            now: plans,
            before: Vec::new(),
        }
    }

    /// Those of a configuration that follows this one at `now`.
    #[must_use]
    pub fn followed_by(&self, plans: Plans, now: Timestamp) -> Self {
        let ended = (self.now.clone(), now.plus_millis(GRACE_MS));
        let earlier = self.before.iter().filter(|(_, until)| now < *until);
        let mut before: Vec<_> = earlier.cloned().chain([ended]).collect();
        before.drain(..before.len().saturating_sub(KEPT));
        Self { now: plans, before }
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
