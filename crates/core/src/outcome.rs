//! The closed sets of words for what became of a verification, a delivery and an attempt. They
//! are wire values, metric labels and log fields at once.

/// Declares an enum whose variants have one name each, everywhere.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// Every value, for series that start at zero.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The value's one name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// The value of that name.
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
        /// Its code can still be checked.
        Pending = "pending",
        /// The right code was given in time; it can never be approved again.
        Approved = "approved",
        /// The service withdrew it.
        Canceled = "canceled",
        /// Its deadline passed.
        Expired = "expired",
        /// All its checks were used up by wrong codes.
        MaxAttemptsReached = "max_attempts_reached",
        /// Its code could not be sent.
        Failed = "failed",
    }
);

words!(
    /// What became of one delivery.
    DeliveryOutcome {
        /// Published, or waiting for another attempt.
        Queued = "queued",
        /// A worker holds it.
        Sending = "sending",
        /// A provider took it.
        Accepted = "accepted",
        /// A provider said it arrived.
        Delivered = "delivered",
        /// No provider will take it.
        Failed = "failed",
        /// Its deadline passed before any provider took it.
        Expired = "expired",
        /// It could not be processed and is kept for an operator.
        Parked = "parked",
    }
);

impl DeliveryOutcome {
    /// Whether no attempt may follow.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Queued | Self::Sending)
    }
}

words!(
    /// How one call of one provider ended, and so what may follow.
    AttemptClass {
        /// The provider took the message.
        Accepted = "accepted",
        /// The address cannot get it: no retry, no other provider.
        RecipientInvalid = "recipient_invalid",
        /// The person or the carrier refuses: no retry, and never by another way.
        RecipientBlocked = "recipient_blocked",
        /// The text is refused: no retry with the same provider.
        MessageRejected = "message_rejected",
        /// Try again later.
        Transient = "transient",
        /// This provider does not deliver to this destination (a country, a network, a mail
        /// domain) for our account: another provider at once, no retry at this one.
        DestinationRefused = "destination_refused",
        /// Our account or configuration is at fault, independent of the recipient: another provider
        /// at once; without one, retries until an operator fixes it or the code ends.
        ConfigFault = "config_fault",
        /// It may or may not have been taken: retried only by policy.
        UnknownOutcome = "unknown_outcome",
        /// Our own text could not be made, so no provider was called: no retry, no other provider.
        TextFault = "text_fault",
    }
);

words!(
    /// A provider's later word on what became of a message it took.
    ReceiptState {
        /// On its way: sent, buffered, taken by the carrier.
        InFlight = "in_flight",
        /// It did not arrive and will not.
        Failed = "failed",
        /// Its validity ended before it could arrive.
        Expired = "expired",
        /// It arrived.
        Delivered = "delivered",
    }
);

impl ReceiptState {
    /// Receipts come late, twice and in any order; only one of a higher rank is heard. Nothing
    /// undoes a delivery, and a failure can only be followed by the news that it arrived after all.
    pub const fn rank(self) -> u8 {
        match self {
            Self::InFlight => 1,
            Self::Failed | Self::Expired => 2,
            Self::Delivered => 3,
        }
    }

    /// Whether no other word on the message is expected.
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
