//! How ours is configured for a measurement. Every limit, event and metric is on; limits are wide
//! enough for the load.

use std::fmt::Write;

use watchword_tests::Settings;

use crate::peers::Peers;
use crate::provider::Provider;
use crate::system::ALL;

/// What is different from the usual.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The roles that are started, each as a process; `all` is one process with all of them.
    pub roles: &'static [&'static str],
    /// On the embedded engine.
    pub is_embedded: bool,
    /// `sms` or `email`.
    pub channel: &'static str,
    /// How long a code lives.
    pub lifetime_seconds: u32,
    /// Messages that an SMS worker has in work at once.
    pub concurrency: u16,
    /// SMS providers, each with a route; the last takes what the load sends.
    pub providers: u32,
    /// The port of the mail relay.
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
            // Nobody listens there.
            relay: 9,
        }
    }
}

impl Setup {
    /// The configuration, with `provider` behind every SMS provider.
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
            // Nobody of the load has a number that begins so; the last route is open.
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
