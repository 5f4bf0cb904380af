//! Where a code goes: a channel and an address of that channel. Refuses free text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{EmailAddress, Malformed, PhoneNumber};

/// A way to reach a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// Text message to a telephone number.
    Sms,
    /// Mail to an address.
    Email,
}

impl Channel {
    /// Every channel, for tables and topologies.
    pub const ALL: [Self; 2] = [Self::Sms, Self::Email];

    /// The channel's name on the wire, in config and in labels.
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

/// An address on its channel. It prints masked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Recipient {
    /// A telephone number.
    Sms(PhoneNumber),
    /// A mailbox.
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

    /// Parses what was parsed before, with the country it was found to be of then.
    pub fn known(channel: Channel, text: &str, country: Option<&str>) -> Result<Self, Malformed> {
        match (channel, country) {
            (Channel::Sms, Some(country)) => PhoneNumber::known(text, country).map(Self::Sms),
            _ => Self::parse(channel, text),
        }
    }

    /// The ISO 3166 country of a number, if the numbering plans tell one.
    pub fn country(&self) -> Option<&str> {
        match self {
            Self::Sms(number) => number.country(),
            Self::Email(_) => None,
        }
    }

    /// Which channel reaches it.
    pub const fn channel(&self) -> Channel {
        match self {
            Self::Sms(_) => Channel::Sms,
            Self::Email(_) => Channel::Email,
        }
    }

    /// The address itself, for hashing, sealing and sending.
    pub fn expose(&self) -> &str {
        match self {
            Self::Sms(number) => number.expose(),
            Self::Email(address) => address.expose(),
        }
    }

    /// The address as it may be shown.
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
