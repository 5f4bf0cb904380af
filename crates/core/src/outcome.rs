//! Closed sets of states of verifications, deliveries, attempts and receipts. Each word is at the
//! same time a value in events, a metric label and a log field.

/// Declares an enum whose variants have one name everywhere.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// All values, for metric series that start at zero.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Returns the name of the value.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// Parses a name.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)* _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words!(
    /// The status of a verification.
    VerificationStatus {
        /// The code can still be checked.
        Pending = "pending",
        /// The right code was given in time. A verification is approved at most once.
        Approved = "approved",
        /// The service canceled it.
        Canceled = "canceled",
        /// The deadline of the code passed.
        Expired = "expired",
        /// Wrong codes used up all checks.
        MaxAttemptsReached = "max_attempts_reached",
        /// The code could not be sent.
        Failed = "failed",
    }
);

words!(
    /// The state of a delivery.
    DeliveryOutcome {
        /// The message is published, or waits for a retry.
        Queued = "queued",
        /// A worker holds a claim on it.
        Sending = "sending",
        /// A provider accepted the message.
        Accepted = "accepted",
        /// A receipt says that the message arrived.
        Delivered = "delivered",
        /// No provider accepts the message, or a receipt says that it will not arrive.
        Failed = "failed",
        /// The deadline passed before a provider accepted it.
        Expired = "expired",
        /// The message could not be processed and is in a dead-letter queue.
        Parked = "parked",
    }
);

impl DeliveryOutcome {
    /// Whether no further attempt may follow.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Sending)
    }
}

words!(
    /// How a call to a provider ended, and thus what may follow.
    AttemptClass {
        /// The provider accepted the message.
        Accepted = "accepted",
        /// The address cannot receive it: no retry, no other provider.
        RecipientInvalid = "recipient_invalid",
        /// The person or the carrier blocks messages: no retry and no other provider.
        RecipientBlocked = "recipient_blocked",
        /// The provider rejects the text: no retry with this provider.
        MessageRejected = "message_rejected",
        /// A temporary fault: retry later.
        Transient = "transient",
        /// The provider does not deliver to this destination (a country, a network, a mail domain)
        /// for our account: try another provider at once, and never this one again for this
        /// delivery.
        DestinationRefused = "destination_refused",
        /// Our account or configuration is at fault, independent of the recipient: try another
        /// provider at once; without one, retry until an operator fixes it or the code expires.
        ConfigFault = "config_fault",
        /// The message may or may not have been accepted: the retry policy decides.
        UnknownOutcome = "unknown_outcome",
        /// The text could not be rendered, so no provider was called: no retry, no other provider.
        TextFault = "text_fault",
    }
);

words!(
    /// A provider's later report about a message that it accepted.
    ReceiptState {
        /// In flight: sent, buffered, or handed to the carrier.
        InFlight = "in_flight",
        /// The message did not arrive and will not.
        Failed = "failed",
        /// The validity of the message ended before it could arrive.
        Expired = "expired",
        /// The message arrived.
        Delivered = "delivered",
    }
);

impl ReceiptState {
    /// Returns the rank of the state. Receipts arrive late, twice and in any order, so the ledger
    /// applies only one of a higher rank. Nothing follows `Delivered`, and only `Delivered` can
    /// follow a failure.
    pub const fn rank(self) -> u8 {
        match self {
            Self::InFlight => 1,
            Self::Failed | Self::Expired => 2,
            Self::Delivered => 3,
        }
    }

    /// Whether no further receipt is expected.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::InFlight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip() {
        for &class in AttemptClass::ALL {
            assert_eq!(AttemptClass::from_word(class.as_str()), Some(class));
        }
        assert_eq!(DeliveryOutcome::from_word("lost"), None);
        assert_eq!(
            serde_words(VerificationStatus::MaxAttemptsReached),
            "max_attempts_reached"
        );
    }

    fn serde_words(status: VerificationStatus) -> &'static str {
        status.as_str()
    }
}
