//! Name in EHLO. Strict relays refuse a name that is not fully qualified, but only at RCPT and with
//! a code that looks like an invalid recipient.

use std::net::{Ipv4Addr, Ipv6Addr};

use watchword_chassis::config::ConfigError;

/// Address literal (RFC 5321 section 4.1.3). Loopback, because the machine's own address would
/// appear in the headers of every mail.
const LITERAL: &str = "[127.0.0.1]";

/// Returns the configured name, or [`default_hello`] if there is none.
pub(super) fn hello(configured: Option<&str>) -> Result<String, ConfigError> {
    if let Some(name) = configured {
        if is_domain(name) || is_literal(name) {
            return Ok(name.to_owned());
        }
        return Err(ConfigError::new(
            "hello",
            "must be a domain name in ASCII or an address literal: otp.example.org, [192.0.2.1]",
        ));
    }
    Ok(default_hello())
}

/// Returns the host name if it has a dot, otherwise an address literal.
pub(super) fn default_hello() -> String {
    let host = hostname::get()
        .ok()
        .and_then(|name| name.into_string().ok());
    default_name(host.as_deref())
}

fn default_name(host: Option<&str>) -> String {
    let qualified = host.filter(|name| name.contains('.') && is_domain(name));
    qualified.unwrap_or(LITERAL).to_owned()
}

fn is_domain(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

fn is_literal(name: &str) -> bool {
    let inner = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|inner| {
        inner.parse::<Ipv4Addr>().is_ok()
            || inner
                .strip_prefix("IPv6:")
                .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_without_a_dot_become_a_literal() {
        for (host, name) in [
            (Some("otp.example.org"), "otp.example.org"),
            (Some("3f2a9c1d77aa"), LITERAL),
            (Some("web_1.example.org"), LITERAL),
            (Some("a..b"), LITERAL),
            (Some("b\u{fc}cher.example"), LITERAL),
            (Some("x.y\r\nMAIL"), LITERAL),
            (None, LITERAL),
        ] {
            assert_eq!(default_name(host), name, "{host:?}");
        }
    }

    #[test]
    fn configured_names_are_checked() {
        for name in ["otp.example.org", "relay", "[192.0.2.1]", "[IPv6:::1]"] {
            assert_eq!(hello(Some(name)).unwrap(), name);
        }
        for name in [
            "",
            "a b",
            "b\u{fc}cher.example",
            "x\r\nRSET",
            "-a.example",
            "a_b.example",
            "[::1]",
            "[192.0.2]",
            "192.0.2.1]",
        ] {
            let error = hello(Some(name)).unwrap_err();
            assert!(error.to_string().contains("hello"), "{name}");
        }
    }
}
