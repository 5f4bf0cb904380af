//! The parts of the configuration that a process needs. It reads only those: a key or a secret that
//! its roles do not use may be missing or unreadable.

use watchword_chassis::config::KeyNeeds;
use watchword_core::Channel;

use crate::cli::Role;

/// The needs of a process or a command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a part of the configuration each"
)]
pub struct Needs {
    /// A connection to the broker. A process that only checks codes needs none and works while the
    /// broker cannot be reached.
    pub queues: bool,
    /// The cryptographic keys.
    pub keys: KeyNeeds,
    /// The SMS providers, with their secrets.
    pub sms: bool,
    /// The email providers, with their secrets.
    pub email: bool,
    /// The texts of both channels, which an issuer renders for each request.
    pub texts: bool,
}

impl Needs {
    /// The needs of a process with all roles.
    pub const ALL: Self = Self {
        queues: true,
        keys: KeyNeeds::ALL,
        texts: true,
        ..Self::PROVIDERS
    };

    /// The needs of `watchword provider`.
    pub const PROVIDERS: Self = Self {
        queues: false,
        keys: KeyNeeds {
            sealing: false,
            digest: false,
            index: false,
        },
        sms: true,
        email: true,
        texts: false,
    };

    /// The needs of `watchword audit` and `watchword dead-letters`.
    pub const QUEUES: Self = Self {
        queues: true,
        sms: false,
        email: false,
        ..Self::PROVIDERS
    };

    /// The needs of `watchword unlock`, `find` and `cancel`, which are those of a verifier.
    pub const UNLOCK: Self = Self {
        queues: false,
        keys: KeyNeeds {
            sealing: false,
            ..KeyNeeds::ALL
        },
        sms: false,
        email: false,
        texts: false,
    };

    /// The needs of a command that uses no secret except that of the store.
    pub const STORE: Self = Self {
        queues: false,
        ..Self::QUEUES
    };

    /// Returns the needs of a process with these `roles`, or with all if there are none.
    pub fn of(roles: &[Role]) -> Self {
        if roles.is_empty() {
            return Self::ALL;
        }
        roles.iter().fold(Self::default(), |needs, role| {
            let issues = *role == Role::Issuer;
            let checks = *role == Role::Verifier;
            Self {
                queues: needs.queues || !checks,
                keys: KeyNeeds {
                    sealing: needs.keys.sealing || !checks,
                    digest: needs.keys.digest || issues || checks,
                    index: needs.keys.index || issues || checks,
                },
                sms: needs.sms || *role == Role::SmsWorker,
                email: needs.email || *role == Role::EmailWorker,
                texts: needs.texts || issues,
            }
        })
    }

    /// Whether the providers of `channel` are needed.
    pub const fn channel(self, channel: Channel) -> bool {
        match channel {
            Channel::Sms => self.sms,
            Channel::Email => self.email,
        }
    }

    /// Whether the configuration of the store is validated in advance: for every role, and for
    /// commands that use the queues or the index key.
    pub const fn store(self) -> bool {
        self.queues || self.keys.index
    }

    /// Whether the texts of `channel` are needed. Its worker sends them, and an issuer renders
    /// them.
    pub const fn texts(self, channel: Channel) -> bool {
        self.texts || self.channel(channel)
    }

    /// Returns the keys of the configuration whose files the process does not read.
    pub fn left_out(self) -> Vec<&'static str> {
        [
            ("keys.sealing", self.keys.sealing),
            ("keys.digest", self.keys.digest),
            ("keys.index", self.keys.index),
            ("rabbitmq", self.queues),
            ("sms", self.sms),
            ("email", self.email),
        ]
        .into_iter()
        .filter_map(|(part, is_needed)| (!is_needed).then_some(part))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_needs_its_own_part() {
        for (roles, left_out) in [
            (&[][..], &[][..]),
            (&[Role::Issuer], &["sms", "email"]),
            (
                &[Role::Verifier],
                &["keys.sealing", "rabbitmq", "sms", "email"],
            ),
            (&[Role::SmsWorker], &["keys.digest", "keys.index", "email"]),
            (&[Role::EmailWorker], &["keys.digest", "keys.index", "sms"]),
            (&[Role::Issuer, Role::Verifier], &["sms", "email"]),
            (
                &[Role::SmsWorker, Role::EmailWorker],
                &["keys.digest", "keys.index"],
            ),
            (&[Role::Verifier, Role::SmsWorker], &["email"]),
            (&Role::ALL, &[]),
        ] {
            assert_eq!(Needs::of(roles).left_out(), left_out, "{roles:?}");
        }
    }
}
