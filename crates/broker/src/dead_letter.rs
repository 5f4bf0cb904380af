//! The reasons for dead-lettering a message.

use watchword_core::SealError;
use watchword_events::{DecodeError, OrderError};

/// Declares the reasons, each with its word.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $word:literal,)*) => {
        /// Why a message was dead-lettered. The word of a reason is the same in the header of the
        /// message, in metric labels, in logs and in the CLI.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum DeadLetterReason {
            $($(#[$doc])* $variant,)*
        }

        impl DeadLetterReason {
            /// Returns the word of the reason.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

reasons! {
    /// The document exceeds the size limit.
    TooLarge = "too_large",
    /// The document is not a `CloudEvents` document, or its id is malformed.
    NotAnEvent = "not_an_event",
    /// The `CloudEvents` version is not 1.0.
    SpecVersion = "spec_version",
    /// The queue does not take events of this type.
    UnknownType = "unknown_type",
    /// The data does not have the shape of its type.
    BadData = "bad_data",
    /// This process has no key with the id in the seal.
    UnknownKey = "unknown_key",
    /// The sealed content was changed.
    BrokenSeal = "broken_seal",
    /// The random generator failed.
    NoEntropy = "no_entropy",
    /// The seal opened, but a field inside is malformed.
    MalformedOrder = "malformed_order",
    /// The order belongs to another channel than its queue.
    WrongChannel = "wrong_channel",
    /// No configured service has the order's service name.
    UnknownService = "unknown_service",
    /// No service has the publisher in its `broker_users`.
    UnknownUser = "unknown_user",
    /// The publisher used the request queue of another service.
    WrongQueue = "wrong_queue",
    /// The message passed its deadline in the queue.
    Expired = "expired",
    /// The message was delivered too often without being settled.
    DeliveryLimit = "delivery_limit",
    /// Processing the message panicked.
    Panic = "panic",
}

impl std::fmt::Display for DeadLetterReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<DecodeError> for DeadLetterReason {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::TooLarge => Self::TooLarge,
            DecodeError::NotAnEvent => Self::NotAnEvent,
            DecodeError::SpecVersion => Self::SpecVersion,
            DecodeError::UnknownType => Self::UnknownType,
            DecodeError::Data => Self::BadData,
        }
    }
}

impl From<OrderError> for DeadLetterReason {
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::Seal(SealError::UnknownKey) => Self::UnknownKey,
            OrderError::Seal(SealError::Broken) => Self::BrokenSeal,
            OrderError::Seal(SealError::Entropy(_)) => Self::NoEntropy,
            OrderError::Malformed => Self::MalformedOrder,
        }
    }
}
