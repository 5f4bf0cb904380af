//! Checks of gateways and relays: connection and, if it can be tested without a message, login.

use std::sync::Arc;

use tokio::time::timeout;
use watchword_chassis::SystemClock;
use watchword_core::{AttemptClass, Channel, Clock};
use watchword_delivery::{Attempted, Inbox, Provider};
use watchword_dial::TlsFault;
use watchword_email_worker::{DkimRecord, EmailProviderConfig, SmtpConfig};

use super::Findings;
use crate::channels;
use crate::config::Config;
use crate::needs::Needs;

pub(super) async fn look(config: &Config, needs: Needs, findings: &mut Findings) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let needed = Channel::ALL
        .into_iter()
        .filter(|channel| needs.channel(*channel));
    for channel in needed {
        match channels::build(config, channel, &Inbox::default(), &clock) {
            Ok(setup) => {
                for provider in setup.router.providers() {
                    probe(provider.as_ref(), channel, findings).await;
                }
            }
            Err(error) => findings.careful(channel.as_str(), format!("is disabled: {error}")),
        }
    }
    if needs.email {
        for (name, provider) in config.email.iter().flat_map(|email| &email.providers) {
            if let EmailProviderConfig::Smtp(relay) = provider {
                look_at_relay(&format!("email {name}"), relay, findings);
            }
        }
    }
}

/// Checks the settings of a relay by which receiving servers judge mail: EHLO name and DKIM.
fn look_at_relay(about: &str, relay: &SmtpConfig, findings: &mut Findings) {
    if !relay.has_full_hello() {
        findings.careful(
            about,
            "EHLO has no fully qualified name, which strict relays refuse: set `hello = \"otp.example.org\"` at this provider",
        );
    }
    for key in &relay.dkim {
        // A key that cannot be read was already reported with the channel.
        if let Ok(DkimRecord { name, text }) = key.dns_record() {
            findings.fine(
                about,
                format!("`dig +short TXT {name}` must show its DKIM record: \"{text}\""),
            );
        }
    }
}

async fn probe(provider: &dyn Provider, channel: Channel, findings: &mut Findings) {
    let about = format!("{channel} {}", provider.name());
    let late = || Attempted::new(AttemptClass::Transient, "timeout");
    let probed = timeout(provider.attempt_limit(), provider.probe())
        .await
        .unwrap_or_else(|_| Err(late()));
    let Attempted { class, reason, .. } = match probed {
        Ok(proven) => return findings.fine(&about, proven),
        Err(attempted) => attempted,
    };
    let name = provider.name();
    let what = match (TlsFault::in_reason(&reason), class) {
        (Some(fault), _) => format!("TLS failed ({reason}): {}", fault.advice()),
        (None, AttemptClass::ConfigFault) => format!(
            "it rejects the login or the configuration ({reason}): correct its secrets, then run `watchword provider test {name}`"
        ),
        (None, _) => format!(
            "it cannot be reached ({reason}): is its address right, and does the firewall allow outgoing connections?"
        ),
    };
    findings.wrong(&about, what);
}
