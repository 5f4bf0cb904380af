#![doc = include_str!("../README.md")]

mod budget;
mod characters;
mod clock;
mod code;
mod email;
mod entropy;
mod ids;
mod ladder;
mod live;
mod locale;
mod mailbox;
mod number_policy;
mod numbering_plans;
mod outcome;
mod phone;
mod policy;
mod recipient;
mod sealing;
mod secret;
mod service;
mod short_tag;
mod steady;
mod trace;
mod variables;
mod verification;

pub use budget::{GuessBudget, GuessLog, SendLimits};
pub use characters::is_separator;
pub use clock::{Clock, ManualClock, Timestamp, millis};
pub use code::{Code, CodeLength, TypedCode};
pub use email::EmailAddress;
pub use entropy::{Entropy, EntropyError};
pub use ids::{
    CheckId, DeliveryId, KeyId, ProviderName, Purpose, RequestId, ServiceName, Subject, SubjectTag,
    VerificationId,
};
pub use ladder::{Ladder, Rung};
pub use live::Live;
pub use locale::Locale;
pub use number_policy::{NumberPolicy, NumberRefusal};
pub use outcome::{AttemptClass, DeliveryOutcome, ReceiptState, VerificationStatus};
pub use phone::{NumberKind, NumberPrefix, PhoneNumber, is_country};
pub use policy::{Policy, PolicyError, ResendCode};
pub use recipient::{Channel, Recipient};
pub use sealing::{Aad, SealError, Sealer, Unsealed};
pub use secret::{Key, KeyRing, SecretString};
pub use service::Service;
pub use short_tag::ShortTag;
pub use steady::SteadyTime;
pub use trace::{SpanId, TraceId, TraceParent};
pub use variables::Variables;
pub use verification::{CheckVerdict, Pending, Sending};

/// Error for a value from outside that does not have the form its type requires.
///
/// The message states the rule and never quotes the value, because it goes to logs and callers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}")]
pub struct Malformed {
    rule: &'static str,
}

impl Malformed {
    /// Creates an error that states `rule`.
    pub const fn new(rule: &'static str) -> Self {
        Self { rule }
    }

    /// Returns the rule that the value broke.
    pub const fn rule(&self) -> &'static str {
        self.rule
    }
}
