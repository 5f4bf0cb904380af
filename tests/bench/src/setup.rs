//! Configuration of Watchword for a measurement. Every limit, event and metric is on; limits are
//! high enough for the load.

use std::fmt::Write;

use watchword_tests::Settings;

use crate::peers::Peers;
use crate::provider::Provider;
use crate::system::ALL;

/// Settings that differ between measurements.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Roles to start, each as a process; `all` is one process with all roles.
    pub roles: &'static [&'static str],
    /// Whether to use the embedded engine.
    pub is_embedded: bool,
    /// `sms` or `email`.
    pub channel: &'static str,
    /// Code lifetime.
    pub lifetime_seconds: u32,
    /// Maximum number of messages that an SMS worker has in flight.
    pub concurrency: u16,
    /// Number of SMS providers, each with a route; the last route matches all recipients of the
    /// load.
    pub providers: u32,
    /// Port of the mail relay.
    pub relay: u16,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            roles: &[ALL],
            is_embedded: false,
            channel: "sms",
            lifetime_seconds: 300,
            concurrency: 256,
            providers: 1,
            // The discard port: no relay runs.
            relay: 9,
        }
    }
}

impl Setup {
    /// Returns the settings, with `provider` behind every SMS provider.
    pub fn settings(&self, peers: &Peers, provider: &Provider) -> Settings {
        let mut settings = if self.is_embedded {
            Settings::embedded()
        } else {
            Settings::distributed(&peers.broker.url(), &peers.store.url())
        };
        settings.service = format!(
            "[services.test.policy]\nlifetime_seconds = {}\n\
             [services.test.limits]\nservice_per_minute = 10000000",
            self.lifetime_seconds
        );
        let mut text = format!("[sms]\nconcurrency = {}\n", self.concurrency);
        for number in 1..=self.providers {
            let _ = write!(
                text,
                "[sms.providers.bench{number}]\nkind = \"http\"\nsender = \"Test\"\n\
                 [sms.providers.bench{number}.request]\nmethod = \"POST\"\n\
                 url = \"http://127.0.0.1:{}/messages\"\n\
                 json = {{ to = \"{{to}}\", text = \"{{text}}\", reference = \"{{message_id}}\" }}\n\
                 [sms.providers.bench{number}.response]\nid = {{ json = \"/id\" }}\n\
                 rules = [{{ status = [\"202\"], class = \"accepted\" }}]\n",
                provider.port()
            );
        }
        for number in 1..=self.providers {
            // No recipient of the load has this prefix; the last route has none and matches all.
            let prefix = format!("prefixes = [\"+44{}\"]\n", 7_000 + number);
            let prefix = if number == self.providers {
                ""
            } else {
                &prefix
            };
            let _ = write!(
                text,
                "[[sms.routes]]\n{prefix}providers = [\"bench{number}\"]\n"
            );
        }
        let _ = write!(
            text,
            "[email.providers.relay]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\n\
             tls = \"none\"\nfrom = \"Test <no-reply@mail.example.org>\"\n",
            self.relay
        );
        settings.providers = text;
        settings
    }
}
