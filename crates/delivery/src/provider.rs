//! What a worker brings: something that sends one message and says how that ended.

use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use watchword_chassis::config::ConfigError;
use watchword_chassis::lifecycle::LONGEST_ATTEMPT;
use watchword_core::{
    AttemptClass, Channel, Code, DeliveryId, Locale, ProviderName, Recipient, Variables,
    is_separator,
};

/// One message to send, in clear. It lives for one attempt.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// The delivery; the same for every attempt, so that a peer can recognise a repeat.
    pub delivery_id: DeliveryId,
    /// Who gets it.
    pub recipient: Recipient,
    /// The code.
    pub code: Code,
    /// How the service is called in its messages.
    pub sender: Sender,
    /// The language asked for, if any.
    pub locale: Option<Locale>,
    /// The caller's template variables.
    pub variables: Variables,
    /// How long the code will still be right: what a provider is told as validity.
    pub remaining: Duration,
}

impl Dispatch {
    /// A sample message of `sender` without a recipient, with a code of `digits` digits that lives
    /// for `remaining`: the texts are rendered with it.
    pub fn sample(sender: &Sender, digits: usize, remaining: Duration) -> Option<Self> {
        let code = SAMPLE_CODES.get(..digits)?;
        Some(Self {
            delivery_id: format!("{}-1", "a".repeat(32)).parse().ok()?,
            recipient: Recipient::parse(Channel::Email, "person@example.org").ok()?,
            code: code.parse().ok()?,
            sender: sender.clone(),
            locale: None,
            variables: Variables::default(),
            remaining,
        })
    }

    /// The same sample with `variables`, and with a code that no other value of the message
    /// contains: a code found in its texts is the code, not a part of an order number.
    #[must_use]
    pub fn bringing(mut self, variables: Variables) -> Self {
        let values = variables.as_map().values();
        let own = [Some(&self.sender.app), self.sender.host.as_ref()];
        let all = values.chain(own.into_iter().flatten());
        let all: Vec<String> = all
            .map(|value| value.chars().filter(|c| !is_separator(*c)).collect())
            .collect();
        let digits = self.code.expose().len();
        let free = (0..10)
            .filter_map(|start| SAMPLE_CODES.get(start..start + digits))
            .find(|code| !all.iter().any(|value| value.contains(code)));
        if let Some(Ok(code)) = free.map(str::parse) {
            self.code = code;
        }
        self.variables = variables;
        self
    }
}

/// Ten sample codes of up to ten digits, each a digit further than the one before.
const SAMPLE_CODES: &str = "0123456789012345678";

/// How a service presents itself to the people who get its codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The name people know: `Example Jira`.
    pub app: String,
    /// The host whose page asks for the code; with it, an SMS ends with the origin-bound line
    /// (R32).
    pub host: Option<String>,
}

/// The subject that the outcome of an attempt is evidence about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The provider was not called: the outcome is evidence about nothing.
    NotCalled,
    /// The recipient's country or mail domain, until other destinations see the same.
    Destination,
    /// Our account, as the answer to one message says: that destination, until a second one sees
    /// the same with no acceptance in between.
    Account,
    /// The provider, for every recipient: the call failed before the peer knew the recipient,
    /// or the answer refuses our credentials.
    Provider,
}

/// How one attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempted {
    /// What may follow.
    pub class: AttemptClass,
    /// The subject that the outcome is evidence about.
    pub scope: Scope,
    /// The provider's id for the message.
    pub provider_message_id: Option<String>,
    /// How long the provider asks to wait before the next attempt.
    pub retry_after: Option<Duration>,
    /// A short reason for the log: a status code, an error word. Never text that a peer sent.
    pub reason: String,
}

impl Attempted {
    /// An attempt that ended as `class`, for `reason`. A `config_fault` is about the provider,
    /// every other class about the destination.
    pub fn new(class: AttemptClass, reason: impl Into<String>) -> Self {
        let scope = match class {
            AttemptClass::ConfigFault => Scope::Provider,
            _ => Scope::Destination,
        };
        Self {
            class,
            scope,
            provider_message_id: None,
            retry_after: None,
            reason: reason.into(),
        }
    }

    /// An attempt that ended before the provider was called, for example because the request could
    /// not be built.
    pub fn not_called(class: AttemptClass, reason: impl Into<String>) -> Self {
        Self::new(class, reason).about(Scope::NotCalled)
    }

    /// An attempt that ended because our own text could not be made, for the reason that `error`
    /// names: no provider was called, and none is to blame.
    pub fn without_text(error: &dyn Error) -> Self {
        Self::not_called(AttemptClass::TextFault, error.to_string())
    }

    /// The same outcome as evidence about `scope`.
    #[must_use]
    pub const fn about(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }
}

/// A peer that presents a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsPeer {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether TLS begins in an SMTP dialogue.
    pub starttls: bool,
}

/// The time of an attempt as `timeout_seconds` sets it: what has begun ends while the process drains.
pub fn attempt_limit(seconds: u64) -> Result<Duration, ConfigError> {
    let limit = Duration::from_secs(seconds);
    if limit.is_zero() || limit > LONGEST_ATTEMPT {
        let most = LONGEST_ATTEMPT.as_secs();
        let rule = format!("must be 1 to {most}");
        return Err(ConfigError::new("timeout_seconds", rule));
    }
    Ok(limit)
}

/// A configured SMS gateway or SMTP relay.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Its name in config, ledger and labels.
    fn name(&self) -> &ProviderName;

    /// The longest an attempt takes, whatever the peer does: every wait inside is bounded by it.
    fn attempt_limit(&self) -> Duration;

    /// Whether it recognises a repeat of the same delivery, so that one of unknown outcome can be
    /// sent again without a second message.
    fn is_idempotent(&self) -> bool {
        false
    }

    /// Whether its receipts name a message by the provider's id alone, so that the id must be
    /// remembered.
    fn wants_name(&self) -> bool {
        false
    }

    /// Connects and logs in as far as that can be done without sending anything; gives what that
    /// proved. Bounded by [`Provider::attempt_limit`] by whoever calls.
    async fn probe(&self) -> Result<&'static str, Attempted> {
        Ok("needs no connection")
    }

    /// Who presents a certificate on its behalf: whoever takes its messages or logs us in.
    fn tls_peers(&self) -> Vec<TlsPeer> {
        Vec::new()
    }

    /// The request it would make for this message, for whoever configures it: secrets masked,
    /// nothing sent. `None` where there is no such thing to show.
    async fn show(&self, _dispatch: &Dispatch) -> Option<String> {
        None
    }

    /// Sends one message as [`Provider::attempt`] does, and describes what came back to an operator who
    /// configures the provider: secrets, recipient and code masked. `None` where there is nothing
    /// to describe.
    async fn try_out(&self, dispatch: &Dispatch) -> (Attempted, Option<String>) {
        (self.attempt(dispatch).await, None)
    }

    /// Sends one message. Called again with the same delivery after a transient end. Dropping the
    /// call leaves nothing behind that a later call could trip over.
    async fn attempt(&self, dispatch: &Dispatch) -> Attempted;
}
