//! The recipient of a code: a channel and an address of that channel.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{EmailAddress, Malformed, PhoneNumber};

/// A way to deliver a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// Text message to a phone number.
    Sms,
    /// Mail to an email address.
    Email,
}

impl Channel {
    /// All channels, for tables and topologies.
    pub const ALL: [Self; 2] = [Self::Sms, Self::Email];

    /// Returns the channel's name in events, config and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sms => "sms",
            Self::Email => "email",
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Channel {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        Self::ALL
            .into_iter()
            .find(|channel| channel.as_str() == text)
            .ok_or(Malformed::new("a channel is sms or email"))
    }
}

/// An address on its channel. `Display` and `Debug` mask it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Recipient {
    /// A phone number.
    Sms(PhoneNumber),
    /// An email address.
    Email(EmailAddress),
}

impl Recipient {
    /// Parses `text` as an address of `channel`.
    pub fn parse(channel: Channel, text: &str) -> Result<Self, Malformed> {
        match channel {
            Channel::Sms => text.parse().map(Self::Sms),
            Channel::Email => text.parse().map(Self::Email),
        }
    }

    /// Restores an address that was parsed before; `country` is the country found at that time.
    pub fn known(channel: Channel, text: &str, country: Option<&str>) -> Result<Self, Malformed> {
        match (channel, country) {
            (Channel::Sms, Some(country)) => PhoneNumber::known(text, country).map(Self::Sms),
            _ => Self::parse(channel, text),
        }
    }

    /// Returns the ISO 3166 country of a phone number, if the numbering plans know it.
    pub fn country(&self) -> Option<&str> {
        match self {
            Self::Sms(number) => number.country(),
            Self::Email(_) => None,
        }
    }

    /// Returns the channel of the address.
    pub const fn channel(&self) -> Channel {
        match self {
            Self::Sms(_) => Channel::Sms,
            Self::Email(_) => Channel::Email,
        }
    }

    /// Returns the full address, for hashing, sealing and sending.
    pub fn expose(&self) -> &str {
        match self {
            Self::Sms(number) => number.expose(),
            Self::Email(address) => address.expose(),
        }
    }

    /// Returns the address as it is compared: equal for all spellings of a mailbox.
    pub fn canonical(&self) -> &str {
        match self {
            Self::Sms(number) => number.expose(),
            Self::Email(address) => address.canonical(),
        }
    }

    /// Returns the masked address, which may be shown to people.
    pub fn masked(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sms(number) => number.fmt(f),
            Self::Email(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_of_a_mailbox_are_compared_as_one() {
        for (channel, text, canonical) in [
            (Channel::Email, "jane@example.org", "jane@example.org"),
            (
                Channel::Email,
                "Jane.Doe@Example.ORG",
                "jane.doe@example.org",
            ),
            (Channel::Sms, "+4915112345678", "+4915112345678"),
        ] {
            let recipient = Recipient::parse(channel, text).unwrap();
            assert_eq!(recipient.canonical(), canonical);
            assert_eq!(recipient.expose(), text);
        }
    }

    #[test]
    fn an_address_belongs_to_its_channel() {
        assert!(Recipient::parse(Channel::Email, "+4915112345678").is_err());
        assert!(Recipient::parse(Channel::Sms, "a@example.org").is_err());
        let recipient = Recipient::parse(Channel::Sms, "+4915112345678").unwrap();
        assert_eq!(recipient.masked(), "+49*********78");
        assert_eq!(
            "fax".parse::<Channel>(),
            Err(Malformed::new("a channel is sms or email"))
        );
    }
}
