//! The parts of the configuration that a process needs. It reads those and no more: a key or a
//! secret that a role does not use may be missing, or lie where the process cannot read it.

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
    /// A link to the broker. A process that only checks codes has none: it works while the broker
    /// is away.
    pub queues: bool,
    /// Keys.
    pub keys: KeyNeeds,
    /// The SMS providers, with their secrets.
    pub sms: bool,
    /// The relays, with their secrets.
    pub email: bool,
    /// The texts of both channels, which an issuer renders for each request.
    pub texts: bool,
}

impl Needs {
    /// Everything.
    pub const ALL: Self = Self {
        queues: true,
        keys: KeyNeeds::ALL,
        texts: true,
        ..Self::PROVIDERS
    };

    /// `watchword provider` needs the providers.
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

    /// `watchword audit` and `watchword dead-letters` need the queues.
    pub const QUEUES: Self = Self {
        queues: true,
        sms: false,
        email: false,
        ..Self::PROVIDERS
    };

    /// `watchword unlock`, `find` and `cancel` need the parts that a verifier needs.
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

    /// A command that reads the store needs no secret but the store's.
    pub const STORE: Self = Self {
        queues: false,
        ..Self::QUEUES
    };

    /// Returns the needs of a process with these `roles`; no role means all.
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

    /// Whether the store is needed: by every role, and by the commands that ask it.
    pub const fn store(self) -> bool {
        self.queues || self.keys.index
    }

    /// Whether the texts of `channel` are needed: by the worker that sends them, or by the issuer.
    pub const fn texts(self, channel: Channel) -> bool {
        self.texts || self.channel(channel)
    }

    /// The parts of the configuration whose files are left alone.
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
