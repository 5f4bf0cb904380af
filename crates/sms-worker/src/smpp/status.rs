//! Outcome classes of `command_status` values (SMPP 3.4 section 5.1.3), with overrides from the
//! configuration.

use std::collections::BTreeMap;

use watchword_chassis::config::ConfigError;
use watchword_core::AttemptClass;
use watchword_delivery::Scope;

/// The peer does not know the command: it does not regard the connection as bound.
pub(super) const INVALID_COMMAND: u32 = 0x03;
/// The peer regards the connection as bound in another mode, or as not bound.
pub(super) const INVALID_BIND: u32 = 0x04;
/// The peer asks to send more slowly.
pub(super) const THROTTLED: u32 = 0x58;

/// Overrides from `smpp.statuses`.
#[derive(Debug, Default)]
pub(super) struct Statuses(BTreeMap<u32, AttemptClass>);

impl Statuses {
    /// Reads `smpp.statuses`: `{ "0x401" = "config_fault" }`.
    pub(super) fn compile(config: &BTreeMap<String, AttemptClass>) -> Result<Self, ConfigError> {
        let mut statuses = BTreeMap::new();
        for (text, class) in config {
            let key = || format!("smpp.statuses.{text}");
            let digits = text.strip_prefix("0x");
            let status = digits.map_or_else(|| text.parse(), |hex| u32::from_str_radix(hex, 16));
            let status = status
                .ok()
                .filter(|status| *status != 0)
                .ok_or_else(|| ConfigError::new(key(), "must be a status such as 0x401, not 0"))?;
            if *class == AttemptClass::Accepted {
                return Err(ConfigError::new(key(), "only status 0 can mean accepted"));
            }
            if statuses.insert(status, *class).is_some() {
                return Err(ConfigError::new(key(), "names a status twice"));
            }
        }
        Ok(Self(statuses))
    }

    /// Returns the class of a response with `status`. A `generic_nack` means that the peer could
    /// not read the command, whatever its status. That concerns the bind, not the message, so the
    /// message is retried.
    pub(super) fn class(&self, status: u32, is_nack: bool) -> AttemptClass {
        let otherwise = if is_nack {
            AttemptClass::Transient
        } else {
            standard(status)
        };
        self.0.get(&status).copied().unwrap_or(otherwise)
    }

    /// Returns the circuit that the status counts for. The sender depends on the recipient's
    /// country, so by default only a refusal of the bind's credentials counts for the provider. The
    /// configuration may declare another status as a fault of the account.
    pub(super) fn scope(&self, status: u32) -> Scope {
        match (status, self.0.get(&status)) {
            (0x0d..=0x0f, _) => Scope::Provider,
            (_, Some(AttemptClass::ConfigFault)) => Scope::Account,
            _ => Scope::Destination,
        }
    }
}

/// Returns the class by the standard. A status that says nothing about the message
/// (vendor-specific, general failures, unlisted) is `DestinationRefused`, so that the next provider
/// is tried.
const fn standard(status: u32) -> AttemptClass {
    match status {
        0 => AttemptClass::Accepted,
        // Invalid destination address.
        0x0b => AttemptClass::RecipientInvalid,
        // System error, queue full, throttled, temporary receiver error, service unavailable.
        INVALID_COMMAND | INVALID_BIND | 0x08 | 0x14 | THROTTLED | 0x64 | 0x102 => {
            AttemptClass::Transient
        }
        // Sender, bind, password, system id, service type, number types, times: the same in every
        // message.
        0x0a | 0x0d | 0x0e | 0x0f | 0x15 | 0x48..=0x51 | 0x53 | 0x61 | 0x62 | 0x100 | 0x103 => {
            AttemptClass::ConfigFault
        }
        // Lengths, TLVs, encoding. The general refusals of a receiving application (0x65, 0x66) are
        // left out because they do not name a cause.
        0x01 | 0x02 | 0xc0..=0xc4 | 0x104 => AttemptClass::MessageRejected,
        _ => AttemptClass::DestinationRefused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AttemptClass as Class;

    fn table(pairs: &[(&str, Class)]) -> Result<Statuses, ConfigError> {
        let own = |(text, class): &(&str, Class)| ((*text).to_owned(), *class);
        Statuses::compile(&pairs.iter().map(own).collect())
    }

    #[test]
    fn statuses_have_their_class() {
        let statuses = Statuses::default();
        for (status, class) in [
            (0, Class::Accepted),
            (0x01, Class::MessageRejected),
            (0x03, Class::Transient),
            (0x04, Class::Transient),
            (0x0b, Class::RecipientInvalid),
            (0x0e, Class::ConfigFault),
            (0x45, Class::DestinationRefused),
            (0x58, Class::Transient),
            (0x64, Class::Transient),
            (0x65, Class::DestinationRefused),
            (0x66, Class::DestinationRefused),
            (0xc3, Class::MessageRejected),
            (0xfe, Class::DestinationRefused),
            (0xff, Class::DestinationRefused),
            (0x400, Class::DestinationRefused),
            (0x4ff, Class::DestinationRefused),
        ] {
            assert_eq!(statuses.class(status, false), class, "{status:#x}");
        }
    }

    #[test]
    fn only_a_refusal_of_the_credentials_is_about_the_provider() {
        let statuses =
            table(&[("0x401", Class::ConfigFault), ("0x402", Class::Transient)]).unwrap();
        for status in [0x0d, 0x0e, 0x0f] {
            assert_eq!(statuses.scope(status), Scope::Provider, "{status:#x}");
        }
        for status in [
            0x0a, 0x15, 0x48, 0x51, 0x53, 0x61, 0x62, 0x100, 0x103, 0x400, 0x402,
        ] {
            assert_eq!(statuses.scope(status), Scope::Destination, "{status:#x}");
        }
        assert_eq!(statuses.scope(0x401), Scope::Account);
    }

    #[test]
    fn a_generic_nack_is_transient_unless_the_configuration_says_otherwise() {
        let statuses = table(&[("0x0b", Class::RecipientInvalid)]).unwrap();
        for status in [0x01, 0x02, 0x03, 0x08, 0x45, 0x58, 0x66, 0xff, 0x400] {
            let class = statuses.class(status, true);
            assert_eq!(class, Class::Transient, "{status:#x}");
        }
        assert_eq!(statuses.class(0x0b, true), Class::RecipientInvalid);
    }

    #[test]
    fn the_configuration_decides_first() {
        let statuses = table(&[("0x401", Class::ConfigFault), ("69", Class::Transient)]).unwrap();
        assert_eq!(statuses.class(0x401, false), Class::ConfigFault);
        assert_eq!(statuses.class(0x45, false), Class::Transient);
        assert_eq!(statuses.class(0x400, false), Class::DestinationRefused);
        for wrong in [
            &[("0", Class::Transient)][..],
            &[("0x0", Class::Transient)],
            &[("x401", Class::Transient)],
            &[("", Class::Transient)],
            &[("0x100000000", Class::Transient)],
            &[("0x401", Class::Accepted)],
            &[("0x45", Class::Transient), ("69", Class::Transient)],
        ] {
            let error = table(wrong).unwrap_err();
            assert!(error.key.starts_with("smpp.statuses."), "{error}");
        }
    }
}
