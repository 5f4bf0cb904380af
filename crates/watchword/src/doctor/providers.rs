//! Gateways and relays: reached, and logged in where that can be tried without a message.

use std::sync::Arc;

use tokio::time::timeout;
use watchword_chassis::SystemClock;
use watchword_core::{AttemptClass, Channel, Clock};
use watchword_delivery::{Attempted, Inbox, Provider};
use watchword_email_worker::EmailProviderConfig;

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
            Err(error) => findings.careful(channel.as_str(), format!("is not sent: {error}")),
        }
    }
    for (name, provider) in config.email.iter().flat_map(|email| &email.providers) {
        if let EmailProviderConfig::Smtp(relay) = provider
            && !relay.has_full_hello()
        {
            findings.careful(
                &format!("email {name}"),
                "EHLO has no fully qualified name, which strict relays refuse: set `hello = \"otp.example.org\"` at this provider",
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
    match probed {
        Ok(proven) => findings.fine(&about, proven),
        Err(Attempted { class: AttemptClass::ConfigFault, reason, .. }) => findings
            .wrong(
                &about,
                format!("it refuses us ({reason}): mend its secrets in the configuration, `watchword provider test {}`", provider.name()),
            ),
        Err(Attempted { reason, .. }) => findings.wrong(
            &about,
            format!("it cannot be reached ({reason}): is its address right, does the network let us out, is its certificate good?"),
        ),
    }
}
