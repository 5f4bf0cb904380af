//! The SMTP relay as a provider: a mail over a kept connection, or a new one. Refuses to use a
//! connection again after anything but a clean end.

mod failure;
mod link;
mod pool;
mod tls;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use lettre::address::Envelope;
use lettre::message::Mailbox;
use tokio::time::timeout;
use watchword_chassis::config::ConfigError;
use watchword_core::{AttemptClass, ProviderName};
use watchword_delivery::{Attempted, Dispatch, Provider, TlsPeer, attempt_limit};

use crate::config::{SmtpConfig, TlsMode};
use crate::dkim::Dkim;
use crate::message::EmailText;
use failure::{Cause, Failure};
use link::Dialler;
use pool::Pool;

/// An SMTP relay.
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
    /// Checks the configuration and reads its secrets; dials only when there is a mail.
    pub fn new(
        name: ProviderName,
        config: &SmtpConfig,
        text: EmailText,
    ) -> Result<Self, ConfigError> {
        let limit = attempt_limit(config.timeout_seconds)?;
        if !(1..=256).contains(&config.max_connections) {
            return Err(ConfigError::new("max_connections", "must be 1 to 256"));
        }
        let from: Mailbox = config.from.parse().map_err(|_| {
            ConfigError::new("from", "must be a mailbox: Example <no-reply@example.org>")
        })?;
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

    /// `is_out` from the moment on in which the relay may have the mail.
    async fn send(
        &self,
        envelope: &Envelope,
        mail: &[u8],
        is_out: &AtomicBool,
    ) -> Result<(), Failure> {
        // Waiting for a connection hands nothing over: it ends apart from the attempt, so that a
        // busy relay is a transient end and not one of unknown outcome.
        let Ok(Some(slot)) = timeout(self.limit / 2, self.pool.slot()).await else {
            return Err(Failure::connection());
        };
        if let Some(mut kept) = slot.take() {
            match kept.send(envelope, mail, is_out).await {
                Ok(()) => {
                    slot.put_back(kept);
                    return Ok(());
                }
                // The relay closed an idle connection: nothing was handed over yet.
                Err(failure) if failure.is_stale() => {}
                Err(failure) => return Err(failure),
            }
        }
        let mut fresh = self.dialler.dial().await?;
        fresh.send(envelope, mail, is_out).await?;
        slot.put_back(fresh);
        Ok(())
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
        match self.dialler.dial().await {
            Ok(_) if self.dialler.logs_in() => Ok("connected and logged in"),
            Ok(_) => Ok("connected; it has no login"),
            Err(failure) => Err(Attempted::new(failure.class(), failure.reason())),
        }
    }

    fn tls_peers(&self) -> Vec<TlsPeer> {
        self.tls_peer.iter().cloned().collect()
    }

    async fn attempt(&self, dispatch: &Dispatch) -> Attempted {
        let Ok(message) = self.text.message(dispatch, &self.from) else {
            return Attempted::not_called(AttemptClass::MessageRejected, "template");
        };
        let Some(mail) = self.dkim.sign(message.formatted()) else {
            return Attempted::not_called(AttemptClass::ConfigFault, "dkim");
        };
        let is_out = AtomicBool::new(false);
        let sending = self.send(message.envelope(), &mail, &is_out);
        match timeout(self.limit, sending).await {
            Ok(Ok(())) => {
                let id = format!("{}@{}", dispatch.delivery_id, self.from.email.domain());
                Attempted {
                    provider_message_id: Some(id),
                    ..Attempted::new(AttemptClass::Accepted, "250")
                }
            }
            Ok(Err(failure)) => {
                Attempted::new(failure.class(), failure.reason()).about(failure.scope())
            }
            // Dropping the call dropped the connection. Whether the relay took the mail is not known
            // if it was on its way.
            Err(_) => {
                let class = if is_out.load(Ordering::Relaxed) {
                    AttemptClass::UnknownOutcome
                } else {
                    AttemptClass::Transient
                };
                Attempted::new(class, Cause::Timeout.to_string())
            }
        }
    }
}
