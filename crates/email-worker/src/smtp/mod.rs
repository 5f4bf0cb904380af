//! SMTP relay as a provider. A mail uses a pooled connection if there is one. A connection returns
//! to the pool only after a mail that ended cleanly.

mod blame;
mod failure;
mod features;
mod hello;
mod link;
mod pool;
mod reply;
mod sender;
mod tls;
mod wire;

use std::time::Duration;

use async_trait::async_trait;
use lettre::message::Mailbox;
use tokio::time::{Instant, timeout_at};
use watchword_chassis::config::ConfigError;
use watchword_core::{AttemptClass, ProviderName};
use watchword_delivery::{Attempted, Dispatch, Provider, TlsPeer, attempt_limit};

use crate::config::{SmtpConfig, TlsMode};
use crate::dkim::Dkim;
use crate::message::{EmailText, MessageError};
use failure::Failure;
use link::{Dialler, Letter};
use pool::Pool;

pub(crate) use link::has_full_hello;
pub use link::starttls;

/// Time reserved before the attempt limit. At the limit the caller ends the attempt without knowing
/// the step, and a relay that is slow to greet would count as one that may have the mail.
const MARGIN: Duration = Duration::from_millis(200);
/// The dispatcher ends an attempt this long before the code expires. The provider must end earlier,
/// so that it can report the step.
const LIFE_AFTER: Duration = Duration::from_secs(1);

/// SMTP provider.
pub struct SmtpProvider {
    name: ProviderName,
    from: Mailbox,
    limit: Duration,
    dialler: Dialler,
    pool: Pool,
    tls_peer: Option<TlsPeer>,
    text: EmailText,
    dkim: Dkim,
}

impl SmtpProvider {
    /// Checks the configuration and resolves its secrets. Connections are made when there is a
    /// mail.
    pub fn new(
        name: ProviderName,
        config: &SmtpConfig,
        text: EmailText,
    ) -> Result<Self, ConfigError> {
        let limit = attempt_limit(config.timeout_seconds)?;
        if !(1..=256).contains(&config.max_connections) {
            return Err(ConfigError::new("max_connections", "must be 1 to 256"));
        }
        let from = sender::parse(&config.from)?;
        Ok(Self {
            name,
            dkim: Dkim::new(&config.dkim, from.email.domain())?,
            from,
            limit,
            dialler: Dialler::new(config)?,
            pool: Pool::new(config.max_connections),
            tls_peer: (config.tls != TlsMode::None).then(|| TlsPeer {
                host: config.host.clone(),
                port: config.port,
                starttls: config.tls == TlsMode::Starttls,
            }),
            text,
        })
    }

    async fn send(&self, letter: Letter<'_>, time: Duration) -> Result<(), Failure> {
        let begun = Instant::now();
        let deadline = begun + time;
        // Waiting for a connection sends nothing. Give it a deadline of its own, so that a busy
        // relay is a transient failure and not an unknown outcome.
        let domain = letter.to.rsplit('@').next().unwrap_or_default();
        let Ok(Some(slot)) = timeout_at(begun + time / 2, self.pool.slot(domain)).await else {
            return Err(Failure::busy());
        };
        if let Some(mut kept) = slot.take() {
            // A firewall may have silently dropped the pooled connection. A third of the time is
            // enough to find out, and the rest is enough for a new connection.
            let now = Instant::now();
            let patience = deadline.saturating_duration_since(now) / 3;
            match kept.send(letter, now + patience, deadline).await {
                Ok(()) => {
                    slot.put_back(kept);
                    return Ok(());
                }
                // Nothing was sent yet: try a new connection.
                Err(failure) if failure.is_stale() => {}
                Err(failure) => return Err(failure),
            }
        }
        let mut fresh = self.dialler.dial(deadline).await?;
        fresh.send(letter, deadline, deadline).await?;
        slot.put_back(fresh);
        Ok(())
    }

    /// Returns the time for an attempt whose code lives for `remaining`.
    fn time(&self, remaining: Duration) -> Duration {
        let limit = self.limit.min(remaining.saturating_sub(LIFE_AFTER));
        limit.saturating_sub(MARGIN)
    }
}

#[async_trait]
impl Provider for SmtpProvider {
    fn name(&self) -> &ProviderName {
        &self.name
    }

    fn attempt_limit(&self) -> Duration {
        self.limit
    }

    async fn probe(&self) -> Result<&'static str, Attempted> {
        match self
            .dialler
            .dial(Instant::now() + self.time(Duration::MAX))
            .await
        {
            Ok(_) if self.dialler.logs_in() => Ok("connected and logged in"),
            Ok(_) => Ok("connected; no login is configured"),
            Err(failure) => Err(Attempted::new(failure.class(), failure.reason())),
        }
    }

    fn tls_peers(&self) -> Vec<TlsPeer> {
        self.tls_peer.iter().cloned().collect()
    }

    async fn attempt(&self, dispatch: &Dispatch) -> Attempted {
        let message = match self.text.message(dispatch, &self.from) {
            Ok(message) => message,
            Err(error) => return Attempted::without_text(&error),
        };
        let Some(mail) = self.dkim.sign(message.formatted()) else {
            return Attempted::not_called(AttemptClass::ConfigFault, "dkim");
        };
        let envelope = message.envelope();
        let ([to], Some(from)) = (envelope.to(), envelope.from()) else {
            return Attempted::without_text(&MessageError::Malformed);
        };
        let letter = Letter {
            from: from.as_ref(),
            to: to.as_ref(),
            mail: &mail,
        };
        match self.send(letter, self.time(dispatch.remaining)).await {
            Ok(()) => {
                let id = format!("{}@{}", dispatch.delivery_id, self.from.email.domain());
                Attempted {
                    provider_message_id: Some(id),
                    ..Attempted::new(AttemptClass::Accepted, "250")
                }
            }
            Err(failure) => {
                Attempted::new(failure.class(), failure.reason()).about(failure.scope())
            }
        }
    }
}

#[cfg(test)]
mod tests;
